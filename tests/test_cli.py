"""Command lines: flags from a settings model, errors as one line, exit statuses."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, model_validator

from tlcluster.cli import nearest, parse
from tlcluster.errors import UserError

ROOT = Path(__file__).parent.parent


class Paint(BaseModel):
    """A command line with a flag of every kind."""

    wall: str = Field(description="which wall", json_schema_extra={"argument": True})
    colour: str = Field("white", description="its colour", json_schema_extra={"metavar": "NAME"})
    coats: int = Field(2, description="how many", gt=0)
    thickness: float | None = Field(None, description="in mm, at most 50 % more", gt=0)
    dry_run: bool = Field(False, description="paint nothing")
    primer: bool = Field(True, description="paint without primer")
    tool: tuple[str, ...] = Field((), description="a tool; may be repeated")
    by_day: str = Field(description="when")

    @model_validator(mode="after")
    def _possible(self) -> "Paint":
        if self.colour == "black" and self.coats == 1:
            raise ValueError("black needs two coats")
        return self


def paint(*arguments: str) -> Paint:
    return parse(Paint, "jobs/paint.py", "Paint a wall.", [*arguments, "--by-day", "Monday"])


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        paint(*arguments)
    return str(caught.value)


def test_a_field_is_a_flag_and_a_flag_that_is_left_out_has_the_default() -> None:
    assert paint("north") == Paint(wall="north", by_day="Monday")


def test_an_argument_may_take_several_values() -> None:
    class Rooms(BaseModel):
        room: tuple[str, ...] = Field(description="which", json_schema_extra={"argument": True})

    assert parse(Rooms, "paint", "Paint.", ["hall", "attic"]).room == ("hall", "attic")
    with pytest.raises(UserError, match="the following arguments are required: ROOM"):
        parse(Rooms, "paint", "Paint.", [])


def test_every_kind_of_flag_is_read() -> None:
    given = "north --colour red --coats 3 --thickness 0.5 --dry-run --no-primer --tool a --tool b"
    assert paint(*given.split()) == Paint(
        wall="north",
        colour="red",
        coats=3,
        thickness=0.5,
        dry_run=True,
        primer=False,
        tool=("a", "b"),
        by_day="Monday",
    )


def test_the_help_names_every_flag_with_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit) as caught:
        paint("--help")
    assert caught.value.code == 0
    assert (
        capsys.readouterr().out
        == """\
usage: jobs/paint.py [-h] [--colour NAME] [--coats N] [--thickness X]
                     [--dry-run] [--no-primer] [--tool TEXT] --by-day TEXT
                     WALL

Paint a wall.

positional arguments:
  WALL           which wall

options:
  -h, --help     show this help message and exit
  --colour NAME  its colour [white]
  --coats N      how many [2]
  --thickness X  in mm, at most 50 % more
  --dry-run      paint nothing
  --no-primer    paint without primer
  --tool TEXT    a tool; may be repeated
  --by-day TEXT  when
"""
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["north", "--coats", "0"],
            "--coats 0: input should be greater than 0",
        ),
        (
            ["north", "--coats", "many"],
            "--coats many: input should be a valid integer, unable to parse string as an integer",
        ),
        (
            ["north", "--colour", "black", "--coats", "1"],
            "black needs two coats",
        ),
        (
            ["north", "--color", "red"],
            "unrecognized arguments: --color red; see jobs/paint.py --help",
        ),
        (
            ["north", "--col", "red"],
            "unrecognized arguments: --col red; see jobs/paint.py --help",
        ),
        (
            [],
            "the following arguments are required: WALL; see jobs/paint.py --help",
        ),
        (
            ["north", "--coats"],
            "argument --coats: expected one argument; see jobs/paint.py --help",
        ),
    ],
)
def test_what_is_not_allowed_is_one_line(arguments: Sequence[str], message: str) -> None:
    assert refusal(*arguments) == message


def test_a_negative_number_is_a_value_not_a_flag() -> None:
    assert refusal("north", "--coats", "-1") == "--coats -1: input should be greater than 0"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("frozn", "did you mean frozen? allowed: frozen, augmented, finetuned"),
        ("tune", "did you mean finetuned? allowed: frozen, augmented, finetuned"),
        ("frozentuned", "did you mean frozen or finetuned? allowed: frozen, augmented, finetuned"),
        ("xyz", "allowed: frozen, augmented, finetuned"),
    ],
)
def test_a_wrong_word_gets_the_nearest_allowed_ones_first(word: str, hint: str) -> None:
    assert nearest(word, ("frozen", "augmented", "finetuned")) == hint


COMMAND = """
import os, signal, sys
from tlcluster.cli import command
from tlcluster.errors import StoreUnavailable, UserError

def main(argv):
    if argv[0] == "wrong":
        raise UserError("first\\n  second")
    if argv[0] == "away":
        raise StoreUnavailable("first\\n  second")
    if argv[0].startswith("SIG"):
        try:
            os.kill(os.getpid(), signal.Signals[argv[0]])
            signal.pause()
        finally:
            print("tidied up")
    return int(argv[0])

command(main)
"""


@pytest.mark.parametrize(
    ("argument", "status", "printed", "said"),
    [
        ("0", 0, "", ""),
        ("1", 1, "", ""),
        ("143", 143, "", ""),
        ("wrong", 2, "", "error: first second\n"),
        ("away", 1, "", "error: first second\n"),
        ("SIGINT", 130, "tidied up\n", ""),
        ("SIGTERM", 143, "tidied up\n", ""),
        ("SIGHUP", 129, "tidied up\n", ""),
    ],
)
def test_a_command_ends_with_a_status_and_at_most_one_line(
    argument: str, status: int, printed: str, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, argument],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, printed, said)


def test_a_working_directory_that_is_gone_is_one_line() -> None:
    done = subprocess.run(
        ["sh", "-c", 'd=$(mktemp -d); cd "$d"; rmdir "$d"; exec "$@"', "sh",
         sys.executable, "-c", COMMAND, "0"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2,
        "error: the working directory: no such file or directory; change to a folder that exists\n",
    )


def test_an_argument_that_no_record_can_hold_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "report.py", "--run", b"runs/\xff"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: runs/\\udcff: the argument is not UTF-8, so no record can hold it; rename the "
        "file or folder, or set LC_ALL=C.UTF-8\n"
    )


def test_a_command_under_nohup_goes_on_when_the_terminal_is_closed() -> None:
    code = COMMAND.replace("signal.pause()", "print('goes on')")
    done = subprocess.run(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", code, "SIGHUP"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "goes on\ntidied up\n"


def test_a_reader_that_goes_away_ends_a_command_as_sigpipe_does() -> None:
    code = COMMAND.replace('if argv[0] == "wrong":', 'print("a line")\n    if argv[0] == "wrong":')
    pipeline = '("$@"; echo status $? >&2) | true'
    done = subprocess.run(
        ["sh", "-c", f"sleep 0.1; {pipeline}", "sh", sys.executable, "-c", code, "0"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == "status 141\n"
