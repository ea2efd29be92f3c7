"""Paths: `~` is the home of whoever it names."""

from pathlib import Path

import pytest

from tlcluster.dataset.sources import open_source
from tlcluster.errors import UserError
from tlcluster.paths import expanded
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.open import open_store
from tlcluster.training.weights import find_weights

NOBODY = "~no-such-account/x"


def test_a_tilde_is_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/x") == tmp_path / "x"
    assert expanded(Path("~/x")) == tmp_path / "x"
    assert expanded("a/~/x") == Path("a/~/x")


@pytest.mark.parametrize(
    "use",
    [
        open_store,
        lambda path: find_weights(["vgg16"], [path]),
        lambda path: NodeCache(Path(path)),
        lambda path: open_source(path, Path("scratch"), Path("downloads")).__enter__(),
    ],
    ids=["store", "weights", "cache", "source"],
)
def test_the_home_of_nobody_is_refused_wherever_a_path_is_given(use: object) -> None:
    with pytest.raises(UserError, match=rf"^{NOBODY}: there is no such account; give the path"):
        use(NOBODY)  # type: ignore[operator]
