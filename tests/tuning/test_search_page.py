"""The page of a search: what it says, and that nothing in it is taken for markup."""

from pathlib import Path

from test_trials import MANIFEST, final, numbered, trial

from tlcluster.storage.open import open_store
from tlcluster.tuning.page import PAGE, write_page
from tlcluster.tuning.space import Choice

SPACES = {"frozen": {"dropout": Choice((0.1, 0.2))}}
TRIALS = numbered(
    trial(0, 0.5, 0.6, role="recipe"),
    trial(1, 0.4, 0.7, 0.6, dropout=0.1),
    trial(2, 0.3, status="stopped", dropout=0.2),
    trial(3, status="failed", dropout=0.2).model_copy(update={"error": "<b>broken & lost"}),
    final(4, 0, 7, 0.61),
    final(5, 1, 7, 0.68),
    final(6, 0, 8, 0.63),
    final(7, 1, 8, 0.70),
)


def page(tmp_path: Path, trials: dict) -> str:
    store = open_store(str(tmp_path / "search"), create=True)
    write_page(store, MANIFEST, {"frozen": trials}, SPACES)
    return store.get(PAGE).decode()


def test_the_page_says_what_was_found_and_what_the_profiles_recipe_gives(tmp_path: Path) -> None:
    text = page(tmp_path, TRIALS)
    assert "<b>69.0</b> ± 1.4" in text
    assert "62.0 ± 1.4" in text
    assert "dropout rate 0.1" in text
    assert "The test split was not read" in text
    assert (tmp_path / "search" / "report" / "search_frozen.svg").exists()


def test_names_and_errors_are_text_not_markup(tmp_path: Path) -> None:
    text = page(tmp_path, TRIALS)
    assert "&lt;b&gt;broken &amp; lost" in text
    assert "<b>broken" not in text
    assert "&lt;node&gt;" in text


def test_a_search_without_a_result_has_a_page_that_says_so(tmp_path: Path) -> None:
    assert "no finalist has finished" in page(tmp_path, {})
