"""Runs a container of a pod on this machine: its files, user, environment and command.

What a container runtime would do is done with the kernel's own means: the image's layout from this
checkout and this Python, the root read-only, an empty file system where the pod has an emptyDir,
the pod's numeric user without capabilities. There is no limit on memory and CPU, no seccomp
profile, and no Debian of its own: the system's files are this machine's.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from k8s_image import ROOT, image_environment

Object = dict[str, Any]

APP = "/app"
ADDRESS = "192.0.2.1"
"""Of every pod in a `network`; from RFC 5737, so that it is nobody's."""
_PYTHON = "/opt/python"
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
    """What the pod's volumes hold; an emptyDir needs nothing."""

    claims: Mapping[str, Path] = {}
    """Claim → folder."""
    secrets: Mapping[str, Mapping[str, str]] = {}
    """Secret → key → content."""


@contextlib.contextmanager
def network() -> Iterator[int]:
    """A network of its own, in which nothing answers but what is started there.

    Yields the process that holds it.
    """
    make = f"ip link set lo up && ip address add {ADDRESS}/24 dev lo && ip route add default dev lo src {ADDRESS}"
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", f"{make} && echo up && exec sleep infinity"],
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

    pod: Object
    """A pod's spec."""
    name: str
    config_maps: Mapping[str, Mapping[str, str]]
    folder: Path
    """An empty folder for its root and its secrets."""
    volumes: Volumes = Volumes()
    network: int | None = None
    """A process in whose network it runs; this machine's by default."""
    environment: Mapping[str, str] = {}
    """What the operator adds."""
    services: Sequence[str] = ()
    """Names that the cluster's DNS knows; all of them are in its network."""

    @property
    def spec(self) -> Object:
        every = [*self.pod.get("initContainers", ()), *self.pod["containers"]]
        return next(container for container in every if container["name"] == self.name)

    def variables(self) -> dict[str, str]:
        """The environment: the image's, the ConfigMaps', the container's own."""
        values = {
            **image_environment(),
            "PATH": f"/shims:{_PYTHON}/bin:/usr/local/bin:/usr/bin:/bin",
        }
        for source in self.spec.get("envFrom", ()):
            values |= self.config_maps[source["configMapRef"]["name"]]
        values |= {item["name"]: item["value"] for item in self.spec.get("env", ())}
        return values | self.environment

    def command(self) -> list[str]:
        """The container's own command, with `$(NAME)` replaced as Kubernetes does it."""
        values = self.variables()
        return [
            re.sub(r"\$\((\w+)\)", lambda found: values.get(found[1], found[0]), word)
            for word in (*self.spec.get("command", ()), *self.spec.get("args", ()))
        ]

    def start(self, command: Sequence[str] | None = None) -> subprocess.Popen[str]:
        """Start a command, by default the container's own; `stop` ends it."""
        enter = ["nsenter", f"--net=/proc/{self.network}/ns/net"] if self.network else []
        script = self.folder / "run.sh"
        self.folder.mkdir(parents=True, exist_ok=True)
        script.write_text(self._script(command or self.command()))
        return subprocess.Popen(
            [*enter, "unshare", *_NAMESPACES, "sh", "-eu", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.environ["PATH"]},
            start_new_session=True,
        )

    def run(
        self, command: Sequence[str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; standard error is in its output."""
        with self.running(command) as process:
            output, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    @contextlib.contextmanager
    def running(self, command: Sequence[str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """A command that runs as long as the block; the end takes all its processes along."""
        process = self.start(command)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def _script(self, command: Sequence[str]) -> str:
        """Builds the root in a mount namespace of its own, and becomes the command in it."""
        root = self.folder / "root"
        context = self.pod["securityContext"]
        user, group, shared = (context[k] for k in ("runAsUser", "runAsGroup", "fsGroup"))
        variables = [f"{name}={value}" for name, value in self.variables().items()]
        capabilities = self.spec["securityContext"]["capabilities"]["drop"]
        hosts = self.folder / "hosts"
        names = " ".join([self.name, *self.services])
        hosts.write_text(f"127.0.0.1 localhost\n{ADDRESS} {names}\n")
        lines = [
            f"mkdir -p {root}",
            f"mount -t tmpfs -o mode=0755 root {root}",
            *(line for source, target in _layout() for line in _bound(source, root, target)),
            f"mount --bind {hosts} {root}/etc/hosts",
            f"mkdir -p {root}/shims {root}/dev {root}/proc",
            f"mount -t proc proc {root}/proc",
            *(
                f"touch {root}/dev/{name} && mount --bind /dev/{name} {root}/dev/{name}"
                for name in ("null", "zero", "full", "random", "urandom")
            ),
            f"ln -s /proc/self/fd {root}/dev/fd",
            # The environment's own script begins with a path of this machine.
            f"printf '%s\\n' '#!/bin/sh' 'exec python -m ray.scripts.scripts \"$@\"' > {root}/shims/ray",
            f"ln -s {_PYTHON}/bin/python {root}/shims/python3",
            f"chmod 0755 {root}/shims/ray",
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
                    "sh", "-c", f'cd {APP} && exec "$@"', "sh", *command,
                ]
            ),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _mounted(self, mount: Object, group: int) -> list[str]:
        target = self.folder / "root" / mount["mountPath"].lstrip("/")
        volume = next(v for v in self.pod["volumes"] if v["name"] == mount["name"])
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
    """What the image holds: here → there."""
    system = [Path(name) for name in ("/usr", "/etc", "/sys", "/bin", "/lib", "/lib64")]
    python = [(Path(sys.prefix), _PYTHON)]
    base = Path(sys.base_prefix).resolve()
    if not base.is_relative_to("/usr"):
        python.append((base, str(base)))
    code = [(ROOT / name, f"{APP}/{name}") for name in ("jobs", "tlcluster", "pyproject.toml")]
    return [*((path, str(path)) for path in system if path.exists()), *python, *code]


def _bound(source: Path, root: Path, target: str) -> list[str]:
    place = f"{root}{target}"
    if source.is_symlink():
        return [f"ln -s {os.readlink(source)} {place}"]
    make = f"mkdir -p {place}" if source.is_dir() else f"touch {place}"
    return [f"mkdir -p {Path(place).parent}", make, f"mount --rbind -o ro {source} {place}"]
