"""`--dry-run` says what would run where, and starts nothing."""

import contextlib
import functools
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.orchestration import plan, ready
from tlcluster.orchestration.estimate import matrix_product_rate
from tlcluster.orchestration.plan import count, lower_part_line, shared_lines, show_plan
from tlcluster.orchestration.ready import made_ready
from tlcluster.records import NodeRecord
from tlcluster.settings import RunSettings
from tlcluster.storage.protocol import Store
from tlcluster.training.work import Work, ask_work

Planned = Callable[..., str]


@functools.cache
def asked_once(
    experiments: tuple[Experiment, ...], image_shape: tuple[int, int, int], classes: int
) -> list[Work]:
    """As `ask_work`, which imports TensorFlow in a process of its own every time."""
    return ask_work(experiments, image_shape=image_shape, classes=classes)


@pytest.fixture
def planned(sample_store: Store, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """`planned((cpus, gpus), …, flag=value)` is what a dry run on these nodes prints."""
    monkeypatch.setattr(plan, "matrix_product_rate", lambda: 100e9)
    monkeypatch.setattr(plan, "ask_work", asked_once)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def text(*nodes: tuple[int, int], **flags: Any) -> str:
        cluster = tuple(
            NodeRecord(host="here", cpus=cpus, gpus=gpus, memory_bytes=1) for cpus, gpus in nodes
        )
        monkeypatch.setattr(ready, "local_nodes", lambda: cluster)
        given: dict[str, Any] = {
            "store": sample_store.url,
            "weights": ("none",),
            "dry_run": True,
            **flags,
        }
        console = Console(file=io.StringIO(), record=True, width=100)
        with contextlib.ExitStack() as stack:
            show_plan(console, made_ready(RunSettings(run_name="first", **given), stack))
        return console.export_text()

    return text


LAPTOP = """\
run        first, profile quick, seed 524
data       {store}: 1,000 train, 1,000 valid, 1,000 test; 9.3 MB to read
weights    random, as asked for
output     runs/first
cluster    1 node, 2 CPUs, 0 GPUs
at once    4 of 4, each with 1 worker of 0.5 CPUs and 0 GPUs
┏━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━┓
┃ experiment  ┃ trainable parameters ┃ differs from the defaults                         ┃ at most ┃
┡━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━┩
│ frozen      │              267,786 │ epochs at most 12, global batch 25                │    16 s │
│ augmented   │              267,786 │ images augmented, epochs at most 12, global batch │    1:13 │
│             │                      │ 25                                                │         │
│ regularized │              269,834 │ images augmented, batch normalisation, dropout    │    1:13 │
│             │                      │ rate 0.2, epochs at most 12, global batch 25      │         │
│ finetuned   │           14,982,474 │ base trained, images augmented, input             │    2:11 │
│             │                      │ preprocessing base, epochs at most 6, learning    │         │
│             │                      │ rate 5e-05, global batch 25                       │         │
└─────────────┴──────────────────────┴───────────────────────────────────────────────────┴─────────┘
All epochs of all experiments take about 4:53 on this machine, whose matrix product rate is \
100 GFLOP/s; early stopping makes it less.
Dry run: nothing was started.
"""

GPUS = """\
run        first, profile paper, seed 7
data       {store}: 1,000 train, 1,000 valid, 1,000 test; 9.3 MB to read
weights    random, as asked for
output     s3://results/first
cluster    2 nodes, 16 CPUs, 4 GPUs
at once    2 of 2, each with 2 workers of 4 CPUs and 1 GPUs
┏━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━┓
┃ experiment ┃ trainable parameters ┃ differs from the defaults                          ┃ at most ┃
┡━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━┩
│ frozen     │              267,786 │ epochs at most 55                                  │         │
│ finetuned  │           14,982,474 │ base trained, images augmented, epochs at most 200 │         │
└────────────┴──────────────────────┴────────────────────────────────────────────────────┴─────────┘
No estimate of time: the speed of the GPUs is not known.
Dry run: nothing was started.
"""


def test_the_plan_says_what_would_run_where_and_for_how_long(
    planned: Planned, sample_store: Store
) -> None:
    assert planned((2, 0)) == LAPTOP.format(store=sample_store.url)


def test_the_plan_of_a_cluster_with_gpus_promises_no_time(
    planned: Planned, sample_store: Store
) -> None:
    flags = {"experiments": "frozen,finetuned", "workers": "1:2", "profile": "paper", "seed": 7}
    text = planned((8, 2), (8, 2), output="s3://results", **flags)
    assert text == GPUS.format(store=sample_store.url)


def test_the_plan_shows_the_experiments_of_a_recipe_file(planned: Planned, tmp_path: Path) -> None:
    file = tmp_path / "weight decay.toml"
    file.write_text(
        'profile = "quick"\n[experiments.decayed]\nlike = "regularized"\nweight_decay = 1e-4\n'
    )
    text = planned((2, 0), profile=str(file))
    assert "profile weight-decay, seed 524" in text
    row = text[text.index("│ decayed") :]
    words = " ".join(re.sub(r"[│\n]", " ", row[: row.index("└")]).split())
    assert words.startswith("decayed 269,834 images augmented, batch normalisation, dropout")
    assert "weight decay 0.0001" in words


def test_the_plan_of_several_seeds_has_the_work_of_all_and_counts_shared_features_once(
    planned: Planned,
) -> None:
    def times(text: str) -> list[str]:
        rows = [line.split("│") for line in text.splitlines() if line.startswith("│")]
        return [row[-2].strip() for row in rows if row[1].strip()]

    text = planned((2, 0), seeds="524,7,9")
    lines = text.splitlines()
    assert lines[0] == "run        first, profile quick, seeds 524, 7, 9"
    assert lines[5] == "at once    4 of 12, each with 1 worker of 0.5 CPUs and 0 GPUs"
    # Further seeds compute nothing of a frozen base, whose views `quick` shares.
    assert times(planned((2, 0))) == ["16 s", "1:13", "1:13", "2:11"]
    assert times(text) == ["16 s", "1:13", "1:13", "6:32"]
    assert "Features of plain images do not depend on the seed: they are counted once." in lines
    assert "All seeds show the augmented views of seed 524: counted once, too." in lines
    assert any(line.startswith("All epochs of all experiments and seeds take") for line in lines)
    assert "profile quick, seed 7\n" in planned((2, 0), seeds="524,7,9", only_seed=7)


def test_the_plan_says_which_features_seeds_share() -> None:
    def said(*names: str) -> list[str]:
        return [line[:22] for line in shared_lines([EXPERIMENTS[name] for name in names], None)]

    assert said("frozen") == ["Features of plain imag"]
    assert said("frozen", "augmented") == ["Features of plain imag", "Each seed has augmente"]
    assert said("finetuned") == []


def test_the_plan_shows_no_control_character(planned: Planned) -> None:
    text = planned((2, 0), output="runs\x1b[2J")
    assert "output     runs\\x1b[2J/first" in text


def test_an_output_with_a_credential_is_refused_without_repeating_it(planned: Planned) -> None:
    with pytest.raises(UserError, match="holds no credential") as caught:
        planned((2, 0), output="s3://AKIA:SECRET@bucket/runs")
    assert "SECRET" not in str(caught.value)


def test_a_plan_starts_nothing_and_leaves_nothing(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("it was started")

    monkeypatch.setattr(ready, "ray_cluster", started)
    monkeypatch.setattr(ready, "embedded_store", started)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = planned((2, 0), store="embedded")
    assert text == LAPTOP.format(store="embedded")
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_another_base_has_its_parameters_and_its_work(planned: Planned) -> None:
    flags = {"experiments": "frozen,finetuned", "set": ("finetuned.base=mobilenet_v2",)}
    lines = planned((2, 0), **flags).splitlines()
    (row,) = (line for line in lines if line.startswith("│ finetuned"))
    name, parameters, differs, at_most = (cell.strip() for cell in row.strip("│").split("│"))
    assert (name, parameters, at_most) == ("finetuned", "2,884,874", "14 s")
    assert differs.startswith("base mobilenet_v2, base trained")


@pytest.mark.parametrize(
    ("augment", "row_bytes", "kept", "said"),
    [
        (True, 16384, 0.6, "are kept in the output: 16.4 MB for each view of train, 24.6 MB for "),
        (False, 16384, 0.6, "are kept in the output: 16.4 MB for train, 24.6 MB for valid and "),
        (True, 147456, 0.0, "for their features are not worth 147.5 kB an image."),
    ],
)
def test_the_plan_says_what_features_of_frozen_blocks_take_or_why_they_are_not_kept(
    augment: bool, row_bytes: int, kept: float, said: str
) -> None:
    fields = {"trainable_from": "block4", "augment": augment}
    work = Work(
        forward_flop=1.0,
        trained_share=0.4,
        row_bytes=row_bytes,
        kept_share=kept,
        trainable_params=1,
        total_params=1,
        feature_shape=(1, 1, 512),
    )
    rows = {"train": 1000, "valid": 1000, "test": 500}
    upper = EXPERIMENTS["finetuned"].model_copy(update=fields)
    line = lower_part_line(upper, work, rows)
    assert line.startswith("finetuned: the blocks below block4 are frozen; ")
    assert said in line


@pytest.mark.parametrize(("number", "text"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes")])
def test_one_is_singular(number: int, text: str) -> None:
    assert count(number, "node") == text


def test_the_matrix_product_rate_is_one_that_a_processor_can_have() -> None:
    assert 1e8 < matrix_product_rate() < 1e14
