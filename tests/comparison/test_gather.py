"""Which runs a comparison takes, which it leaves out, and which are an error."""

import shutil
from pathlib import Path

import fake_run
import pytest
from many_runs import EXPERIMENTS, IMAGES, answer, gathered, labels, write

from jobs.compare import main
from tlcluster import records
from tlcluster.comparison.gather import gather, unique
from tlcluster.comparison.places import places
from tlcluster.errors import UserError
from tlcluster.storage.directory import DirectoryStore


def test_a_folder_has_its_runs_the_oldest_first_and_names_those_that_cannot_be_used(
    runs: Path,
) -> None:
    found = gathered(runs, "")
    assert labels(found) == ["base", "wide", "seeds", "elsewhere"]
    why = {Path(one.place).name: one.why for one in found.left_out}
    assert why.pop("torn").startswith("frozen/predictions.npz: damaged record (")
    assert why == {
        "going": "the run is still running",
        "stopped": "the run was interrupted",
        "untested": "no experiment of the run was tested",
    }


def test_a_store_lists_the_same_runs_as_a_directory(runs: Path) -> None:
    found = gather(places([runs.as_uri()]))
    assert labels(found) == labels(gathered(runs, ""))
    assert [one.why for one in found.left_out] == [one.why for one in gathered(runs, "").left_out]
    named = places([f"{runs.as_uri()}/wide", f"{runs.as_uri()}/base"])
    assert [(one.prefix, one.named) for one in named] == [("", True), ("", True)]


def test_a_run_counts_once_and_the_first_that_is_named_is_the_first(runs: Path) -> None:
    found = gathered(runs, "wide", "", "wide", "base")
    assert labels(found) == ["wide", "base", "seeds", "elsewhere"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["base", "torn"], "/torn/frozen/predictions.npz: damaged record ("),
        (["", "torn"], "/torn/frozen/predictions.npz: damaged record ("),
        (["base", "going"], "/going: the run is still running; finish it with its own command"),
        (["stopped", "base"], "/stopped: the run was interrupted; finish it"),
        (["base", "untested"], "/untested: no experiment of the run was tested; leave this run"),
        (["base", "elsewhere"], "/elsewhere were tested on different data sets, so that they can"),
        (["base", "wide", "elsewhere"], "/base and "),
        (["base"], "/base is the only run that can be used; name more"),
        (["base", "base"], "a comparison needs two runs"),
        (["base", "lost"], "/lost: no such directory; give the folder of one run"),
        (["base", "features"], "/features: no run here, manifest.json is missing"),
    ],
)
def test_a_named_run_that_cannot_be_compared_is_an_error_and_nothing_is_written(
    names: list[str], said: str, runs: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        main([*(str(runs / name) for name in names), "--to", str(tmp_path / "out")])
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists()


def test_other_images_of_the_same_data_set_are_an_error_too(runs: Path, tmp_path: Path) -> None:
    write(tmp_path / "fewer", images=200)
    with pytest.raises(UserError, match=r"/fewer were tested on different images, so that.*--any"):
        gather(places([str(runs / "base"), str(tmp_path / "fewer")]))
    # Even if it is one image, or its label.
    shutil.copytree(runs / "base", tmp_path / "swapped")
    answer(tmp_path / "swapped", "finetuned", 1, like="finetuned")
    assert gather(places([str(runs / "base"), str(tmp_path / "swapped")])).entries[1:]
    for name in EXPERIMENTS:
        told = fake_run.predictions(name, IMAGES, cifar=0.5)
        DirectoryStore(tmp_path / "swapped").put(f"{name}/{records.PREDICTIONS}", told)
    with pytest.raises(UserError, match="/swapped were tested on different images"):
        gather(places([str(runs / "base"), str(tmp_path / "swapped")]))


def test_a_folder_without_two_runs_says_what_was_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a", status="running")
    write(tmp_path / "b")
    with pytest.raises(UserError) as caught:
        gather(places([str(tmp_path)]))
    assert str(caught.value) == (
        f"a comparison needs two runs, and {tmp_path}/b is the only run that can be used; name "
        f"more; left out: {tmp_path}/a (the run is still running)"
    )


def test_runs_of_one_name_are_told_apart(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "base", tmp_path / "base")
    found = gather(places([str(runs / "base"), str(tmp_path / "base")]))
    assert labels(found) == ["base", "base (2)"]
    assert unique(["a", "a (2)", "a", "a"]) == ["a", "a (2)", "a (3)", "a (4)"]
