"""Command lines: flags derived from a settings model, errors as one line, exit statuses."""

import argparse
import difflib
import os
import signal
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tlcluster.errors import StoreUnavailable, UserError

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130
HUNG_UP = 129
BROKEN_PIPE = 141
TERMINATED = 143

Settings = TypeVar("Settings", bound=BaseModel)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def parse(model: type[Settings], prog: str, about: str, argv: Sequence[str]) -> Settings:
    """Flags and arguments → a validated settings value.

    Every field of `model` is one flag, `run_name` is `--run-name`; its
    description is the help text. A field with `json_schema_extra={"argument":
    True}` is a positional argument, one with `{"flag": "--json"}` goes by that
    name, which a pydantic field cannot have; a tuple of strings is a flag that
    may be repeated, a bool is a flag without a value.

    Raises:
        UserError: a flag is unknown or a value is not allowed.
    """
    parser = _Parser(prog=prog, description=about, allow_abbrev=False)
    for name, field in model.model_fields.items():
        _add(parser, name, field)
    given = {k: v for k, v in vars(parser.parse_args(argv)).items() if v is not None}
    try:
        return model(**given)
    except ValidationError as error:
        raise UserError(_one_line(model, error)) from None


def _extra(field: FieldInfo) -> Mapping[str, object]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _shown(name: str, field: FieldInfo) -> str:
    """What a field is called on the command line: `--run-name`, `EXPERIMENT`."""
    extra = _extra(field)
    if extra.get("argument"):
        return name.upper()
    return str(extra.get("flag", "--" + name.replace("_", "-")))


def _add(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    extra = _extra(field)
    text = (field.description or "").replace("%", "%%")
    flag = _shown(name, field)
    if extra.get("argument"):
        parser.add_argument(name, metavar=flag, help=text)
        return
    if field.annotation is not bool and field.default not in (None, PydanticUndefined, ()):
        text += f" [{field.default}]"
    if field.annotation is bool:
        if field.default is True:
            parser.add_argument(
                "--no-" + flag[2:], dest=name, action="store_false", default=None, help=text
            )
        else:
            parser.add_argument(flag, dest=name, action="store_true", default=None, help=text)
        return
    metavar = str(extra.get("metavar", _kind(field.annotation)))
    repeat = typing.get_origin(field.annotation) is tuple
    parser.add_argument(
        flag,
        dest=name,
        metavar=metavar,
        action="append" if repeat else "store",
        required=field.is_required(),
        help=text,
    )


def _kind(annotation: object) -> str:
    options = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    )
    return {int: "N", float: "X"}.get(options[0], "TEXT")


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    flag = _shown(name, model.model_fields[name])
    return f"{flag} {first['input']}: {message[0].lower()}{message[1:]}"


def nearest(word: str, allowed: Iterable[str]) -> str:
    """How an error message names the allowed words: the nearest first, then all."""
    words = list(allowed)
    close = difflib.get_close_matches(word, words, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}allowed: {', '.join(words)}"


def command(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a job's `main` on the process's arguments and end the process with its status."""
    # SIGTERM and SIGHUP unwind as Ctrl-C does, so that nothing is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(HUNG_UP))
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = USAGE
    except StoreUnavailable as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = FAILED
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output again at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    sys.exit(status)
