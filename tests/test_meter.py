"""Progress where the output is no terminal: a line now and then, on standard error."""

import sys

import pytest

import tlcluster.meter
from tlcluster.meter import meter


def test_a_line_now_and_then_tells_step_amount_and_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 4.0, 10.0, 10.0, 10.0, 14.0, 20.0, 20.0, 20.0])
    monkeypatch.setattr(tlcluster.meter.time, "monotonic", lambda: next(clock))
    with meter("decoding", 270_000, "images", show=True) as advance:
        for amount in (4000, 6000, 1000, 9000):
            advance(amount)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "decoding: 10,000 of 270,000 images, 1,000/s\ndecoding: 20,000 of 270,000 images, 1,000/s\n"
    )


def test_bytes_are_told_in_units(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 10.0, 10.0])
    monkeypatch.setattr(tlcluster.meter.time, "monotonic", lambda: next(clock))
    with meter("downloading", 687_544_992, "bytes", show=True) as advance:
        advance(50_000_000)
    assert capsys.readouterr().err == "downloading: 50.0 MB of 687.5 MB, 5.0 MB/s\n"


def test_on_a_terminal_there_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with meter("decoding", 10, "images", show=True) as advance:
        advance(10)
    assert "10 of 10 images" in capsys.readouterr().err


def test_on_a_dumb_terminal_there_are_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(tlcluster.meter, "LINE_SECONDS", 0.0)
    with meter("decoding", 10, "images", show=True) as advance:
        advance(5)
        assert capsys.readouterr().err.startswith("decoding: 5 of 10 images")
        advance(5)


def test_it_can_be_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlcluster.meter, "LINE_SECONDS", 0.0)
    with meter("decoding", 10, "images", show=False) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")
