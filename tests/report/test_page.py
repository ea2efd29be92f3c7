"""The page: its sentences and numbers, and what a browser makes of it."""

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import pytest
from browsing import Reader, requests, visit
from PIL import Image
from selenium import webdriver

from tlcluster.experiments import EXPERIMENTS
from tlcluster.report import columns, formats, sentences, tables
from tlcluster.report.page import render_page
from tlcluster.report.runs import read_run
from tlcluster.report.write import write_report
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.protocol import Store


def write_many(store: Store) -> None:
    """40 classes of another data set, with long names in several scripts; a recipe file."""
    names = ("小熊貓" * 20, "أرنب بري", "हाथी", "x" * 200, "a b", *(f"n{n:08}" for n in range(35)))
    dataset = fake_run.manifest().dataset.model_dump()
    dataset |= {"name": "動物", "classes": names, "splits": {"train": 400, "test": 400}}
    fake_run.write_run(store, fake_run.manifest(dataset=dataset, recipe="# " + "x" * 500))


RUNS: dict[str, Callable[[Store], None]] = {
    "whole": lambda store: fake_run.write_run(store, fake_run.manifest()),
    "seeds": lambda store: fake_run.write_seeds_run(store, 400, ("augmented", "finetuned")),
    "mixed": fake_run.write_mixed_run,
    "hostile": fake_run.write_hostile_run,
    "many": write_many,
    "empty": lambda store: fake_run.write_run(
        store, fake_run.manifest(status="running", finished=None), finished=[]
    ),
}


LOOKS = {"whole": fake_run.look(9_000), "hostile": fake_run.look(200)}
"""Run → where its pictures are; the other pages have none."""


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run → its page, on disk."""
    found = {}
    for name, write in RUNS.items():
        folder = tmp_path_factory.mktemp(name)
        store = DirectoryStore(folder)
        write(store)
        found[name] = folder / write_report(store, look=LOOKS.get(name))
    return found


def differences(folder: Path, **changes: Any) -> list[str]:
    store = DirectoryStore(folder)
    dataset = fake_run.manifest().dataset.model_dump()
    dataset["splits"] = {"train": 90_000, "valid": 90_000, "test": 90_000}
    manifest = fake_run.manifest(**{"dataset": dataset, **changes})
    store.put("manifest.json", manifest.model_dump_json().encode())
    return sentences.differences(read_run(store))


# Sentences


def test_a_run_like_the_study_differs_in_nothing(tmp_path: Path) -> None:
    for name in fake_run.SHAPES:
        fake_run.write_config(DirectoryStore(tmp_path), name)
    assert differences(tmp_path) == []


def test_other_images_seed_and_weights_are_named_with_both_values(tmp_path: Path) -> None:
    small = fake_run.manifest().dataset.model_copy(update={"splits": {"train": 1000, "test": 20}})
    random = {"kind": "random", "sha256": None, "found": ""}
    assert differences(tmp_path, dataset=small, seed=7, weights=random) == [
        "The models start from random weights; the study's start from ImageNet's.",
        "The train split has 1,000 images; the study's has 90,000.",
        "The test split has 20 images; the study's has 90,000.",
        "The seed is 7; the study's is 524.",
    ]


def test_a_test_split_from_cifar_alone_is_named(tmp_path: Path) -> None:
    predictions = fake_run.predictions("frozen", 40, cifar=1.0)
    DirectoryStore(tmp_path).put("frozen/predictions.npz", predictions)
    (said,) = differences(tmp_path)
    assert said.startswith("Every test image comes from CIFAR-10")


def test_a_changed_recipe_is_named_field_by_field(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    fake_run.write_config(store, "frozen", epochs=8, global_batch=50)
    fake_run.write_config(store, "augmented", epochs=8, global_batch=50, augment=False)
    (said,) = differences(tmp_path, profile="quick")
    assert said == (
        "The recipe (profile quick) differs: images augmented no instead of yes (augmented); "
        "epochs at most 8 instead of 55; global batch 50 instead of 128."
    )


def test_every_field_of_the_recipe_is_compared_with_the_study(tmp_path: Path) -> None:
    fake_run.write_config(DirectoryStore(tmp_path), "frozen", weight_decay=1e-4)
    (said,) = differences(tmp_path)
    assert "weight decay 0.0001 instead of 0 (frozen)" in said


def test_a_field_that_is_new_in_the_recipe_is_compared_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentences, "RECIPE", {**sentences.RECIPE, "summary": "a new field"})
    fake_run.write_config(DirectoryStore(tmp_path), "frozen", summary="changed")
    (said,) = differences(tmp_path)
    assert "a new field changed instead of frozen base (frozen)" in said


@pytest.mark.parametrize(
    ("dataset", "base"), [("flowers", "vgg16"), ("cinic-10", "resnet50"), ("CINIC-10", "vgg16")]
)
def test_nothing_is_compared_with_the_study_unless_data_and_base_are_the_studys(
    dataset: str, base: str, tmp_path: Path
) -> None:
    store = DirectoryStore(tmp_path)
    of = fake_run.manifest().dataset.model_copy(update={"name": dataset})
    manifest = fake_run.manifest(dataset=of, experiments=("frozen",), seed=7, profile="quick")
    fake_run.write_run(store, manifest, finished=["frozen"])
    fake_run.write_config(store, "frozen", base=base)
    text = Reader((tmp_path / write_report(store)).read_text()).text
    assert re.findall(r"[Ss]tudy", text) == []
    results = json.loads(store.get("report/results.json"))
    assert "frozen" not in [one["name"] for one in results["study"]]
    assert (results["study"] == []) == (dataset != "cinic-10")
    assert (results["experiments"][0]["test"]["per_origin"] == {}) == (dataset != "cinic-10")
    assert ("origins" in text) == (dataset == "cinic-10")
    row = next(csv.DictReader(io.StringIO(store.get("report/summary.csv").decode())))
    assert row["study_accuracy"] == row["study_loss"] == ""


def test_an_experiment_that_has_not_started_has_the_base_of_its_settings(tmp_path: Path) -> None:
    settings = {"frozen.base": "resnet50"}
    manifest = fake_run.manifest(experiments=("frozen",), settings=settings, seed=7)
    fake_run.write_run(DirectoryStore(tmp_path), manifest, finished=[])
    run = read_run(DirectoryStore(tmp_path))
    assert sentences.differences(run) == []
    assert sentences.subject(run) == "ResNet50 transfer learning on CINIC-10"


@pytest.mark.parametrize(
    ("dataset", "bases", "title"),
    [
        ("cinic-10", ["vgg16", "vgg16"], "VGG16 transfer learning on CINIC-10"),
        (
            "flowers",
            ["vgg16", "mobilenet_v2"],
            "VGG16 and MobileNetV2 transfer learning on flowers",
        ),
        ("花", ["vgg16", "vgg19", "resnet50"], "Transfer learning on 花"),
        ("", [], "Transfer learning"),
    ],
)
def test_the_title_says_what_was_trained_on_what(
    dataset: str, bases: list[str], title: str, tmp_path: Path
) -> None:
    names = list(EXPERIMENTS)[: len(bases)]
    of = fake_run.manifest().dataset.model_copy(update={"name": dataset})
    store = DirectoryStore(tmp_path)
    fake_run.write_run(store, fake_run.manifest(experiments=names, dataset=of), finished=[])
    for name, base in zip(names, bases, strict=True):
        fake_run.write_config(store, name, base=base)
    assert sentences.subject(read_run(store)) == title


def test_the_verdict_on_many_experiments_is_about_the_best_one(
    pages: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentences, "MANY_EXPERIMENTS", 3)
    run = read_run(DirectoryStore(pages["whole"].parent.parent))
    assert sentences.verdict(run) == "At the 5 % level, finetuned is better than all 3 others."
    last = run.comparisons[-1]
    level = run._replace(comparisons=(*run.comparisons[:-1], last._replace(p_holm=1.0)))
    assert sentences.verdict(level) == (
        "At the 5 % level, finetuned is better than frozen and augmented. The difference to the "
        "other one may be chance."
    )


def test_the_verdict_says_who_is_better_and_what_may_be_chance(pages: dict[str, Path]) -> None:
    run = read_run(DirectoryStore(pages["whole"].parent.parent))
    assert sentences.verdict(run) == (
        "At the 5 % level, finetuned is better than frozen, augmented and regularized; "
        "regularized is better than frozen and augmented. "
        "The difference between frozen and augmented may be chance."
    )


def test_where_nothing_was_compared_there_is_no_verdict(pages: dict[str, Path]) -> None:
    assert sentences.verdict(read_run(DirectoryStore(pages["mixed"].parent.parent))) == ""


# Numbers


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.percent(0.75284, 2), "75.28"),
        (formats.points(0.0123, 1), "+1.2"),
        (formats.points(-0.0123, 2), "-1.23"),
        (formats.points(-0.0001, 1), "0.0"),
        (formats.number(14_982_474), "14,982,474"),
        (formats.number(1.5239, 3), "1.524"),
        (formats.number(None), ""),
        (formats.number(float("nan"), 3), ""),
        (formats.p_value(0.0009), "< 0.001"),
        (formats.p_value(0.0314), "0.031"),
        (formats.duration(59.4), "59 s"),
        (formats.duration(61), "1 min 01 s"),
        (formats.duration(3600 + 125), "1 h 02 min"),
        (formats.gib(512 * 2**30), "512"),
        (formats.moment("2026-04-12T07:15:59Z"), "2026-04-12 07:15 UTC"),
        (formats.moment("yesterday"), "yesterday"),
        (formats.listing([]), ""),
        (formats.listing(["a"]), "a"),
        (formats.listing("abc"), "a, b and c"),
        (formats.plain(True), "yes"),
        (formats.plain(0.0001), "0.0001"),
        (formats.plain("raw"), "raw"),
    ],
)
def test_numbers_are_shown_with_sensible_digits(shown: str, expected: str) -> None:
    assert shown == expected


# The results table


def test_a_column_is_one_value_and_stands_in_the_page_and_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = columns.Column(
        "startup_hours",
        lambda row: row.experiment.result.startup_seconds and 31.5 / 3600,
        "Start-up, h",
        lambda value, _: f"{value:.4f}",
    )
    for module in (columns, tables):
        monkeypatch.setattr(module, "COLUMNS", (*columns.COLUMNS, column))
    store = DirectoryStore(tmp_path)
    fake_run.write_run(store, fake_run.manifest(experiments=("frozen",)))
    text = (tmp_path / write_report(store)).read_text()
    assert "Start-up, h</th>" in text
    assert "<td>0.0088</td>" in text
    (row,) = csv.DictReader(io.StringIO(store.get("report/summary.csv").decode()))
    assert float(row["startup_hours"]) == 31.5 / 3600


# The file


@pytest.mark.parametrize("run", RUNS)
def test_the_page_has_no_script_and_refers_to_nothing_outside_itself(
    run: str, pages: dict[str, Path]
) -> None:
    text = pages[run].read_text()
    reader = Reader(text)
    assert set(reader.tags).isdisjoint(
        {"script", "iframe", "object", "embed", "form", "base", "foreignobject", "image"}
    )
    assert reader.handlers == []
    assert ("img" in reader.tags) == (run in LOOKS)
    pictures = [one for one in reader.references if one.startswith("data:image/png;base64,")]
    assert len(pictures) == reader.tags.count("img")
    assert all(one.startswith("#") or one in ("data:,", *pictures) for one in reader.references)
    # Colours, fonts and images of a style sheet could be fetched as well.
    assert re.findall(r"@import|@font-face|url\((?!#)", text) == []
    assert len(set(reader.ids)) == len(reader.ids)


def test_every_hostile_text_is_shown_as_it_is(pages: dict[str, Path]) -> None:
    reader = Reader(pages["hostile"].read_text())
    # Name twice, profile, command, time, versions twice, commit, settings twice, hosts and more.
    assert reader.text.count(fake_run.HOSTILE) >= 20


def test_the_8_bit_copy_of_the_weights_is_named_on_the_page_with_the_way_to_the_published_ones(
    tmp_path: Path,
) -> None:
    copy = {"kind": "imagenet-8bit", "sha256": "ab" * 32, "found": "the 8-bit copy"}
    assert differences(tmp_path, weights=copy) == [
        (
            "The models start from an 8-bit copy of the ImageNet weights; the study's start from "
            "the published ones."
        )
    ]
    body = render_page(read_run(DirectoryStore(tmp_path)), {}).partition("<body>")[2]
    assert Reader(body).text.strip().startswith("8-bit weights. The models of this run started")
    assert "--weights FILE" in body


def test_the_weights_of_every_base_are_on_the_page(tmp_path: Path) -> None:
    one = {"kind": "imagenet", "sha256": "ab" * 32, "found": "here"}
    other = {"kind": "random", "sha256": None, "found": "random"}
    differences(tmp_path, weights=one, weights_by_base={"vgg16": one, "vgg19": other})
    shown = Reader(render_page(read_run(DirectoryStore(tmp_path)), {})).text
    assert "Weights of vgg16imagenet, here" in shown
    assert "Weights of vgg19random, random" in shown


def test_the_first_line_says_that_weights_were_random(pages: dict[str, Path]) -> None:
    body = Reader(pages["mixed"].read_text().partition("<body>")[2]).text.strip()
    assert body.startswith("Random weights. The models of this run did not start from ImageNet")
    assert "Random weights" not in pages["whole"].read_text()


def test_the_recipe_file_is_printed_as_it_is(tmp_path: Path) -> None:
    recipe = '[every]\nepochs = 3  # <b>"three"</b> & more\n'
    store = DirectoryStore(tmp_path)
    fake_run.write_run(store, fake_run.manifest(recipe=recipe), finished=[])
    text = (tmp_path / write_report(store)).read_text()
    assert recipe in Reader(text).text
    assert "<b>&#34;three" not in text
    assert "The recipe file" in text


def test_the_recipes_show_the_options_that_an_experiment_uses_and_no_others(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    settings = {"frozen.warmup": 0.0, "augmented.warmup": 0.25, "frozen.epochs": 55}
    fake_run.write_run(store, fake_run.manifest(experiments=("frozen",), settings=settings))
    fake_run.write_config(store, "frozen", taps="block3,block4")
    text = Reader((tmp_path / write_report(store)).read_text()).text
    assert "Features from" in text
    assert "block3,block4" in text
    assert "Learning rate" in text
    assert "Label smoothing" not in text
    assert "frozen.epochs 55" in text
    assert "augmented.warmup 0.25" in text
    assert "frozen.warmup" not in text


def test_without_a_recipe_file_none_is_mentioned(pages: dict[str, Path]) -> None:
    assert "The recipe file" not in pages["whole"].read_text()


def test_an_experiment_without_title_and_summary_is_named_once(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    fake_run.write_run(store, fake_run.manifest(experiments=("frozen",)))
    fake_run.write_config(store, "frozen", title="", summary="")
    text = " ".join(Reader((tmp_path / write_report(store)).read_text()).text.split())
    assert "One experiment has been tested, frozen: it classifies" in text


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("mixed", "Interrupted. The run was stopped before every experiment had finished"),
        ("empty", "Still running. This page shows what has been recorded so far."),
        ("empty", "No experiment has been tested yet."),
        ("mixed", "rank 1 on gpu02 ran out of memory: tried to allocate 2.0 GiB"),
        ("mixed", "not tested; 34.4 % validation accuracy after epoch 1"),
        ("mixed", "One experiment has been tested, frozen, Model 1: it classifies 48.9 % of 9,000"),
        ("whole", "The best experiment is finetuned, Model 4: it classifies 75.3 % of 9,000 test"),
        (
            "whole",
            "the original study reports 75.28 %. Every experiment was trained with one seed.",
        ),
        ("whole", "they cannot say whether another seed would give the same order."),
        ("whole", "finetuned cannot be judged: one seed does not show how much trainings vary."),
        ("seeds", "Intervals and tests cover the choice of the test images and of the seeds."),
        ("seeds", "finetuned, Model 4: over 4 seeds it classifies"),
        ("seeds", "seeds 524, 1, 2, 3, 4"),
        ("seeds", "8 of 10 trainings finished"),
        (
            "seeds",
            "where one more training of ours would be with 95 % on 90,000 other test images.",
        ),
    ],
)
def test_the_page_says_how_far_the_run_got(run: str, said: str, pages: dict[str, Path]) -> None:
    assert said in " ".join(Reader(pages[run].read_text()).text.split())


def test_every_table_has_a_caption_and_every_heading_of_a_column_its_scope(
    pages: dict[str, Path],
) -> None:
    text = pages["whole"].read_text()
    tables = re.findall(r"<table>.*?</table>", text, re.DOTALL)
    assert len(tables) == 15
    for table in tables:
        assert "<caption>" in table
        assert re.findall(r"<th(?![^>]*scope=)[ >]", table) == []
        # A row that is pasted into a spreadsheet has a cell for each column.
        widths = set()
        for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL):
            cells = re.findall(r"<t[hd]([ >][^>]*)", row)
            spans = [re.search(r'colspan="(\d+)"', cell) for cell in cells]
            widths.add(sum(int(span[1]) if span else 1 for span in spans))
        assert len(widths) == 1


def test_of_several_seeds_the_table_has_mean_spread_and_interval_and_each_seed_its_row(
    pages: dict[str, Path],
) -> None:
    text = pages["seeds"].read_text()
    run = read_run(DirectoryStore(pages["seeds"].parent.parent))
    results, every, *_ = (
        [
            [Reader(cell).text.strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
            for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
        ]
        for table in re.findall(r"<table>.*?</table>", text, re.DOTALL)
    )
    for experiment, row in zip(run.experiments, results[2:], strict=True):
        of = experiment.accuracy
        assert of is not None
        assert of.spread is not None
        assert row[1:4] == [
            "4",
            f"{100 * of.mean:.1f} ± {100 * of.spread:.1f}",
            f"{100 * of.interval.low:.1f}–{100 * of.interval.high:.1f}",
        ]
        assert row[-1] in ("4 finished, 1 failed", "4 finished, 1 damaged")
    assert [row[1] for row in every[1:]] == [str(seed) for seed in fake_run.SEVERAL] * 2
    reasons = {row[-1]: row[2] for row in every[1:] if row[-1] in ("failed", "damaged")}
    assert reasons["failed"] == fake_run.OUT_OF_MEMORY
    assert reasons["damaged"].startswith("finetuned/seeds/2/predictions.npz: damaged record")
    assert "Student’s t over images and seeds" in Reader(text).text


# In a browser

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("run", RUNS)
def test_a_browser_shows_the_page_without_errors_requests_or_overflow(
    run: str, width: int, scheme: str, pages: dict[str, Path], browser: webdriver.Chrome
) -> None:
    url = pages[run].as_uri()
    visit(browser, url, width, scheme)
    assert browser.get_log("browser") == []
    assert [request for request in requests(browser) if not request.startswith("data:")] == [url]
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    assert browser.execute_script("return document.title") != ""
    # Text and lines are there, in the colours of the scheme.
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    grey = Image.open(io.BytesIO(base64.b64decode(shot))).convert("L")
    dark, light = grey.getextrema()
    assert (grey.getpixel((2, 2)) > 250) == (scheme == "light")
    assert dark < 60
    assert light > 200


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_figure_has_the_ground_of_the_page(
    scheme: str, pages: dict[str, Path], browser: webdriver.Chrome
) -> None:
    visit(browser, pages["whole"].as_uri(), 1280, scheme)
    grounds = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')]"
        ".map(svg => getComputedStyle(svg.querySelector('path')).fill)"
    )
    ground = browser.execute_script("return getComputedStyle(document.documentElement)"
                                    ".backgroundColor")  # fmt: skip
    assert len(grounds) == 24
    assert set(grounds) == {ground}


def test_on_paper_the_counts_are_open_and_the_colours_are_light(
    pages: dict[str, Path], browser: webdriver.Chrome
) -> None:
    visit(browser, pages["whole"].as_uri(), 1280, "dark")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    visible = "return document.querySelector('details table').checkVisibility()"
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    assert browser.execute_script(visible)
    assert browser.execute_script(ground) == "rgb(255, 255, 255)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    assert not browser.execute_script(visible)
    assert browser.execute_script(ground) != "rgb(255, 255, 255)"


@pytest.mark.parametrize(
    ("broken", "noticed"),
    [
        ("<script>alert(1)</script>", "log"),
        ("<img src='https://example.org/x.png'>", "request"),
        ("<div style='width: 3000px'>wide</div>", "overflow"),
    ],
)
def test_a_page_that_breaks_the_rules_is_noticed(
    broken: str, noticed: str, tmp_path: Path, pages: dict[str, Path], browser: webdriver.Chrome
) -> None:
    bad = tmp_path / "bad.html"
    text = pages["empty"].read_text().replace("<main>", f"<main>{broken}", 1)
    if noticed == "request":
        # Without its policy, which would hold the request back.
        text = re.sub("<meta http-equiv.*?>", "", text)
    bad.write_text(text)
    visit(browser, bad.as_uri(), 1280, "light")
    found = {
        "log": bool(browser.get_log("browser")),
        "request": any("example.org" in request for request in requests(browser)),
        "overflow": browser.execute_script("return document.documentElement.scrollWidth") > 1280,
    }
    assert found[noticed]
