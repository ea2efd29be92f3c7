"""Text is made safe for a terminal in one place, and output that fails never raises."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tlcluster.terminal import MOST_LINE, one_line, printable, redraws

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;title\x07b", r"a\x1b]0;title\x07b"),
        ("\x9b2J", r"\x9b2J"),
        ("name\u202egnp.exe", r"name\u202egnp.exe"),
        ("\udcff", r"\udcff"),
        ("Größe ≤ 3 × 4…", "Größe ≤ 3 × 4…"),
        ("s3://AKIA:SECRET@bucket/x", "s3://…@bucket/x"),
        ("https://u:p@h/x.tar", "https://…@h/x.tar"),
        ("https:/u:p@h/x.tar", "https://…@h/x.tar"),
        ("http://h/a b.tar?X-Amz-Signature=SECRET&x=1 and", "http://h/a b.tar?… and"),
        ("someone@example.org; did you mean this?", "someone@example.org; did you mean this?"),
    ],
)
def test_text_has_no_control_characters_and_no_credentials(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_a_line_is_one_printable_line(text: str) -> None:
    assert printable(text).isprintable()
    assert one_line(text).isprintable()


@pytest.mark.parametrize("text", ["9" * 100_000, "9 " * 100_000, "\x1b" * 100_000])
def test_a_long_text_keeps_its_beginning_and_its_end(text: str) -> None:
    line = one_line(f"--epochs {text}: give a number")
    assert len(line) <= MOST_LINE
    assert line.startswith("--epochs ")
    assert line.endswith(": give a number")


def test_only_a_terminal_that_can_move_its_cursor_is_drawn_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Output(io.StringIO):
        terminal = True

        def isatty(self) -> bool:
            return self.terminal

    for terminal, kind, forced, expected in [
        (True, "xterm", None, True),
        (True, "dumb", None, False),
        (True, "unknown", None, False),
        (False, "xterm", None, False),
        (False, "xterm", "1", False),
        (True, "xterm", "1", True),
        (True, "dumb", "1", False),
    ]:
        monkeypatch.setenv("TERM", kind)
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
            if forced:
                monkeypatch.setenv(name, forced)
        output = Output()
        output.terminal = terminal
        assert redraws(Console(file=output)) is expected, (terminal, kind, forced)


# --- streams -----------------------------------------------------------------------------------

COMMAND = """
import sys, time
from tlcluster.cli import command
from tlcluster.errors import UserError

def main(argv):
    what, *rest = argv
    if what == "wrong":
        raise UserError("wrong")
    if what == "text":
        print("ä ≤ │ \\udcff")
    if what == "much":
        for _ in range(1000):
            print("x" * 1000, flush=True)
    if what == "for ever":
        try:
            while True:
                print("x", flush=True)
                time.sleep(0.01)
        finally:
            print("tidied up", file=sys.stderr)
    return int(rest[0]) if rest else 0

command(main)
"""


def run(redirection: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command above in a shell, with its streams redirected."""
    return subprocess.run(
        [
            *("bash", "-o", "pipefail", "-c", f'"$0" -c "$@" {redirection}'),
            *(sys.executable, COMMAND, *arguments),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


FULL = "error: standard output: no space left on device; the output is incomplete\n"


@pytest.mark.parametrize(
    ("redirection", "arguments", "ended"),
    [
        (">/dev/full", ["much"], (1, "", FULL)),
        (">/dev/full", ["much", "1"], (1, "", FULL)),
        (">/dev/full", ["wrong"], (2, "", "error: wrong\n")),
        (">&-", ["quiet"], (0, "", "")),
        (">&-", ["text"], (1, "", FULL.replace("no space left on device", "bad file descriptor"))),
        ("2>&-", ["wrong"], (2, "error: wrong\n", "")),
        ("2>/dev/full", ["wrong"], (2, "error: wrong\n", "")),
        (">&- 2>&-", ["wrong"], (2, "", "")),
        ("| true", ["much"], (141, "", "")),
        ("| head -n 1", ["for ever"], (141, "x\n", "tidied up\n")),
    ],
)
def test_output_that_cannot_be_written_is_a_line_or_a_status(
    redirection: str, arguments: Sequence[str], ended: tuple[int, str, str]
) -> None:
    done = run(redirection, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == ended


@pytest.mark.parametrize(
    ("encoding", "shown"), [("latin1", "ä ? ? ?"), ("ascii", "? ? ? ?"), ("utf-8", "ä ≤ │ ?")]
)
def test_what_an_encoding_does_not_have_is_replaced(encoding: str, shown: str) -> None:
    done = run(f"| iconv -f {encoding} -t utf-8", "text", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{shown}\n", "")


@pytest.mark.parametrize("help_of", ["run", "run-one", "ingest", "report", "bench"])
def test_the_help_can_be_read_on_every_terminal(help_of: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tlcluster", help_of, "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.match(rb"usage: python -m tlcluster ", done.stdout)
