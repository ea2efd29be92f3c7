"""Runs that never ran, to be compared: some that can be, and some that cannot."""

import functools
from pathlib import Path
from typing import Any

import fake_run

from tlcluster import records
from tlcluster.comparison.gather import Gathered, gather
from tlcluster.comparison.places import places
from tlcluster.storage.directory import DirectoryStore

IMAGES = 400
EXPERIMENTS = ("frozen", "finetuned")


def write(folder: Path, *, index: str = "ab" * 32, images: int = IMAGES, **changes: Any) -> None:
    """A run; its name is that of the folder."""
    dataset = fake_run.manifest().dataset.model_copy(
        update={"splits": {"train": 90, "test": images}, "index_sha256": index}
    )
    values = {"name": folder.name, "experiments": EXPERIMENTS, "dataset": dataset, **changes}
    fake_run.write_run(DirectoryStore(folder), fake_run.manifest(**values))


def answer(folder: Path, where: str, seed: int, like: str) -> None:
    """Give a training other predictions for the same images.

    Args:
        folder: of the run.
        where: in there the training is.
        seed: of the predictions.
        like: the experiment that is as often right.
    """
    told = fake_run.predictions(like, IMAGES, seed=seed)
    DirectoryStore(folder).put(f"{where}/{records.PREDICTIONS}", told)


def write_all(folder: Path) -> None:
    """Four runs that can be compared, four that cannot, and a folder that is no run."""
    write(folder / "base", started="2026-01-01T00:00:00Z")
    settings = {"threads": 8, "frozen.dense_units": 1024}
    write(folder / "wide", started="2026-01-02T00:00:00Z", profile="wide.toml", settings=settings)
    fake_run.write_config(DirectoryStore(folder / "wide"), "frozen", dense_units=1024)
    answer(folder / "wide", "frozen", 7, like="finetuned")
    answer(folder / "wide", "finetuned", 7, like="finetuned")
    seeds = {"experiments": ("frozen",), "seeds": (524, 1, 2)}
    write(folder / "seeds", started="2026-01-03T00:00:00Z", **seeds)
    write(folder / "elsewhere", started="2026-01-04T00:00:00Z", index="cd" * 32)
    write(folder / "going", status="running", finished=None)
    write(folder / "stopped", status="interrupted")
    write(folder / "torn")
    (folder / "torn/frozen/predictions.npz").write_bytes(b"PK torn")
    write(folder / "untested", experiments=("frozen",))
    (folder / "untested/frozen/predictions.npz").unlink()
    (folder / "features/more").mkdir(parents=True)


@functools.cache
def gathered(runs: Path, *names: str, any_images: bool = False) -> Gathered:
    """The runs of these names in a folder that stays as it is; of "", the folder itself."""
    return gather(places([str(runs / name) for name in names]), any_images=any_images)


def labels(of: Gathered) -> list[str]:
    """The runs that can be compared."""
    return [one.label for one in of.entries]
