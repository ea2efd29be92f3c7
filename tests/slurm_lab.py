"""A real Slurm of several nodes on this machine, for tests to submit to.

A node is a network, process, mount and host name space with a slurmd in it, so that programs see
separate hosts: each has a loopback, a /tmp and a /dev/shm of its own, and they share the rest of
the file system, as a cluster shares its home. GPUs are device files that Slurm hands out; there is
no driver behind them. All of it ends with the process that started it, however that ends.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from real_run import PATIENCE, ROOT, Process, started_by

NODES = ("n1", "n2")
CPUS = 8
"""CPUs that a node reports to Slurm; more than this machine may have, so that whole runs fit."""
GPUS = 2
_NETWORK = "198.51.100"
"""Reserved for documentation by RFC 5737."""
_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter", "setpriv")
_SPACES = "--net --uts --pid --mount --mount-proc --fork --kill-child"
_CGROUPS = Path("/sys/fs/cgroup")
_CONTROLLERS = ("freezer", "devices", "memory", "cpuset")


def why_not() -> str | None:
    """Why there can be no Slurm here, or None."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "only root on Linux can make the nodes of a Slurm"
    if missing := [program for program in _PROGRAMS if not shutil.which(program)]:
        return (
            f"{', '.join(missing)} not found; Debian: slurmctld slurmd slurm-client munge iproute2"
        )
    tried = subprocess.run(
        ["unshare", *_SPACES.split(), "true"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() or "unshare failed" if tried.returncode else None


class Job(NamedTuple):
    """The state of a job in Slurm."""

    number: str
    """Its number; for a task `ID_INDEX` of an array, not ID."""
    state: str
    """`PENDING`, `RUNNING`, `COMPLETING`, `COMPLETED`, `FAILED`, `CANCELLED`, …"""
    status: str
    """Exit status and signal, as `0:0`."""
    restarts: int
    nodes: str
    start: str
    """ISO 8601."""
    end: str

    @property
    def over(self) -> bool:
        return self.state not in ("PENDING", "RUNNING", "COMPLETING")


class Lab:
    """A Slurm that runs."""

    def __init__(self, folder: Path, holder: int) -> None:
        """
        Args:
            folder: of its configuration and logs.
            holder: the process in whose network it is.
        """
        self.folder, self.holder = folder, holder
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "SBATCH_OUTPUT": str(folder / "out" / "%j"),
            "PYTHONPATH": str(ROOT),
            "TLCLUSTER_PATIENCE": f"{PATIENCE:.0f}",
        }
        (folder / "out").mkdir()

    def call(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command on the login node, in the checkout."""
        done = subprocess.run(
            ["nsenter", f"--target={self.holder}", "--net", "--uts", *map(str, command)],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def idle_nodes(self) -> int:
        shown = self.call("sinfo", "--noheader", "--states=idle", "--format=%D", check=False)
        return int(shown.stdout or 0)

    def submit(self, *arguments: object) -> str:
        """`sbatch ARGUMENTS…`; the job's id."""
        return self.call("sbatch", "--parsable", *arguments).stdout.strip()

    def job(self, job: str) -> Job:
        """How a job, or a task `ID_INDEX` of an array, is now."""
        shown = self.call("scontrol", "--oneliner", "show", "job", job).stdout
        facts = dict(re.findall(r"(\w+)=(\S*)", shown))
        return Job(
            facts["JobId"],
            facts["JobState"],
            facts["ExitCode"],
            int(facts["Restarts"]),
            facts["NodeList"],
            facts["StartTime"],
            facts["EndTime"],
        )

    def said(self, job: str) -> str:
        """The output of a job."""
        path = self.folder / "out" / self.job(job).number
        return path.read_text() if path.exists() else ""

    def until(self, job: str, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, while a job runs."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            now = self.job(job)
            assert not now.over, (now, self.said(job))
            assert time.monotonic() < deadline, (now, self.said(job))
            time.sleep(0.2)

    def ended(self, job: str) -> Job:
        """Wait for a job's end, requeues included."""
        deadline = time.monotonic() + PATIENCE
        while not (now := self.job(job)).over:
            assert time.monotonic() < deadline, (now, self.said(job))
            time.sleep(0.2)
        return now

    def left(self) -> tuple[set[Process], set[str]]:
        """All processes of the nodes, and all files and folders in what is their own."""
        processes = started_by(self.holder)
        files = set()
        for process in processes:
            root = Path(f"/proc/{process.pid}/root")
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
            if command[0].endswith(b"slurmd"):
                node = command[-2].decode()
                for own in ("tmp", "dev/shm"):
                    files |= {f"{node}: {path.name}" for path in (root / own).iterdir()}
        return processes, files


@contextlib.contextmanager
def slurm(*shared: Path) -> Iterator[Lab]:
    """A Slurm for as long as the block.

    Args:
        shared: folders that all nodes see although they are in /tmp.
    """
    # munged wants a folder that everyone may enter.
    folder = Path(tempfile.mkdtemp(prefix="tlcluster-slurm-"))
    folder.chmod(0o755)
    try:
        _configure(folder, [folder, *shared])
        log = folder / "log" / "lab"
        with log.open("w") as stderr:
            holder = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "unshare", *_SPACES.split(), "bash", folder / "up"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert holder.stdout
        try:
            assert holder.stdout.readline() == "up\n", log.read_text()
            lab = Lab(folder, holder.pid)
            deadline = time.monotonic() + PATIENCE
            while (
                lab.call("sinfo", "-ht", "idle", "-o", "%D", check=False).stdout
                != f"{len(NODES)}\n"
            ):
                assert time.monotonic() < deadline, lab.call("sinfo", "-N", "-o", "%N %T %E").stdout
                time.sleep(0.1)
            yield lab
        finally:
            holder.kill()
            holder.communicate()
            _remove_cgroups()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path, shared: Sequence[Path]) -> None:
    for name in ("log", "run", "state", "dev"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    hosts = "".join(f"{_NETWORK}.{n} {name}\n" for n, name in enumerate(NODES, 1))
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
    for gpu in range(GPUS):
        os.mknod(folder / "dev" / f"nvidia{gpu}", 0o666 | 0o020000, os.makedev(195, gpu))
    names, devices = f"n[1-{len(NODES)}]", f"{folder}/dev/nvidia[0-{GPUS - 1}]"
    (folder / "gres.conf").write_text(f"NodeName={names} Name=gpu File={devices}\n")
    # Without the kernel's first kind of control groups, Slurm tracks processes by their parents.
    cgroup = all(os.access(_CGROUPS / name, os.W_OK) for name in _CONTROLLERS)
    (folder / "cgroup.conf").write_text(
        f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={_CGROUPS}\nCgroupAutomount=no\n"
        "ConstrainDevices=yes\n"
    )
    (folder / "slurm.conf").write_text(f"""
ClusterName=lab
SlurmctldHost=login({_NETWORK}.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until the credentials of its last start have expired, 120 s by default.
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd-%n
ProctrackType=proctrack/{"cgroup" if cgroup else "linuxproc"}
TaskPlugin=task/{"cgroup" if cgroup else "none"}
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
MailProg=/bin/true
NodeName={names} NodeAddr={_NETWORK}.[1-{len(NODES)}] CPUs={CPUS} RealMemory=64000 Gres=gpu:{GPUS}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")
    (folder / "up").write_text(f"""set -eu
export SLURM_CONF={folder}/slurm.conf
hostname login
ip link set lo up
ip link add nodes type bridge
ip address add {_NETWORK}.254/24 dev nodes
ip link set nodes up
munged --key-file={key} --socket={folder}/run/munge.sock --pid-file={folder}/run/munged.pid \\
  --log-file={folder}/log/munged --seed-file={folder}/run/munged.seed
slurmctld -D -i >&2 &
number=0
for name in {" ".join(NODES)}; do
  number=$((number + 1))
  unshare {_SPACES} bash {folder}/node $name $number >&2 &
  # Until it has left this network.
  until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
  ip link add to-$name type veth peer name eth0 netns $!
  ip link set to-$name master nodes up
done
echo up
wait
""")
    own_tmp = [path.resolve() for path in shared if path.resolve().is_relative_to("/tmp")]  # noqa: S108
    binds = "\n".join(
        f"mkdir -p {path} && mount --bind /mnt/{path.relative_to('/tmp')} {path}"  # noqa: S108
        for path in own_tmp
    )
    (folder / "node").write_text(f"""set -eu
hostname $1
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip link set lo up
ip address add {_NETWORK}.$2/24 dev eth0
ip link set eth0 up
mount --bind {folder}/hosts /etc/hosts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount --bind /tmp /mnt
mount -t tmpfs -o mode=1777 tmp /tmp
{binds}
umount /mnt
slurmd -D -N $1 &
# This is process 1 of the node, which collects what others leave behind.
wait
""")


def _remove_cgroups() -> None:
    for _ in range(20):
        left = sorted(_CGROUPS.glob("*/slurm*/**/"), reverse=True)
        for path in left:
            with contextlib.suppress(OSError):
                path.rmdir()
        if not left:
            return
        time.sleep(0.1)
