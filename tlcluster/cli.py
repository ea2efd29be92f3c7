"""Command lines: flags derived from a settings model, errors as one line, exit statuses."""

import argparse
import difflib
import errno
import os
import signal
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tlcluster.errors import StoreUnavailable, UserError, reason
from tlcluster.terminal import Stream, one_line, replace_standard_streams

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
    True}` is a positional argument. A field with `{"flag": "--json"}` has that
    flag; pydantic allows no field of this name. A tuple of strings is a flag
    that may be repeated, or an argument that takes one or more values. A bool
    is a flag without a value.

    Raises:
        UserError: a flag is unknown or a value is not allowed.
    """
    for argument in argv:
        if not argument.isascii():
            _check_text(argument)
    parser = _Parser(prog=prog, description=about, allow_abbrev=False)
    for name, field in model.model_fields.items():
        _add(parser, name, field)
    given = {k: v for k, v in vars(parser.parse_args(argv)).items() if v is not None}
    try:
        return model(**given)
    except ValidationError as error:
        raise UserError(_complaint(model, error)) from None


def _check_text(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{argument}: the argument is not {sys.getfilesystemencoding().upper()}, so no record "
            "can hold it; rename the file or folder, or set LC_ALL=C.UTF-8"
        ) from None


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
    repeat = typing.get_origin(field.annotation) is tuple
    if extra.get("argument"):
        parser.add_argument(name, metavar=flag, help=text, nargs="+" if repeat else None)
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


def _complaint(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    flag = _shown(name, model.model_fields[name])
    # A switch has no value that anybody typed.
    given = "" if isinstance(first["input"], bool) else f" {first['input']}"
    return f"{flag}{given}: {message[0].lower()}{message[1:]}"


def nearest(word: str, allowed: Iterable[str]) -> str:
    """The allowed words, for an error message: the nearest first, then all."""
    words = list(allowed)
    close = difflib.get_close_matches(word, words, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}allowed: {', '.join(words)}"


def command(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run `main` on the arguments of this process and exit with its status.

    An error is one line on standard error, or on standard output if standard error cannot be
    written. If standard output cannot be written, the command still runs to its end, and the
    status is not 0; but a reader that goes away ends it, as SIGTERM does.
    """
    out, err = replace_standard_streams()
    # SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that nothing is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(HUNG_UP))
    # Output may fail in another thread; the handler of a signal runs in the main one.
    out.on_broken_pipe = lambda: os.kill(os.getpid(), signal.SIGTERM)
    try:
        _check_folder()
        status = main(sys.argv[1:])
    except UserError as error:
        _say(err, f"error: {one_line(str(error))}")
        status = USAGE
    except StoreUnavailable as error:
        _say(err, f"error: {one_line(str(error))}")
        status = FAILED
    except KeyboardInterrupt:
        status = INTERRUPTED
    except SystemExit as end:
        # argparse after --help, or the handler above.
        status = end.code if isinstance(end.code, int) else OK
    sys.exit(_checked(status, out, err))


def _check_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(
            f"the working directory: {reason(error)}; change to a folder that exists"
        ) from None


def _say(err: Stream, line: str) -> None:
    print(line, file=sys.stderr, flush=True)
    if err.failure:
        print(line)


def _checked(status: int, out: Stream, err: Stream) -> int:
    """The exit status of a command whose output may have failed."""
    out.on_broken_pipe = None
    sys.stdout.flush()
    if out.failure is None:
        return status
    if out.failure.errno == errno.EPIPE:
        return BROKEN_PIPE
    _say(err, f"error: standard output: {reason(out.failure)}; the output is incomplete")
    return status or FAILED
