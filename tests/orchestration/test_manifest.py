"""A run may go on under its name with everything that decides its results as it was."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tlcluster.cinic10 import CLASSES
from tlcluster.dataset.shards import Index, ShardInfo
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS
from tlcluster.orchestration import manifest
from tlcluster.orchestration.admission import Admission
from tlcluster.orchestration.manifest import (
    continued,
    deciding_settings,
    git_commit,
    new_manifest,
    read_manifest,
    versions,
    write_manifest,
)
from tlcluster.records import LooksRecord, NodeRecord, RunManifest, WeightsRecord
from tlcluster.settings import RunSettings
from tlcluster.storage.open import open_store

INDEX = Index(
    dataset="cinic-10",
    classes=CLASSES,
    image_shape=(32, 32, 3),
    splits={
        split: (ShardInfo(key=f"{split}/0.npy", rows=rows, bytes=1, sha256="0" * 64),)
        for split, rows in {"train": 30, "valid": 20, "test": 10}.items()
    },
)
IMAGENET = WeightsRecord(kind="imagenet", sha256="a" * 64, found="somewhere")


def planned(
    *,
    workers: int = 1,
    threads: int = 2,
    index_sha256: str = "b" * 64,
    weights: WeightsRecord = IMAGENET,
    vgg19: WeightsRecord | None = None,
    counts: Mapping[str, int] = MappingProxyType({}),
    **settings: Any,
) -> RunManifest:
    """The manifest of a run that is about to begin."""
    told = RunSettings(run_name="first", **settings)
    recipe = told.recipe()
    return new_manifest(
        told,
        command="python jobs/run_all.py",
        decided=deciding_settings(told, recipe, Admission(workers, 0.5, 0, 4, threads)),
        recipe=recipe,
        nodes=[NodeRecord(host="here", cpus=2, gpus=0, memory_bytes=1)],
        weights={"vgg16": weights, **({"vgg19": vgg19} if vgg19 else {})},
        index=INDEX,
        index_sha256=index_sha256,
        store_url="embedded",
        seeds=told.possible_seeds[: max([len(told.all_seeds), *counts.values()])],
        seed_counts=counts,
    )


def resumed(
    old: RunManifest, new: RunManifest, order: Sequence[str] = tuple(EXPERIMENTS)
) -> RunManifest:
    return continued(old, new, order)


def test_a_new_manifest_says_what_is_about_to_run() -> None:
    begun = planned(experiments="frozen,augmented", seed=7, profile="paper")
    assert begun.status == "running"
    assert (begun.name, begun.profile, begun.seed) == ("first", "paper", 7)
    assert begun.experiments == ("frozen", "augmented")
    assert begun.dataset.splits == {"train": 30, "valid": 20, "test": 10}
    assert begun.finished is None
    assert begun.wall_seconds == 0


def test_the_deciding_settings_are_flat_and_complete() -> None:
    assert planned(experiments="frozen", epochs=3).settings == {
        "profile": "quick",
        "seed": 524,
        "views": None,
        "view_seed": 524,
        "scale_batch": False,
        "threads": 2,
        "frozen.base": "vgg16",
        "frozen.base_trainable": False,
        "frozen.taps": "last",
        "frozen.trainable_from": "first",
        "frozen.augment": False,
        "frozen.augmentation": "study",
        "frozen.preprocess": "raw",
        "frozen.input_size": 0,
        "frozen.upsampling": "bicubic",
        "frozen.dense_units": 512,
        "frozen.batch_norm": False,
        "frozen.dropout": 0.0,
        "frozen.epochs": 3,
        "frozen.patience": 10,
        "frozen.optimizer": "adam",
        "frozen.learning_rate": 0.001,
        "frozen.base_rate": 1.0,
        "frozen.schedule": "constant",
        "frozen.warmup": 0.0,
        "frozen.weight_decay": 0.0,
        "frozen.average": 0.0,
        "frozen.label_smoothing": 0.0,
        "frozen.mixup": 0.0,
        "frozen.clip_norm": 0.0,
        "frozen.global_batch": 25,
        "frozen.test_views": 1,
    }


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"workers": 2},
        {"deadline": 5.0, "stall": 1.0, "retries": 0},
        {"checkpoint_seconds": 0.0, "cache": "/elsewhere", "cache_gib": 1.0},
        {"cpus_per_worker": 1.0, "address": "auto"},
        {"feature_cache": False},
        {"weights": IMAGENET.model_copy(update={"found": "elsewhere"})},
    ],
    ids=str,
)
def test_a_run_goes_on_where_only_what_does_not_decide_its_results_differs(
    changed: dict[str, Any],
) -> None:
    new = planned(**changed)
    assert resumed(planned(), new).settings == planned().settings


@pytest.mark.parametrize(
    ("before", "now", "differences"),
    [
        ({}, {"seed": 1}, "seed was 524, is 1"),
        ({"seeds": "2"}, {"seeds": "525,524"}, "seed was 524, is 525"),
        ({}, {"threads": 4}, "threads was 2, is 4"),
        ({}, {"views": 2}, "views was None, is 2"),
        ({"views": 2}, {}, "views was 2, is None"),
        ({}, {"view_seed": 3}, "view_seed was 524, is 3"),
        (
            {"profile": "paper"},
            {"profile": "paper", "view_seed": 524},
            "view_seed was None, is 524",
        ),
        ({}, {"index_sha256": "c" * 64}, f"dataset was {'b' * 64}, is {'c' * 64}"),
        (
            {},
            {"weights": WeightsRecord(kind="random", sha256=None, found="random")},
            f"weights of vgg16 was {'a' * 64}, is random",
        ),
        (
            {"vgg19": IMAGENET},
            {"vgg19": IMAGENET.model_copy(update={"sha256": "d" * 64})},
            f"weights of vgg19 was {'a' * 64}, is {'d' * 64}",
        ),
        (
            {},
            {"set": ("frozen.patience=3", "*.global_batch=50"), "experiments": "frozen"},
            "frozen.patience was 10, is 3; frozen.global_batch was 25, is 50",
        ),
        (
            {"scale_batch": True, "workers": 2},
            {"scale_batch": True, "workers": 4},
            "workers was 2, is 4",
        ),
        (
            {"workers": 2},
            {"scale_batch": True, "workers": 2},
            "scale_batch was False, is True; workers was None, is 2",
        ),
        (
            {"experiments": "frozen"},
            {"experiments": "frozen", "profile": "paper"},
            (
                "profile was quick, is paper; view_seed was 524, is None; "
                "frozen.epochs was 12, is 55; frozen.global_batch was 25, is 128"
            ),
        ),
    ],
)
def test_a_run_whose_results_would_differ_is_refused_and_the_difference_is_shown(
    before: dict[str, Any], now: dict[str, Any], differences: str
) -> None:
    with pytest.raises(UserError) as caught:
        resumed(planned(**before), planned(**now))
    assert str(caught.value) == (
        f"--run-name first: that run exists with other settings: {differences}; "
        "use the same settings to go on with it, or another name"
    )


def test_experiments_may_join_a_run_and_leave_it_again() -> None:
    """As `jobs/run_one.py` does, one after the other."""
    first = planned(experiments="augmented", set=("augmented.patience=3",))
    second = resumed(first, planned(experiments="frozen"))
    assert second.experiments == ("frozen", "augmented")
    assert second.settings["augmented.patience"] == 3
    assert second.settings["frozen.patience"] == 10
    third = resumed(second, planned(experiments="augmented", set=("augmented.patience=3",)))
    assert third.experiments == ("frozen", "augmented")
    with pytest.raises(UserError, match=r"augmented\.patience was 3, is 10"):
        resumed(third, planned(experiments="augmented"))


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A recipe file with an experiment of its own."""
    file = tmp_path / "my wide.toml"
    file.write_text('profile = "quick"\n[experiments.wide]\ndense_units = 2048\n')
    return file


def test_the_manifest_has_the_text_of_a_recipe_file_and_a_name_made_of_its_own(wide: Path) -> None:
    begun = planned(profile=str(wide), experiments="wide")
    assert begun.recipe == wide.read_text()
    assert begun.profile == "my-wide"
    assert begun.experiments == ("wide",)
    assert begun.settings["wide.dense_units"] == 2048
    assert planned().recipe is None


def test_only_what_a_recipe_file_decides_must_stay_as_it_was(wide: Path) -> None:
    begun = planned(profile=str(wide), experiments="wide")
    wide.write_text("# a remark\n" + wide.read_text())
    again = planned(profile=str(wide), experiments="wide")
    assert resumed(begun, again).recipe == wide.read_text()
    wide.write_text(wide.read_text().replace("2048", "1024"))
    with pytest.raises(UserError, match=r"wide\.dense_units was 2048, is 1024"):
        resumed(begun, planned(profile=str(wide), experiments="wide"))


def test_the_experiments_of_a_file_come_after_the_study_s_and_stay_when_it_loses_them(
    wide: Path,
) -> None:
    order = [experiment.name for experiment in RunSettings(profile=str(wide)).recipe().experiments]
    first = planned(profile=str(wide), experiments="wide")
    second = resumed(first, planned(profile=str(wide), experiments="finetuned"), order)
    assert second.experiments == ("finetuned", "wide")
    wide.write_text('profile = "quick"\n')
    third = resumed(second, planned(profile=str(wide), experiments="frozen"))
    assert third.experiments == ("frozen", "finetuned", "wide")


def test_an_experiment_called_like_a_setting_does_not_hide_it(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("[experiments.seed]\n")
    first = planned(profile=str(file), experiments="seed")
    with pytest.raises(UserError, match="seed was 524, is 1"):
        resumed(first, planned(profile=str(file), experiments="frozen", seed=1))


def test_an_experiment_that_joins_may_bring_the_weights_of_another_base() -> None:
    wide = {"experiments": "augmented", "set": ("augmented.base=vgg19",), "vgg19": IMAGENET}
    both = resumed(planned(experiments="frozen"), planned(**wide))
    assert both.weights_by_base == {"vgg16": IMAGENET, "vgg19": IMAGENET}
    assert both.weights == IMAGENET


def test_a_run_of_the_version_before_goes_on_with_the_weights_that_it_had() -> None:
    """It recorded the weights of VGG16 alone."""
    old = planned().model_copy(update={"weights_by_base": {}})
    assert resumed(old, planned()).weights_by_base == {"vgg16": IMAGENET}
    with pytest.raises(UserError, match=r"weights of vgg16 was a{64}, is random"):
        resumed(old, planned(weights=WeightsRecord(kind="random", sha256=None, found="")))


def test_a_run_may_get_more_seeds_and_keeps_those_that_a_later_command_does_not_name() -> None:
    one = planned()
    assert one.seeds == one.all_seeds == (524,)
    three = resumed(one, planned(seeds="3"))
    assert three.seeds == (524, 525, 526)
    assert resumed(three, planned()).seeds == (524, 525, 526)
    assert resumed(three, planned(seeds="524,7,526")).seeds == (524, 525, 526, 7)


def test_a_run_whose_seeds_are_decided_by_looks_keeps_its_rule_and_how_many_each_has() -> None:
    first = planned(resolve=True, max_seeds=12)
    assert (first.seeds, first.seed_counts) == ((524, 525, 526), {})
    assert first.looks == LooksRecord(first=3, most=12)
    counts = {"frozen": 6, "augmented": 6, "regularized": 3, "finetuned": 3}
    second = resumed(first, planned(resolve=True, max_seeds=12, counts=counts))
    assert second.seeds == tuple(range(524, 530))
    assert second.seeds_of("frozen") == second.seeds
    assert second.seeds_of("finetuned") == (524, 525, 526)
    assert second.folders[:2] == ("frozen", "frozen/seeds/525")
    assert len(second.folders) == 18
    # The same command after an interruption begins with the first look, and loses nothing.
    again = resumed(second, planned(resolve=True, max_seeds=12))
    assert (again.seeds, again.seed_counts) == (second.seeds, second.seed_counts)
    assert again.looks == second.looks
    # So does one that only wants another experiment.
    alone = resumed(second, planned(experiments="finetuned"))
    assert (alone.seed_counts, alone.looks) == (second.seed_counts, second.looks)


def test_a_rule_for_more_seeds_may_not_change_once_it_has_looked() -> None:
    looked = planned(resolve=True)
    with pytest.raises(UserError, match=r"has --resolve with --seeds 3 and --max-seeds 20; go on"):
        resumed(looked, planned(resolve=True, max_seeds=30))
    with pytest.raises(UserError, match="--resolve: run first has the seeds 524, 7; begin"):
        resumed(planned(seeds="524,7"), planned(resolve=True))
    assert resumed(planned(seeds="3"), planned(resolve=True)).looks == looked.looks


def test_a_run_of_the_version_before_goes_on_with_any_number_of_threads_and_its_views() -> None:
    """It recorded no number, and its views had its seed unless they had one of their own."""
    before = planned().model_copy(update={"seeds": ()})
    settings = {**before.settings, "view_seed": None}
    del settings["threads"]
    old = before.model_copy(update={"settings": settings})
    now = resumed(old, planned(threads=8))
    assert (now.settings["threads"], now.settings["view_seed"], now.seeds) == (8, 524, (524,))
    assert resumed(old, planned(seeds="2")).seeds == (524, 525)
    named = old.model_copy(update={"settings": {**settings, "view_seed": 0}})
    assert resumed(named, planned(view_seed=0)).settings["view_seed"] == 0
    other = old.model_copy(update={"seed": 7, "settings": {**settings, "seed": 7}})
    with pytest.raises(UserError, match="view_seed was 7, is 524"):
        resumed(other, planned(seed=7))


def test_a_run_that_goes_on_keeps_its_beginning_and_its_time() -> None:
    old = planned().model_copy(
        update={"started": "2026-01-01T00:00:00+00:00", "wall_seconds": 5.0, "status": "failed"}
    )
    new = resumed(old, planned(deadline=3.0))
    assert (new.started, new.wall_seconds) == ("2026-01-01T00:00:00+00:00", 5.0)
    assert new.status == "running"


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert read_manifest(store) is None
    begun = planned()
    write_manifest(store, begun)
    assert read_manifest(store) == begun


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name": "first"', b"\xff\xfe"])
def test_a_manifest_that_cannot_be_read_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_manifest(open_store(str(tmp_path)))
    assert str(caught.value).startswith(f"{tmp_path}/manifest.json: damaged record (")
    assert str(caught.value).endswith("); restore the file, or run again under a new run name")


def test_an_older_manifest_that_lacks_a_setting_is_not_taken_for_the_same() -> None:
    old = planned().model_copy(update={"settings": {"profile": "quick"}})
    with pytest.raises(UserError, match="seed was None, is 524"):
        resumed(old, planned())


def test_the_versions_are_of_everything_that_can_change_a_result() -> None:
    assert list(versions()) == [
        "python",
        "tlcluster",
        "tensorflow",
        "tf_keras",
        "ray",
        "numpy",
        "scikit-learn",
        "scipy",
        "boto3",
    ]
    assert all(version[0].isdecimal() for version in versions().values())


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_is_marked_where_the_checkout_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "tlcluster" / "manifest.py"
    module.parent.mkdir()
    module.write_text("1\n")
    monkeypatch.setattr(manifest, "CHECKOUT", tmp_path)
    assert git_commit() is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit() == commit
    (tmp_path / "new").touch()
    assert git_commit() == commit
    module.write_text("2\n")
    assert git_commit() == f"{commit}+"


def test_no_commit_is_known_where_git_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_commit() is None
