"""Reports of many classes and experiments, of deep bases, and of names in any script."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import fake_run
import numpy as np
import pytest

from tlcluster.experiments import EXPERIMENTS
from tlcluster.records import LayerRecord
from tlcluster.report.classes import CONFUSIONS, EXTREMES, listed_classes, most_confused
from tlcluster.report.figures.architecture import MANY_PARTS, architecture, parts
from tlcluster.report.figures.canvas import Scored
from tlcluster.report.figures.confusion import confusion
from tlcluster.report.figures.per_class import per_class
from tlcluster.report.figures.style import styles
from tlcluster.report.formats import columns, shorten
from tlcluster.report.metrics import Metrics, Predictions, evaluate
from tlcluster.report.write import write_report
from tlcluster.storage.directory import DirectoryStore

SCRIPTS = ("小熊貓" * 9, "أرنب بري", "हाथी", "ελέφαντας", "пингвин", "🐧", "z" * 80)


def metrics(classes: tuple[str, ...], images: int = 400, seed: int = 1) -> Metrics:
    """Predictions of which most are right, and the others mostly the next class."""
    rng = np.random.default_rng(seed)
    label = np.arange(images) % len(classes)
    taken = np.where(rng.random(images) < 0.7, label, (label + 1) % len(classes))
    told = np.eye(len(classes), dtype=np.float32)[taken]
    return evaluate(Predictions(np.array(["x.png"] * images), label, told), classes, origins=False)


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(count))


def write_run(folder: Path, classes: tuple[str, ...]) -> dict[str, bytes]:
    """A run and its report: file → content."""
    store = DirectoryStore(folder)
    dataset = {**fake_run.manifest().dataset.model_dump(), "name": "x", "classes": classes}
    dataset["splits"] = {"test": 4 * len(classes)}
    chosen = ("frozen", "augmented")
    fake_run.write_run(store, fake_run.manifest(experiments=chosen, dataset=dataset))
    write_report(store)
    return {key.removeprefix("report/"): store.get(key) for key, _ in store.list("report/")}


def test_of_many_classes_the_page_shows_the_extremes_and_files_hold_all(tmp_path: Path) -> None:
    written = write_run(tmp_path, names(100))
    page = written["index.html"].decode()
    # Two tables of classes, one of confusions with two names a row.
    assert page.count('<th scope="row"><bdi>') <= 2 * (2 * EXTREMES) + 2 * CONFUSIONS
    assert len(page) < 600_000
    assert not any(name.startswith("confusion_") and name.endswith(".svg") for name in written)
    matrix = list(csv.reader(io.StringIO(written["confusion_frozen.csv"].decode())))
    assert matrix[0] == ["true class", *names(100)]
    results = json.loads(written["results.json"])["experiments"][0]["test"]
    assert [[int(count) for count in row[1:]] for row in matrix[1:]] == results["confusion"]
    of_classes = list(csv.DictReader(io.StringIO(written["per_class.csv"].decode())))
    assert [row["class"] for row in of_classes] == [*names(100)] * 2
    for name in ("per_class.csv", "confusion_EXPERIMENT.csv"):
        assert f"<code>{name}</code>" in page


def test_of_few_classes_the_page_shows_all_and_no_more_files_are_written(tmp_path: Path) -> None:
    written = write_run(tmp_path, ("cat", "dog"))
    assert "confusion_frozen.svg" in written
    assert {name for name in written if name.endswith(".csv")} == {"summary.csv"}
    assert "per_class.csv" not in written["index.html"].decode()


def test_the_extremes_are_the_classes_of_lowest_and_highest_f1() -> None:
    tested = [metrics(names(60), seed=seed) for seed in (1, 2)]
    listed = listed_classes(tested)
    means = [sum(one.per_class[place].f1 for one in tested) for place in range(60)]
    shown = [means[place] for place in listed]
    assert shown == sorted(shown)
    assert sorted(shown) == sorted(means)[:EXTREMES] + sorted(means)[-EXTREMES:]
    assert listed_classes([metrics(names(7))]) == list(range(7))


def test_the_most_frequent_confusions_of_all_experiments_come_first() -> None:
    tested = [metrics(names(40), seed=seed) for seed in (1, 2)]
    found = most_confused(tested)
    totals = [sum(one.counts) for one in found]
    assert len(found) == CONFUSIONS
    assert totals == sorted(totals, reverse=True)
    for one in found:
        assert one.predicted == (one.true + 1) % 40
        assert one.counts == tuple(of.confusion[one.true][one.predicted] for of in tested)
    right = metrics(names(40), images=40, seed=1)
    diagonal = tuple(tuple(int(i == j) for j in range(40)) for i in range(40))
    assert most_confused([right._replace(confusion=diagonal)]) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [2, 7, 25, 100])
@pytest.mark.parametrize("experiments", [1, 12])
def test_figures_of_classes_have_a_sensible_size(count: int, experiments: int) -> None:
    many = [f"experiment-{number}" for number in range(experiments)]
    looks = styles(many)
    scored = [Scored(name, looks[name], metrics(names(count))) for name in many]
    drawn = [per_class(scored, "f1"), *([confusion(scored[0])] if count <= 25 else [])]
    for figure in drawn:
        width, height = (int.from_bytes(figure.png[at : at + 4], "big") / 2.5 for at in (16, 20))
        assert 300 <= width <= 800
        assert 100 <= height <= 1600


def test_twelve_experiments_look_different() -> None:
    looks = styles([*EXPERIMENTS, *(f"new-{number}" for number in range(8))])
    assert len({(look.colour, look.dashes) for look in looks.values()}) == 12
    assert len({(look.colour, look.marker) for look in looks.values()}) == 12


def test_names_in_any_script_are_drawn_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scored = Scored("frozen", styles(["frozen"])["frozen"], metrics(SCRIPTS))
        for figure in (per_class([scored], "recall"), confusion(scored)):
            assert "पि" not in figure.inline
            assert "أرنب بري" in figure.inline
            assert "小熊貓" in figure.inline
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("小熊貓", 6, "小熊貓"),
        ("小熊貓犬", 6, "小熊…"),
        ("e\u0301" * 6, 6, "e\u0301" * 6),
        ("a\tb\x1b", 9, "a b "),
        ("می\u200cخواهم", 9, "می\u200cخواهم"),
        ("x" * 10**7, 3, "xx…"),
    ],
)
def test_a_name_is_cut_by_the_columns_it_takes(text: str, width: int, shown: str) -> None:
    assert shorten(text, width) == shown
    assert columns(shown) <= width


# Deep bases


def layer(name: str, block: str = "", in_base: bool = True, params: int = 5) -> LayerRecord:
    return LayerRecord(
        name=name, kind="Conv2D", output_shape=(4, 4, 8), params=params, trainable=False,
        in_base=in_base, block=block,
    )  # fmt: skip


def deep(blocks: bool) -> list[LayerRecord]:
    """A base of 5 + 6 × 10 + 2 layers with an input and a head."""
    return [
        layer("images", in_base=False),
        *(layer(f"stem{number}_conv") for number in range(5)),
        *(
            layer(f"conv{block}_{number}", f"conv{block}" if blocks else "")
            for block in range(6)
            for number in range(10)
        ),
        *(layer(f"top_{number}") for number in range(2)),
        layer("logits", in_base=False),
    ]


def test_a_base_of_many_layers_is_shown_by_block() -> None:
    shown = parts(deep(blocks=True))
    assert [(part.name, part.layers) for part in shown] == [
        ("images", 1),
        ("first layers", 5),
        *((f"conv{block}", 10) for block in range(6)),
        ("last layers", 2),
        ("logits", 1),
    ]
    assert sum(part.params for part in shown) == 69 * 5
    look = styles(["frozen"])["frozen"]
    figure = architecture("frozen", look, deep(blocks=True), 5)
    assert figure.svg.decode().count(">10 layers<") == 6
    assert "69 layers, 345 parameters" in figure.alt
    assert "conv5 (10 layers) 4×4×8" in figure.alt


def test_records_without_blocks_are_grouped_by_the_names_of_the_layers() -> None:
    shown = parts(deep(blocks=False))
    assert [(part.name, part.layers) for part in shown][6:] == [
        *((f"conv{block}", 10) for block in range(6)), ("top", 2), ("logits", 1),
    ]  # fmt: skip


def test_a_base_of_few_layers_is_shown_layer_by_layer() -> None:
    layers = fake_run.experiment_config(EXPERIMENTS["frozen"]).layers
    assert len(parts(layers)) == len(layers)


def test_a_model_of_very_many_blocks_has_a_gap_in_its_middle() -> None:
    layers = [layer(f"n{number}_x", f"b{number}") for number in range(5000)]
    figure = architecture("frozen", styles(["frozen"])["frozen"], layers, 5)
    assert f"… {5000 - MANY_PARTS} more" in figure.svg.decode()


# Settings of the user

DRAW = """
import sys
sys.path[:0] = sys.argv[2:]
import fake_run
from tlcluster.report.write import write_report
from tlcluster.storage.directory import DirectoryStore
write_report(DirectoryStore(__import__("pathlib").Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its report, drawn without such settings."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    folder.mkdir()
    store = DirectoryStore(folder)
    fake_run.write_run(store, fake_run.manifest(experiments=("frozen",)))
    write_report(store)
    return folder


@pytest.mark.parametrize(
    ("variables", "matplotlibrc"),
    [
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, "text.usetex: True\n"),
        ({"MPLBACKEND": "nonsense"}, "savefig.bbox: tight\nno.such.key: 1\nfont.size: 40\n"),
        ({"MPLBACKEND": "", "MPLCONFIGDIR": "/proc/nowhere"}, None),
        ({"MATPLOTLIBRC": "/nowhere"}, "font.family: NoSuchFont\naxes.prop_cycle: \udcff\n"),
    ],
)
def test_figures_do_not_depend_on_what_the_user_set_for_matplotlib(
    variables: dict[str, str], matplotlibrc: str | None, plain: Path, tmp_path: Path
) -> None:
    run, configuration = tmp_path / "run", tmp_path / "configuration"
    configuration.mkdir()
    shutil.copytree(plain, run, ignore=shutil.ignore_patterns("report"))
    store = DirectoryStore(run)
    expected = {f"report/{path.name}": path.read_bytes() for path in (plain / "report").iterdir()}
    if matplotlibrc is not None:
        content = matplotlibrc.encode("utf-8", "surrogateescape")
        (configuration / "matplotlibrc").write_bytes(content)
        variables = {"MPLCONFIGDIR": str(configuration), **variables}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", DRAW, run, root, root / "tests"],
        capture_output=True, text=True, check=False, env={**os.environ, **variables},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert {key: store.get(key) for key, _ in store.list("report/")} == expected
