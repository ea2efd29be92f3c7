"""Runs a container of a pod on this machine: its files, user, environment and command.

What a container runtime would do is done with the kernel's own means: the image's layout from this
checkout and this Python, the root read-only, an empty file system where the pod has an emptyDir,
the pod's numeric user without capabilities. There is no limit on memory and CPU, no seccomp
profile, and no Debian of its own: the system's files are this machine's.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from k8s_files import ROOT, Object, Objects, image_environment, substituted, values_of

from tlcluster.backbones import BACKBONES
from tlcluster.training.weights import VARIABLE

APP = "/app"
ADDRESS = "192.0.2.1"
"""Of every pod in a `network`; reserved for documentation by RFC 5737."""
ASSIGNED = {"runAsUser": 1_000_730_000, "runAsGroup": 0, "fsGroup": 1_000_730_000}
"""Numbers as OpenShift gives them to a pod that names no user; no passwd file has them."""
_PYTHON = "/opt/python"
_RAY = '#!/bin/sh\nexec python -m ray.scripts.scripts "$@"\n'
"""The environment's own `ray` begins with a path of this machine."""
_NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts")


def why_not() -> str | None:
    """Why no container can be run here, or None."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "only root on Linux can make a root file system"
    if not all(shutil.which(tool) for tool in ("unshare", "nsenter", "setpriv", "ip")):
        return "unshare, nsenter, setpriv and ip (util-linux, iproute2) are not all there"
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "--net", "true"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() or "unshare failed" if tried.returncode else None


class Volumes(NamedTuple):
    """The content of the pod's volumes; an emptyDir needs none."""

    claims: Mapping[str, Path] = MappingProxyType({})
    """Claim → folder."""
    secrets: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    """Secret → key → content."""


@contextlib.contextmanager
def network() -> Iterator[int]:
    """A network of its own, in which nothing answers but what is started there.

    Yields the process that holds it.
    """
    steps = (
        "ip link set lo up",
        f"ip address add {ADDRESS}/24 dev lo",
        f"ip route add default dev lo src {ADDRESS}",
        "echo up",
        "exec sleep infinity",
    )
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", " && ".join(steps)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    try:
        if holder.stdout.readline() != "up\n":
            raise RuntimeError("no network namespace could be made")
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


class Container(NamedTuple):
    """One container of a pod, and what it is run with."""

    items: Objects
    """The render, whose ConfigMaps it reads."""
    pod: Object
    """A pod's spec."""
    name: str
    folder: Path
    """An empty folder for its root and its secrets."""
    volumes: Volumes = Volumes()
    network: int | None = None
    """A process in whose network it runs; this machine's by default."""
    environment: Mapping[str, str] = MappingProxyType({})
    """Variables that the operator adds."""
    services: Sequence[str] = ()
    """Names that the cluster's DNS knows; all of them are in its network."""

    @property
    def spec(self) -> Object:
        every = [*self.pod.get("initContainers", ()), *self.pod["containers"]]
        return next(container for container in every if container["name"] == self.name)

    @property
    def variables(self) -> dict[str, str]:
        path = f"/shims:{_PYTHON}/bin:/usr/local/bin:/usr/bin:/bin"
        given = values_of(self.items, self.spec)
        return {**image_environment(), "PATH": path, **given, **self.environment}

    @property
    def command(self) -> list[str]:
        return substituted(self.spec, self.variables)

    def run(
        self, command: Sequence[str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, by default the container's own, to its end; all it prints is `stdout`."""
        with self.running(command) as process:
            output, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    @contextlib.contextmanager
    def running(self, command: Sequence[str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """A command that runs as long as the block; the end takes all its processes along."""
        self.folder.mkdir(parents=True, exist_ok=True)
        script = self.folder / "run.sh"
        script.write_text(self._script(command or self.command))
        enter = ["nsenter", f"--net=/proc/{self.network}/ns/net"] if self.network else []
        process = subprocess.Popen(
            [*enter, "unshare", *_NAMESPACES, "sh", "-eu", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def _script(self, command: Sequence[str]) -> str:
        """Builds the root in a mount namespace of its own, and becomes the command in it."""
        root = self.folder / "root"
        context = ASSIGNED | self.pod["securityContext"]
        user, group, shared = (context[key] for key in ASSIGNED)
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        capabilities = self.spec["securityContext"]["capabilities"]["drop"]
        hosts = self.folder / "hosts"
        names = " ".join([self.name, *self.services])
        hosts.write_text(f"127.0.0.1 localhost\n{ADDRESS} {names}\n")
        lines = [
            f"mkdir -p {root}",
            f"mount -t tmpfs -o mode=0755 root {root}",
            *(line for source, target in _layout() for line in _bound(source, root, target)),
            # A copy, because a volume may be mounted inside.
            f"cp -a /etc {root}/etc && mount --bind {hosts} {root}/etc/hosts",
            f"mkdir -p {root}/shims {root}/dev {root}/proc",
            f"mount -t proc proc {root}/proc",
            *(
                f"touch {root}/dev/{name} && mount --bind /dev/{name} {root}/dev/{name}"
                for name in ("null", "zero", "full", "random", "urandom")
            ),
            f"ln -s /proc/self/fd {root}/dev/fd",
            f"printf '%s' {shlex.quote(_RAY)} > {root}/shims/ray && chmod 0755 {root}/shims/ray",
            f"ln -s {_PYTHON}/bin/python {root}/shims/python3",
            *(line for mount in self.spec["volumeMounts"] for line in self._mounted(mount, shared)),
        ]
        if self.spec["securityContext"]["readOnlyRootFilesystem"]:
            lines.append(f"mount -o remount,ro {root}")
        lines += [
            f"hostname {self.name}",
            shlex.join(
                [
                    "exec", "chroot", str(root), "env", "-i", *variables,
                    "setpriv", f"--reuid={user}", f"--regid={group}", f"--groups={shared}",
                    *(["--bounding-set=-all"] if capabilities == ["ALL"] else []),
                    "--inh-caps=-all", "--no-new-privs",
                    # `--kill-child` does not survive a change of the user.
                    "--pdeathsig=KILL",
                    "sh", "-c", f'cd {APP} && exec "$@"', "sh", *command,
                ]
            ),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _mounted(self, mount: Object, group: int) -> list[str]:
        target = self.folder / "root" / mount["mountPath"].lstrip("/")
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        # A name that is no volume of the pod is a claim of a StatefulSet.
        claimed = {"persistentVolumeClaim": {"claimName": mount["name"]}}
        volume = volumes.get(mount["name"], claimed)
        if "emptyDir" in volume:
            size = volume["emptyDir"]["sizeLimit"].removesuffix("i").lower()
            options = f"mode=2777,gid={group},size={size}"
            return [f"mkdir -p {target}", f"mount -t tmpfs -o {options} {mount['name']} {target}"]
        if "persistentVolumeClaim" in volume:
            folder = self.volumes.claims[volume["persistentVolumeClaim"]["claimName"]]
            os.chown(folder, -1, group)
            folder.chmod(0o2775)
            return [f"mkdir -p {target}", f"mount --bind {folder} {target}"]
        folder = self.folder / "secrets" / mount["name"]
        folder.mkdir(parents=True, exist_ok=True)
        for item in volume["secret"]["items"]:
            file = folder / item["path"]
            file.write_text(self.volumes.secrets[volume["secret"]["secretName"]][item["key"]])
            os.chown(file, 0, group)
            file.chmod(volume["secret"]["defaultMode"])
        return [f"mkdir -p {target}", f"mount --bind -o ro {folder} {target}"]


def _layout() -> list[tuple[Path, str]]:
    """The files of the image: path here → path there."""
    system = [Path(name) for name in ("/usr", "/sys", "/bin", "/lib", "/lib64")]
    python = [(Path(sys.prefix), _PYTHON)]
    base = Path(sys.base_prefix).resolve()
    if not base.is_relative_to("/usr"):
        python.append((base, str(base)))
    code = [(ROOT / name, f"{APP}/{name}") for name in ("jobs", "tlcluster", "pyproject.toml")]
    published = ROOT.parent / "shared/weights" / BACKBONES["vgg16"].weights_file
    weights = (published, image_environment()[VARIABLE])
    found = [weights] if weights[0].is_file() else []
    return [*((path, str(path)) for path in system if path.exists()), *python, *code, *found]


def _bound(source: Path, root: Path, target: str) -> list[str]:
    place = f"{root}{target}"
    if source.is_symlink():
        return [f"ln -s {source.readlink()} {place}"]
    make = f"mkdir -p {place}" if source.is_dir() else f"touch {place}"
    return [f"mkdir -p {Path(place).parent}", make, f"mount --rbind -o ro {source} {place}"]
