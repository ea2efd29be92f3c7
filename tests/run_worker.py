"""Real workers for tests: each is a process of its own, as on a cluster, without Ray.

    python tests/run_worker.py FOLDER

reads waves, one per line, and answers each with a line. A wave is a JSON list of
groups that run at the same time; a group is a list of jobs, one for each of its
workers. The answers come in the same lists; null stands for a process that died.
For the jobs see `train_job`, `collective_job`, `norm_job`, `features_job` and
`watch_job`. The processes are forked from this one, so that TensorFlow is
imported once. They write their answers to FOLDER, which must be empty.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tlcluster.orchestration.environment import tensorflow_environment

if __name__ == "__main__":
    os.environ.update(tensorflow_environment())

import tensorflow as tf
import tf_keras

from tlcluster.dataset.shards import read_index
from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.experiments import Experiment
from tlcluster.records import EpochRecord
from tlcluster.storage import patient
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.protocol import LARGEST, StoredObject
from tlcluster.training import features, stores
from tlcluster.training.batch_norm import GlobalBatchNorm
from tlcluster.training.collective import joined, joined_lines, local, total
from tlcluster.training.diary import NO_DIARY, Pages, opened
from tlcluster.training.feature_key import PLAIN, FeatureKey
from tlcluster.training.progress import Progress
from tlcluster.training.task import Task
from tlcluster.training.train import Place, train
from tlcluster.training.witness import note_of, seen

Json = dict[str, Any]

WAITED_SECONDS = 3.0
"""After which a worker waits for one that hangs: a step of theirs takes milliseconds."""


class Outage:
    """Decides which operations of the stores fail with StoreUnavailable.

    Args:
        operation: the only one that may fail; None: all.
        every: every so many calls, one fails.
        after: all calls after so many fail.
    """

    def __init__(
        self, operation: str | None = None, every: int | None = None, after: int | None = None
    ) -> None:
        self.operation, self.every, self.after = operation, every, after
        self.calls = 0
        self.lock = threading.Lock()

    def meet(self, operation: str) -> None:
        if self.operation not in (None, operation):
            return
        with self.lock:
            self.calls += 1
            calls = self.calls
        if (self.every and calls % self.every == 0) or (
            self.after is not None and calls > self.after
        ):
            raise StoreUnavailable(f"no answer to {operation}")


class Flaky(DirectoryStore):
    """A directory with outages."""

    def __init__(self, folder: Path, outage: Outage) -> None:
        super().__init__(folder)
        self.outage = outage

    def list(self, prefix: str = "") -> list[StoredObject]:
        self.outage.meet("list")
        return super().list(prefix)

    def get(self, key: str, most: int = LARGEST) -> bytes:
        self.outage.meet("get")
        return super().get(key, most)

    def put(self, key: str, data: bytes | Path) -> None:
        self.outage.meet("put")
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        self.outage.meet("put_if_absent")
        return super().put_if_absent(key, data)

    def delete(self, key: str) -> None:
        self.outage.meet("delete")
        super().delete(key)

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        self.outage.meet("fetch")
        return super().fetch(key, sha256=sha256, size=size)


def break_storage(outage: Outage) -> None:
    """Let the stores of this process have outages, and retry without long pauses."""

    def open_store(url: str, _cache: NodeCache, *, check: bool) -> Flaky:
        assert not check  # a first look would refuse a store that is away just now
        return Flaky(Path(url), outage)

    stores.open_store = open_store
    patient.FIRST_PAUSE_SECONDS = 0.01


def train_job(job: Json, rank: int, world_size: int) -> Json:
    """Train as one worker.

    Args:
        job: `task`, the fields of `tlcluster.training.task.Task`; `weights`, the path of the
            ImageNet weights or null; and what is to happen, or null: `stop_at`, the [epoch, step]
            from which on the driver asks to stop, `die_at`, the [epoch, step, phase] at which the
            process is killed, and `outage`, the arguments of an `Outage`. `environment`, which may
            be missing, has variables that are set before TensorFlow is used.
            `hang`, which may be missing, has a folder for `pages` and says `how` the last worker
            hangs after the first epoch: it is "stopped", or does something "else".

    Returns:
        `outcome`, what `train` returned, or `error` and `message`; `reported`, the epochs that
        it reported; `shown`, its progress as [epoch, step, phase]; `away`, what it said about
        storage; `threads`, how many the process has at the end; `environment`, the variables that
        `train` may set for TensorFlow; and `gpu_peak`, the bytes of GPU memory that it had at most.
    """
    os.environ.update(job.get("environment", {}))
    # A process that is killed may leave claims. In tests, claims of this age have no other cause.
    features.CLAIM_SECONDS = 5.0
    if job["outage"] is not None:
        break_storage(Outage(**job["outage"]))
    experiment = Experiment(**job["task"].pop("experiment"))
    reported: list[Json] = []
    shown: list[list[int | str]] = []
    away: list[str] = []

    hang, diary = job.get("hang"), NO_DIARY
    if hang:
        diary, pages = opened(rank)
        (Path(hang["pages"]) / f"{rank}.part").write_text(json.dumps(pages))
        (Path(hang["pages"]) / f"{rank}.part").rename(Path(hang["pages"]) / f"{rank}")

    def report(epoch: EpochRecord) -> None:
        reported.append(epoch.model_dump())
        if hang and rank == world_size - 1:
            if hang["how"] == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            threading.Event().wait()

    def progress(now: Progress) -> bool:
        shown.append([now.epoch, now.step, now.phase])
        if shown[-1] == job["die_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return job["stop_at"] is not None and [now.epoch, now.step] >= job["stop_at"]

    place = Place(
        rank,
        world_size,
        report=report,
        progress=progress,
        away=lambda _, why: away.append(why),
        diary=diary,
    )
    weights = Path(job["weights"]).read_bytes() if job["weights"] else None
    answer: Json = {"reported": reported, "shown": shown, "away": away}
    try:
        answer["outcome"] = train(Task(experiment=experiment, **job["task"]), place, weights)
    except (UserError, StoreUnavailable) as error:
        answer |= {"error": type(error).__name__, "message": str(error)}
    answer["environment"] = {
        name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "no_grpc_proxy")
    }
    answer["gpu_peak"] = (
        tf.config.experimental.get_memory_info("GPU:0")["peak"]
        if tf.config.list_logical_devices("GPU")
        else None
    )
    answer["threads"] = len(list(Path("/proc/self/task").iterdir()))
    return answer


def collective_job(job: Json) -> Json:
    """Join and add up `rows`, numbers of this worker, and join its `line`."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    rows = tf.reshape(tf.constant(job["rows"], tf.float32), (-1, 2))
    return {
        "lines": joined_lines(strategy, job["line"]),
        "joined": joined(strategy, rows).numpy().tolist(),
        "total": total(strategy, tf.constant([len(job["rows"]), 1.0], tf.float64)).numpy().tolist(),
    }


def norm_job(job: Json) -> Json:
    """A training pass of BatchNorm over the `rows` of all workers.

    Without rows, a worker has a row of padding that does not count.

    Returns:
        `outputs` and the gradient `to_rows` of this worker's rows, and the `moving` statistics.
    """
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    given = tf.reshape(tf.constant(job["rows"], tf.float32), (-1, 2))
    rows = given if len(job["rows"]) else tf.fill((1, 2), 99.0)
    norm = GlobalBatchNorm()
    with strategy.scope():
        layer = tf_keras.layers.BatchNormalization()
        layer.build((None, 2))
    norm.replace_in(layer)

    @tf.function
    def call() -> tuple[tf.Tensor, tf.Tensor]:
        def step() -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape, norm.counting(tf.constant(float(len(job["rows"]) > 0))):
                tape.watch(rows)
                outputs = layer(rows, training=True)[: len(given)]
                value = tf.reduce_sum(outputs**3)
            return outputs, tape.gradient(value, rows)[: len(given)]

        return strategy.run(step)

    outputs, gradient = (local(strategy, part).numpy().tolist() for part in call())
    moving = [local(strategy, v).numpy().tolist() for v in layer.non_trainable_weights]
    return {"outputs": outputs, "to_rows": gradient, "moving": moving}


def features_job(job: Json, rank: int) -> Json:
    """Compute features of the first shard of train as the first worker; the others do nothing.

    Args:
        job: the folders of the stores, `images` and `features`.

    Returns:
        How many `rows` this worker has features of, or null.
    """
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        images = tf_keras.Input((32, 32, 3))
        layer = tf_keras.layers.BatchNormalization(trainable=False)
        base = tf_keras.Model(images, tf_keras.layers.Reshape((-1,))(layer(images)))
    found = None
    if rank == 0:
        # A worker that waits for the others would wait for ever.
        watchdog = threading.Timer(60.0, os._exit, (1,))
        watchdog.start()
        store = DirectoryStore(Path(job["images"]))
        features_of = features.FeatureStore(
            images=store,
            index=read_index(store)[0],
            features=DirectoryStore(Path(job["features"])),
            key=FeatureKey("index", "random", "raw", 1, "norm", (32, 32, 3)),
            base=base,
            strategy=strategy,
            claim=features.Claim(training="run/norm", attempt=1),
            batch=256,
        )
        with ThreadPoolExecutor(1) as reader:
            found = len(reader.submit(features_of.load, "train", PLAIN, 0).result().inputs)
        watchdog.cancel()
    joined_lines(strategy, "done")
    return {"rows": found}


def watch_job(job: Json) -> Json:
    """Look at two workers of which one hangs, once the other has waited for some seconds; end them.

    Args:
        job: `watch`, the folder of their pages.

    Returns:
        `ranks`, where they stand.
    """
    folder = Path(job["watch"])
    while len(found := [path for path in folder.iterdir() if not path.suffix]) < 2:
        time.sleep(0.1)
    pages = sorted(Pages(*json.loads(path.read_text())) for path in found)
    while note := note_of(pages[0]):
        waited = time.monotonic() - note.since
        if note.inside and note.doing.endswith("epoch 2") and waited > WAITED_SECONDS:
            break
        time.sleep(0.1)
    ranks = seen(pages)
    for one in ranks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    return {"ranks": [one.model_dump() for one in ranks]}


def run(job: Json, rank: int, ports: list[int]) -> Json:
    """Do a job in a cluster whose workers have these ports."""
    workers = [f"127.0.0.1:{port}" for port in ports]
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
    )
    if "task" in job:
        return train_job(job, rank, len(ports))
    if "watch" in job:
        return watch_job(job)
    if "features" in job:
        return features_job(job, rank)
    return collective_job(job) if "line" in job else norm_job(job)


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
