"""Real workers for tests: each a process of its own, as on a cluster, without Ray.

    python tests/run_worker.py FOLDER

reads waves, one a line, and answers each with a line: a wave is a JSON list of
groups that run at the same time, a group a list of jobs, one for each of its
workers. The answers come in the same lists; null stands for a process that
died. See `train_job` and `collective_job` for what a job is. The processes are
forked from this one, so that TensorFlow is imported once, and leave their
answers in FOLDER, an empty one.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from tlcluster.orchestration.environment import tensorflow_environment

if __name__ == "__main__":
    os.environ.update(tensorflow_environment())

import tensorflow as tf

from tlcluster.errors import UserError
from tlcluster.experiments import Experiment
from tlcluster.training import features
from tlcluster.training.collective import joined, joined_lines, total
from tlcluster.training.progress import Progress
from tlcluster.training.task import Task
from tlcluster.training.train import Place, train

Json = dict[str, Any]


def train_job(job: Json, rank: int, world_size: int) -> Json:
    """Train as one worker.

    Args:
        job: `task`, the fields of `tlcluster.training.task.Task`; `weights`, the path of the
            ImageNet weights; and what is to happen, or null: `stop_at`, the [epoch, step] from
            which on the driver asks to stop, and `die_at`, the [epoch, step, phase] at which the
            process is killed.

    Returns:
        `outcome`, what `train` returned; `reported`, the epochs that it reported; `shown`, its
        progress as [epoch, step, phase]; and `threads`, how many the process has then.
    """
    # A process that is killed may leave claims; only those of a test are old so soon.
    features.CLAIM_SECONDS = 5.0
    experiment = Experiment(**job["task"].pop("experiment"))
    reported: list[Json] = []
    shown: list[list[int | str]] = []

    def progress(now: Progress) -> bool:
        shown.append([now.epoch, now.step, now.phase])
        if shown[-1] == job["die_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return job["stop_at"] is not None and [now.epoch, now.step] >= job["stop_at"]

    place = Place(rank, world_size, lambda epoch: reported.append(epoch.model_dump()), progress)
    weights = Path(job["weights"]).read_bytes()
    outcome = train(Task(experiment=experiment, **job["task"]), place, weights)
    threads = len(list(Path("/proc/self/task").iterdir()))
    return {"outcome": outcome, "reported": reported, "shown": shown, "threads": threads}


def collective_job(job: Json) -> Json:
    """What comes of `rows`, numbers of this worker, and of its `line`."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    rows = tf.reshape(tf.constant(job["rows"], tf.float32), (-1, 2))
    return {
        "lines": joined_lines(strategy, job["line"]),
        "joined": joined(strategy, rows).numpy().tolist(),
        "total": total(strategy, tf.constant([len(job["rows"]), 1.0], tf.float64)).numpy().tolist(),
    }


def run(job: Json, rank: int, ports: list[int]) -> Json:
    """Do a job in a cluster whose workers have these ports."""
    workers = [f"127.0.0.1:{port}" for port in ports]
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
    )
    try:
        return train_job(job, rank, len(ports)) if "task" in job else collective_job(job)
    except UserError as error:
        return {"error": type(error).__name__, "message": str(error)}


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def main(folder: Path) -> None:
    for line in sys.stdin:
        children = []
        for group in json.loads(line):
            ports = free_ports(len(group))
            for rank, job in enumerate(group):
                if (child := os.fork()) == 0:
                    answer = json.dumps(run(job, rank, ports))
                    (folder / f"{os.getpid()}.part").write_text(answer)
                    (folder / f"{os.getpid()}.part").rename(folder / f"{os.getpid()}")
                    # Not os._exit: a worker's threads end as they do on a cluster.
                    return
                children.append((group, child))
        answers: dict[int, list[Any]] = {}
        for group, child in children:
            os.waitpid(child, 0)
            path = folder / f"{child}"
            answers.setdefault(id(group), []).append(
                json.loads(path.read_text()) if path.exists() else None
            )
            path.unlink(missing_ok=True)
        print(json.dumps(list(answers.values())), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
