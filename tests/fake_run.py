"""Runs that never ran: records as training would leave them, with numbers drawn from a seed.

    PYTHONPATH=. python tests/fake_run.py FOLDER [seeds]

writes one such run, or one with several seeds, into FOLDER and its report beside it, to look at.
"""

import io
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tlcluster import records
from tlcluster.cinic10 import CLASSES
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.records import (
    DatasetRecord,
    EpochRecord,
    ExperimentConfig,
    ExperimentResult,
    LayerRecord,
    NodeRecord,
    RunManifest,
    WeightsRecord,
    WorkerRecord,
)
from tlcluster.report.figures.canvas import Figure
from tlcluster.report.pictures import Look
from tlcluster.report.write import write_report
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store


class Shape(NamedTuple):
    """How an experiment's numbers look."""

    epochs: int
    best: int
    accuracy: float
    loss: float
    overfit: float
    speed: float
    """Images a second."""


SHAPES: Mapping[str, Shape] = {
    "frozen": Shape(24, 14, 0.486, 1.53, 0.17, 41_000),
    "augmented": Shape(42, 32, 0.494, 1.45, 0.02, 40_200),
    "regularized": Shape(81, 71, 0.532, 1.32, 0.0, 38_500),
    "finetuned": Shape(92, 82, 0.754, 0.74, 0.11, 6_350),
}


def manifest(**changes: Any) -> RunManifest:
    values: dict[str, Any] = {
        "name": "paper-20260412T071500Z",
        "status": "finished",
        "profile": "paper",
        "seed": 524,
        "experiments": tuple(EXPERIMENTS),
        "command": "python jobs/run_all.py --profile paper --store s3://cinic/shards --workers 2",
        "started": "2026-04-12T07:15:00Z",
        "finished": "2026-04-12T07:49:12Z",
        "wall_seconds": 2052.0,
        "versions": {
            "python": "3.11.9",
            "tlcluster": "1.0.0",
            "tensorflow": "2.21.0",
            "tf_keras": "2.21.0",
            "ray": "2.60.0",
            "numpy": "2.1.3",
        },
        "hardware": tuple(
            NodeRecord(
                host=f"gpu{number:02}",
                cpus=64,
                gpus=4,
                memory_bytes=512 * 2**30,
                processor="AMD EPYC 9354 32-Core Processor",
            )
            for number in (1, 2)
        ),
        "git_commit": "4f1c2a7d90be35e8c6714fd2a0b9e8837c5d1f60",
        "weights": WeightsRecord(
            kind="imagenet",
            sha256="806a9e7211ea1d4b0e59d1a0a8d4a2b07bd0ac5be3a9b1b3b7c5bd5f1d1b1067",
            found="in the shared directory beside the checkout",
        ),
        "dataset": DatasetRecord(
            name="cinic-10",
            index_sha256="b19c1fd2a7e4403f95de51da7f0d5fbfa5ea9f3c2f6a0c5f4a27de6bb8f51a02",
            classes=CLASSES,
            splits={"train": 90_000, "valid": 90_000, "test": 9_000},
            store="s3://cinic/shards",
        ),
        "settings": {"workers": "2", "views": None, "feature_cache": True, "scale_batch": False},
        **changes,
    }
    return RunManifest(**values)


def experiment_config(experiment: Experiment, seed: int = 524) -> ExperimentConfig:
    layers = vgg16(experiment)
    # Of BatchNorm's four vectors, training changes two by gradient.
    moving = sum(layer.params // 2 for layer in layers if layer.kind == "BatchNormalization")
    return ExperimentConfig(
        experiment=experiment,
        seed=seed,
        layers=layers,
        trainable_params=sum(layer.params for layer in layers if layer.trainable) - moving,
        total_params=sum(layer.params for layer in layers),
    )


def vgg16(experiment: Experiment) -> tuple[LayerRecord, ...]:
    layers = [_layer("images", "InputLayer", (32, 32, 3))]
    if experiment.preprocess == "base":
        layers.append(_layer("preprocess", "VggPreprocess", (32, 32, 3)))
    channels, side = 3, 32
    for block, (convolutions, filters) in enumerate(
        ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1
    ):
        for number in range(1, convolutions + 1):
            layers.append(
                _layer(
                    f"block{block}_conv{number}",
                    "Conv2D",
                    (side, side, filters),
                    params=9 * channels * filters + filters,
                    trainable=experiment.base_trainable,
                    in_base=True,
                )
            )
            channels = filters
        side //= 2
        layers.append(
            _layer(f"block{block}_pool", "MaxPooling2D", (side, side, filters), in_base=True)
        )
    norm = {"kind": "BatchNormalization", "params": 4 * 512, "trainable": True}
    units = experiment.dense_units
    if experiment.batch_norm:
        layers.append(_layer("base_norm", shape=(1, 1, 512), **norm))
    layers.append(_layer("flatten", "Flatten", (512,)))
    layers.append(_layer("dense", "Dense", (units,), params=513 * units, trainable=True))
    if experiment.batch_norm:
        layers.append(_layer("dense_norm", shape=(units,), **{**norm, "params": 4 * units}))
    if experiment.dropout:
        layers.append(_layer("dropout", "SampleDropout", (units,)))
    layers.append(_layer("logits", "Dense", (10,), params=10 * (units + 1), trainable=True))
    return tuple(layers)


def _layer(
    name: str,
    kind: str,
    shape: tuple[int, ...],
    params: int = 0,
    trainable: bool = False,
    in_base: bool = False,
) -> LayerRecord:
    return LayerRecord(
        name=name,
        kind=kind,
        output_shape=shape,
        params=params,
        trainable=trainable,
        in_base=in_base,
    )


def epoch_records(
    name: str, epochs: int | None = None, images: int = 90_000, seed: int | None = None
) -> list[EpochRecord]:
    """Without a seed, those of the first one."""
    shape = SHAPES[name]
    rng = _rng(7, name, seed)
    lift = 0.0 if seed is None else 0.008 * rng.normal()
    lines = []
    for epoch in range(1, (shape.epochs if epochs is None else epochs) + 1):
        reached = 1 - math.exp(-4.5 * epoch / shape.best)
        fall = 0.012 * max(0, epoch - shape.best) / 10
        noise = rng.normal(0, 0.003, 4)
        seconds = images / shape.speed * 1.22 * (1 + abs(noise[0]))
        lines.append(
            EpochRecord(
                epoch=epoch,
                loss=shape.loss * (1.45 - 0.5 * reached) - shape.overfit * reached * 2 + noise[0],
                accuracy=(0.55 + 0.45 * reached) * shape.accuracy
                + lift
                + shape.overfit * reached * 0.8
                - (0.02 if shape.overfit < 0.05 else 0)
                + noise[1],
                val_loss=shape.loss * (1.4 - 0.4 * reached) + fall * 8 + 3 * noise[2],
                val_accuracy=lift
                + (
                    shape.accuracy
                    if epoch == shape.best
                    else min(
                        (0.62 + 0.38 * reached) * shape.accuracy - fall + noise[3],
                        shape.accuracy - 0.0005,
                    )
                ),
                seconds=seconds,
                images_per_second=shape.speed * (1 + noise[1] * 4),
                learning_rate=1e-3,
                workers=2,
                input_seconds=(0.3 if epoch == 1 else 0.04) * seconds,
                validation_seconds=0.16 * seconds,
                sum_seconds=0.02 * seconds,
                joules=500.0 * seconds,
                energy_source="NVML and an estimate",
            )
        )
    return lines


def experiment_result(name: str, **changes: Any) -> ExperimentResult:
    shape = SHAPES[name]
    return ExperimentResult(
        **{
            "status": "finished",
            "workers": tuple(
                WorkerRecord(rank=rank, host=f"gpu0{rank + 1}", device="NVIDIA H100")
                for rank in (0, 1)
            ),
            "attempts": 1,
            "epochs_run": shape.epochs,
            "best_epoch": shape.best,
            "stopped_early": True,
            "wall_seconds": shape.epochs * 90_000 / shape.speed * 1.22 + 21.0,
            "startup_seconds": 31.5,
            "images_per_second": float(shape.speed),
            "gpu_seconds": 2 * (shape.epochs * 90_000 / shape.speed * 1.22 + 21.0),
            "test_seconds": 0.1 * 90_000 / shape.speed + 1.0,
            "joules": 4_000.0,
            "energy_source": "NVML and an estimate",
            **changes,
        }
    )


def _rng(what: int, name: str, seed: int | None) -> np.random.Generator:
    return np.random.default_rng(
        [what, list(SHAPES).index(name), *([] if seed is None else [seed])]
    )


def predictions(
    name: str,
    images: int,
    classes: Sequence[str] = CLASSES,
    cifar: float = 2 / 9,
    seed: int | None = None,
) -> bytes:
    """`predictions.npz` of an experiment that is right about as often as its shape says.

    Without a seed, those of the first one.
    """
    n = len(classes)
    of_images = np.random.default_rng(11)
    label = np.arange(images) % n
    ease = of_images.normal(0, 1.1, images)
    from_cifar = of_images.random(images) < cifar
    source = [
        f"cifar-10-test-{i}.png" if here else f"n{2_000_000 + i % 977:08}_{i}.png"
        for i, here in enumerate(from_cifar)
    ]
    rng = _rng(13, name, seed)
    # Classes that look alike are taken for each other: animals for animals, vehicles for vehicles.
    alike = np.array(
        [[1.0 if (i in (0, 1, 8, 9)) == (j in (0, 1, 8, 9)) else 0.0 for j in range(n)]
         for i in range(n)]
    )  # fmt: skip
    alike[
        [3, 5, 4, 7, 1, 9, 0, 8][:n] if n == 10 else [],
        [5, 3, 7, 4, 9, 1, 8, 0][:n] if n == 10 else [],
    ] += 0.7
    logits = 0.75 * alike[label] + rng.normal(0, 1, (images, n))
    hard = np.array([0.3, 0.25, -0.25, -0.6, -0.35, -0.3, 0.25, 0.1, 0.2, 0.0])[label % 10]
    push = {"frozen": 1.24, "augmented": 1.27, "regularized": 1.46, "finetuned": 2.5}[name]
    push += 0.0 if seed is None else 0.05 * rng.normal()
    logits[np.arange(images), label] += push + hard + ease + 0.35 * from_cifar - 0.1
    odds = np.exp(1.2 * logits)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        source=np.array(source, np.str_),
        label=label.astype(np.int64),
        probabilities=(odds / odds.sum(axis=1, keepdims=True)).astype(np.float32),
    )
    return buffer.getvalue()


def look(images: int, side: int = 32) -> Look:
    """The images that `predictions` are of: blots of colour, each its own."""
    with np.load(io.BytesIO(predictions("frozen", images))) as arrays:
        source = arrays["source"].tolist()

    def found(numbers: Sequence[int]) -> Iterator[tuple[int, str, npt.NDArray[np.uint8]]]:
        for number in numbers:
            coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3))
            grid = np.arange(side) * 4 // side
            yield number, source[number], coarse[grid][:, grid].astype(np.uint8)

    return found


def blank_figures(
    *experiments: str, of_each: Sequence[str] = ("confusion", "architecture", "curves")
) -> dict[str, Figure]:
    """A page's figures without what they show; to draw them takes seconds.

    Args:
        experiments: that have figures of their own.
        of_each: the kinds of these.
    """
    names = (
        "validation_accuracy", "validation_loss", "accuracy_over_time", "images_per_second",
        "per_class_precision", "per_class_recall", "per_class_f1",
        *(f"{kind}_{name}" for kind in of_each for name in experiments),
    )  # fmt: skip
    return {name: Figure(name, "", b"", b"", "") for name in names}


def write_run(store: Store, of: RunManifest, finished: Sequence[str] | None = None) -> None:
    """A whole run; the experiments that are not `finished` leave nothing."""
    store.put(records.MANIFEST, of.model_dump_json().encode())
    for name in of.experiments if finished is None else finished:
        for seed in of.all_seeds:
            write_replicate(store, of, name, seed)


def write_replicate(store: Store, of: RunManifest, name: str, seed: int) -> None:
    """One seed of an experiment, whole."""
    folder = records.replicate_folder(name, seed, of.seed)
    other = None if seed == of.seed else seed
    write_config(store, folder, **({} if other is None else {"seed": other}))
    epochs = epoch_records(name, seed=other)
    write_epochs(store, folder, epochs)
    write_result(store, folder, experiment_result(name))
    told = predictions(name, of.dataset.splits["test"], of.dataset.classes, seed=other)
    store.put(f"{folder}/{records.PREDICTIONS}", told)


def write_config(store: Store, folder: str, seed: int = 524, **changes: Any) -> None:
    """Of the experiment whose replicate's folder it is."""
    of = EXPERIMENTS[folder.partition("/")[0]]
    config = experiment_config(Experiment(**{**of.model_dump(), **changes}), seed)
    store.put(f"{folder}/{records.CONFIG}", config.model_dump_json().encode())


def write_epochs(store: Store, folder: str, epochs: Sequence[EpochRecord]) -> None:
    lines = "".join(epoch.model_dump_json() + "\n" for epoch in epochs)
    store.put(f"{folder}/{records.EPOCHS}", lines.encode())


def write_result(store: Store, folder: str, result: ExperimentResult) -> None:
    store.put(f"{folder}/{records.RESULT}", result.model_dump_json().encode())


SEVERAL = (524, 1, 2, 3, 4)
"""Seeds of the run of `write_seeds_run`."""


def write_seeds_run(
    store: Store, test_images: int = 9_000, experiments: Sequence[str] = tuple(EXPERIMENTS)
) -> None:
    """Several seeds, of which some are missing: one failed, one is damaged, one was cut off."""
    dataset = manifest().dataset
    dataset = dataset.model_copy(update={"splits": {**dataset.splits, "test": test_images}})
    of = manifest(status="failed", seeds=SEVERAL, dataset=dataset, experiments=experiments)
    write_run(store, of)
    if "augmented" in experiments:
        lost = experiment_result("augmented", status="failed", error=OUT_OF_MEMORY, best_epoch=None)
        write_result(store, "augmented/seeds/3", lost)
        store.delete(f"augmented/seeds/3/{records.PREDICTIONS}")
    if "regularized" in experiments:
        store.delete(f"regularized/seeds/4/{records.RESULT}")
        store.delete(f"regularized/seeds/4/{records.PREDICTIONS}")
    if "finetuned" in experiments:
        store.put(f"finetuned/seeds/2/{records.PREDICTIONS}", b"PK torn")


OUT_OF_MEMORY = "rank 1 on gpu02 ran out of memory: tried to allocate 2.0 GiB with 1.1 GiB free"


def write_mixed_run(store: Store) -> None:
    """Interrupted: one experiment finished, one failed, one was cut off, one never started."""
    whole = manifest(status="interrupted", weights={"kind": "random", "sha256": None, "found": ""})
    write_run(store, whole, finished=["frozen"])
    write_config(store, "augmented", epochs=8, global_batch=50)
    write_epochs(store, "augmented", epoch_records("augmented", 5))
    write_result(
        store,
        "augmented",
        experiment_result(
            "augmented",
            status="failed",
            error=OUT_OF_MEMORY,
            attempts=3,
            epochs_run=5,
            best_epoch=None,
            stopped_early=False,
        ),
    )
    write_config(store, "regularized", epochs=8, global_batch=50)
    write_epochs(store, "regularized", epoch_records("regularized", 1))


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></style></svg>&amp;{{7*7}}$x_1$"
LONG = "extraordinarily" * 12


def write_hostile_run(store: Store) -> None:
    """Every text of a run that somebody could choose is an attack, or far too long."""
    of = manifest(
        name=HOSTILE + LONG,
        profile=HOSTILE,
        command=HOSTILE + LONG,
        started=HOSTILE,
        versions={HOSTILE: HOSTILE, "python": LONG},
        git_commit=HOSTILE,
        settings={HOSTILE: HOSTILE, "store": LONG},
        hardware=[
            {"host": HOSTILE, "cpus": 2, "gpus": 0, "memory_bytes": 2**33, "processor": HOSTILE},
            {"host": LONG, "cpus": 0.5, "gpus": 0, "memory_bytes": 2**33, "processor": LONG},
        ],
        weights={"kind": "imagenet", "sha256": HOSTILE, "found": HOSTILE},
        dataset={
            "name": HOSTILE,
            "index_sha256": HOSTILE,
            "classes": [
                HOSTILE,
                LONG,
                "_cat",
                "$\\frac$",
                "\u200bdog",
                "#ffffff",
                "a\tb\x00\x07",
                "",
                "é",
                "%",
            ],
            "splits": {HOSTILE: 3, "train": 50, "test": 200},
            "store": HOSTILE,
        },
        experiments=("frozen", "a-stranger" * 9, "augmented"),
    )
    write_run(store, of, finished=["frozen"])
    write_config(store, "frozen", title=HOSTILE, summary=HOSTILE + LONG)
    workers = [{"rank": 0, "host": HOSTILE, "device": LONG}]
    write_result(store, "frozen", experiment_result("frozen", workers=workers))
    error = HOSTILE + LONG
    write_result(store, "augmented", experiment_result("augmented", status="failed", error=error))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    target = open_store(str(folder))
    if sys.argv[2:] == ["seeds"]:
        write_seeds_run(target)
    else:
        write_run(target, manifest())
    print(folder / write_report(target, look=look(9_000)))
