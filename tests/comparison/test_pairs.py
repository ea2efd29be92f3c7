"""Statistics between runs are those that the report makes between experiments."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import fake_run
import pytest
from browsing import Reader
from many_runs import EXPERIMENTS, answer, gathered, write

from tlcluster import records
from tlcluster.comparison.gather import gather
from tlcluster.comparison.page import render_page
from tlcluster.comparison.pairs import MANY_PAIRS, Pair, not_paired, pairs, verdict
from tlcluster.comparison.places import places
from tlcluster.report.runs import read_run
from tlcluster.report.seeds.contrast import Contrast
from tlcluster.report.seeds.holm import holm
from tlcluster.storage.directory import DirectoryStore


def together(folder: Path, *of: tuple[Path, str], seeds: Sequence[int] = (524,)) -> Contrast:
    """One run whose two experiments have the predictions of experiments of other runs; the report's
    comparison of the two."""
    store = DirectoryStore(folder)
    manifest = fake_run.manifest(experiments=EXPERIMENTS, seeds=tuple(seeds))
    store.put(records.MANIFEST, manifest.model_dump_json().encode())
    for name, (run, experiment) in zip(EXPERIMENTS, of, strict=True):
        for seed in seeds:
            one = records.replicate_folder(experiment, seed, 524) + "/" + records.PREDICTIONS
            if (run / one).exists():
                there = records.replicate_folder(name, seed, 524)
                store.put(f"{there}/{records.PREDICTIONS}", (run / one).read_bytes())
    (found,) = read_run(store).contrasts
    return found


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_two_runs_are_compared_as_the_report_compares_two_experiments(
    experiment: str, runs: Path, tmp_path: Path
) -> None:
    found = {one.experiment: one for one in pairs(gathered(runs, "base", "wide"))}
    assert list(found) == list(EXPERIMENTS)
    report = together(tmp_path / "one", (runs / "wide", experiment), (runs / "base", experiment))
    ours = found[experiment].contrast
    assert (ours.a, ours.b) == ("wide", "base")
    same = ("difference", "interval", "covers", "test", "p_value", "effect", "probability")
    assert [getattr(ours, field) for field in same] == [getattr(report, field) for field in same]
    # Two comparisons were made, and so a difference must be larger to be found.
    assert ours.smallest > report.smallest
    assert [one.contrast.p_holm for one in found.values()] == list(
        holm([one.contrast.p_value for one in found.values()])
    )


def test_over_seeds_runs_are_compared_as_the_report_does_over_seeds(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "seeds", tmp_path / "again")
    for seed in (1, 2):
        answer(tmp_path / "again", f"frozen/seeds/{seed}", seed + 10, like="frozen")
    found = gather(places([str(runs / "seeds"), str(tmp_path / "again")]))
    (pair,) = pairs(found)
    of = together(
        tmp_path / "one",
        (tmp_path / "again", "frozen"),
        (runs / "seeds", "frozen"),
        seeds=(524, 1, 2),
    )
    assert (pair.seeds_a, pair.seeds_b) == (3, 3)
    assert pair.contrast.covers == "images and seeds"
    assert pair.contrast == of._replace(a="seeds (2)", b="seeds")


def test_a_single_prediction_that_changes_changes_the_statistics(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "base", tmp_path / "base")
    one, other = str(runs / "base"), str(tmp_path / "base")
    assert {pair.contrast.difference for pair in pairs(gather(places([one, other])))} == {0.0}
    # The images are the same, and one training is right about others of them.
    answer(tmp_path / "base", "frozen", 3, like="frozen")
    changed = {pair.experiment: pair.contrast for pair in pairs(gather(places([one, other])))}
    assert changed["frozen"].difference != 0
    assert changed["finetuned"].difference == 0


def test_runs_on_other_images_are_compared_among_themselves_and_a_sentence_says_so(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "elsewhere", tmp_path / "far")
    arguments = [*(str(runs / name) for name in ("base", "wide", "elsewhere")), str(tmp_path)]
    found = gather(places(arguments), any_images=True)
    assert [(one.contrast.a, one.contrast.b) for one in pairs(found)] == [
        *[("wide", "base")] * 2,
        *[("elsewhere (2)", "elsewhere")] * 2,
    ]
    assert not_paired(found) == [
        (
            "elsewhere and elsewhere (2) were tested on other images (cinic-10, 400 images "
            "(2)) than base (cinic-10, 400 images): there are no statistics between them."
        )
    ]


def test_runs_without_a_common_experiment_are_named(runs: Path, tmp_path: Path) -> None:
    write(tmp_path / "only", experiments=("finetuned",))
    found = gather(places([str(runs / "seeds"), str(tmp_path / "only")]))
    assert pairs(found) == ()
    assert not_paired(found) == [
        "seeds and only have no tested experiment in common with another run on the same images."
    ]
    assert "nothing can be compared" in Reader(render_page(found, "")).text


def test_the_verdict_names_the_better_run_or_counts(runs: Path) -> None:
    frozen, finetuned = pairs(gathered(runs, "base", "wide"))
    level = finetuned._replace(contrast=finetuned.contrast._replace(p_holm=0.2))
    gain = f"{100 * frozen.contrast.difference:+.1f}"
    assert frozen.contrast.p_holm < 0.001
    assert verdict([frozen, level], 1) == (
        f"At the 5 % level, frozen is better in wide than in base ({gain} points). "
        "The difference of finetuned between wide and base may be chance."
    )
    worse: Pair = frozen._replace(contrast=frozen.contrast._replace(difference=-0.1))
    assert verdict([worse], 1) == (
        "At the 5 % level, frozen is better in base than in wide (+10.0 points)."
    )
    assert verdict([frozen, worse, *[level] * MANY_PAIRS], 1) == (
        "Of 8 pairs, 2 differ at the 5 % level: 1 are better than in the run that they are "
        "compared with, and 1 are worse."
    )
    assert verdict([], 1) == ""


def test_an_experiment_is_compared_with_the_first_run_that_has_it(runs: Path) -> None:
    found = pairs(gathered(runs, "seeds", "base", "wide"))
    assert [(one.experiment, one.contrast.a, one.contrast.b) for one in found] == [
        ("frozen", "base", "seeds"),
        ("frozen", "wide", "seeds"),
        ("finetuned", "wide", "base"),
    ]
