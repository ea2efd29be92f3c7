"""The page of a comparison: whole without a script, sorted and filtered with it."""

import re
from pathlib import Path

import fake_run
import pytest
from browsing import Reader, requests, visit
from many_runs import gathered
from selenium import webdriver

from tlcluster.comparison.page import render_page, script
from tlcluster.comparison.write import write_comparison
from tlcluster.storage.directory import DirectoryStore


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_comparison([str(runs)], str(folder), "compare runs")
    return folder / "index.html"


def test_without_a_script_the_page_has_every_row_the_highest_accuracy_first(page: Path) -> None:
    table, runs_table, *_ = re.findall(r"<table.*?</table>", page.read_text(), re.DOTALL)
    rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)[1:]
    cells = [[Reader(cell).text for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]
    assert len(cells) == 7
    assert " hidden" not in table
    accuracies = [float(row[5].split(" ±")[0]) for row in cells]
    assert accuracies == sorted(accuracies, reverse=True)
    assert {row[0] for row in cells} == {"base", "wide", "seeds", "elsewhere"}
    assert runs_table.count("<tr>") == 5
    text = Reader(page.read_text()).text
    assert "4 left out." in text
    assert "the run is still running" in text


def test_what_runs_were_tested_on_is_a_column_if_it_is_not_the_same(page: Path, runs: Path) -> None:
    same = render_page(gathered(runs, "base", "wide"), "")
    for text, several in ((page.read_text(), True), (same, False)):
        table = text[: text.index("</thead>")]
        assert ("Tested on</th>" in table) == several
        assert ("Not all runs were tested on the same images" in text) == several
        assert ("there are no statistics between them" in text) == several


def test_the_page_refers_to_nothing_and_allows_its_own_script_alone(page: Path) -> None:
    text = page.read_text()
    reader = Reader(text)
    assert reader.tags.count("script") == 1
    assert set(reader.tags).isdisjoint({"img", "iframe", "object", "embed", "form", "base"})
    assert reader.handlers == []
    assert all(one.startswith("#") or one == "data:," for one in reader.references)
    assert re.findall(r"@import|@font-face|url\((?!#)", text) == []
    assert f"script-src '{script().digest}'\">" in text
    assert f"<script>{script().text}</script>" in text
    assert "</script" not in script().text


@pytest.fixture(scope="module")
def hostile(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run like others and one whose every text is an attack, or far too long."""
    folder = tmp_path_factory.mktemp("hostile")
    fake_run.write_hostile_run(DirectoryStore(folder / "runs" / fake_run.LONG))
    given = [str(runs / "base"), str(folder / "runs")]
    write_comparison(given, str(folder / "out"), fake_run.HOSTILE)
    return folder / "out/index.html"


def test_every_hostile_text_of_a_run_is_shown_as_it_is(hostile: Path) -> None:
    reader = Reader(hostile.read_text())
    assert reader.tags.count("script") == 1
    assert "img" not in reader.tags
    assert reader.handlers == []
    # Profile, data set, version and more.
    assert reader.text.count("<script>alert(1)</script>") >= 8


ROWS = """
return [...document.querySelector("table").tBodies[0].rows].filter((row) => !row.hidden)
  .map((row) => [row.cells[0].textContent, row.cells[1].textContent, row.cells[5].textContent]);
"""


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_the_page_without_errors_requests_or_overflow(
    width: int, scheme: str, page: Path, browser: webdriver.Chrome
) -> None:
    visit(browser, page.as_uri(), width, scheme)
    assert browser.get_log("browser") == []
    assert [one for one in requests(browser) if one != "data:,"] == [page.as_uri()]
    assert browser.execute_script("return document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [1400, 390])
def test_a_browser_shows_hostile_texts_without_errors_requests_or_overflow(
    width: int, hostile: Path, browser: webdriver.Chrome
) -> None:
    visit(browser, hostile.as_uri(), width, "light")
    assert browser.get_log("browser") == []
    assert [one for one in requests(browser) if one != "data:,"] == [hostile.as_uri()]
    assert browser.execute_script("return document.documentElement.scrollWidth") == width


def test_in_a_browser_rows_are_sorted_and_filtered(page: Path, browser: webdriver.Chrome) -> None:
    visit(browser, page.as_uri(), 1400, "light")
    before = browser.execute_script(ROWS)
    press = "[...document.querySelectorAll('table th button')].find((b) => b.textContent === "
    for heading, column, turned in (("Accuracy, %", 2, True), ("Run", 0, False)):
        browser.execute_script(f"{press}'{heading}').click()")
        values = [row[column] for row in browser.execute_script(ROWS)]
        keys = [float(one.split(" ±")[0]) for one in values] if turned else values
        assert keys == sorted(keys)
        browser.execute_script(f"{press}'{heading}').click()")
        values = [row[column] for row in browser.execute_script(ROWS)]
        keys = [float(one.split(" ±")[0]) for one in values] if turned else values
        assert keys == sorted(keys, reverse=True)
    assert browser.execute_script("return document.querySelector('[aria-sort]').textContent") == (
        "Run"
    )
    type_in = """
    const input = document.querySelector("p.filter input");
    input.value = arguments[0];
    input.dispatchEvent(new Event("input"));
    return document.querySelector("p.filter output").value;
    """
    assert browser.execute_script(type_in, "WIDE  frozen") == "1 of 7 rows"
    assert [row[:2] for row in browser.execute_script(ROWS)] == [["wide", "frozen"]]
    assert browser.execute_script(type_in, "nothing like it") == "0 of 7 rows"
    assert browser.execute_script(type_in, "") == ""
    assert sorted(browser.execute_script(ROWS)) == sorted(before)
    assert browser.get_log("browser") == []
