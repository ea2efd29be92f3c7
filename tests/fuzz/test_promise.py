"""What the fuzz targets watch for is noticed."""

import contextlib
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import promise
import pytest
from mangle import PICKLE
from promise import TALLIES, kept

from tlcluster.errors import UserError


@pytest.fixture(autouse=True)
def _own_tallies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promise, "TALLIES", {})
    monkeypatch.setattr(promise, "SECONDS", 0.3)


def refuse(line: str) -> Callable[[], None]:
    def read() -> None:
        raise UserError(line)

    return read


def swallowed() -> None:
    with contextlib.suppress(Exception):
        pickle.loads(PICKLE)  # noqa: S301


def endless() -> None:
    while True:
        pass


def test_what_is_read_or_refused_in_one_line_keeps_it(tmp_path: Path) -> None:
    assert kept("x", lambda: 7) == 7
    assert kept("x", refuse("a.npz: damaged; restore it")) is None
    kept("x", lambda: (tmp_path / "images").write_bytes(b"x"), folder=tmp_path)
    kept("x", (tmp_path / "images").read_bytes)
    assert (promise.TALLIES["x"].read, promise.TALLIES["x"].refused) == (3, 1)
    assert "x" not in TALLIES


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: pickle.loads(PICKLE), "pickle.find_class"),  # noqa: S301
        (swallowed, "pickle.find_class"),
        (lambda: os.system("true"), "os.system"),  # noqa: S605
        (lambda: subprocess.run(["true"], check=False), "subprocess.Popen"),
        (lambda: Path("pwned").write_bytes(b""), "writes .*pwned"),
        (lambda: Path("pwned").mkdir(), "writes .*pwned"),
        (lambda: Path("pwned").symlink_to("x"), "os.symlink"),
        (endless, "more than 0 s"),
        (lambda: bytes(2**28), "it took 268,4"),
        (refuse(""), "0 characters"),
        (refuse("a\nb"), "a terminal would obey"),
        (refuse("\x1b[2J"), "a terminal would obey"),
        (refuse("x" * 10_000), "10000 characters"),
    ],
)
def test_what_breaks_it_is_noticed(
    read: Callable[[], object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=said):
        kept("x", read)
    assert list(tmp_path.iterdir()) == []


def test_any_other_exception_is_one_too() -> None:
    with pytest.raises(ZeroDivisionError):
        kept("x", lambda: 1 // 0)
