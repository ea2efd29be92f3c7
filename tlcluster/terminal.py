"""Standard output and standard error: text that is safe to show, and streams that may fail."""

import errno
import io
import os
import re
import select
import sys
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console

MOST_WORD = 300
MOST_LINE = 2000
"""Characters of a line; longer ones lose their middle."""

_CREDENTIAL = re.compile(r":/{1,2}[^/\s]*@|\?[^\s=?]*=\S*")
"""A user with a password in an address, also in one that `pathlib` has lost a slash of; a query,
where signed addresses have their signature."""


def printable(text: str) -> str:
    """Text that a terminal only shows: control characters escaped, credentials left out.

    An escape sequence in the name of a file, or in the answer of a server, could otherwise rewrite
    the screen or the title of the window.
    """
    hidden = _CREDENTIAL.sub(lambda found: "://…@" if found[0][0] == ":" else "?…", text)
    if hidden.isprintable():
        return hidden
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in hidden
    )


def one_line(text: str) -> str:
    """Printable text on one line of bounded length. It keeps the beginning and the end."""
    line = printable(" ".join(text.split()))
    line = " ".join(_cut(word, MOST_WORD) for word in line.split(" "))
    return _cut(line, MOST_LINE)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def redraws(console: Console) -> bool:
    """True if the console can draw over what it has drawn; a file or a dumb terminal cannot.

    FORCE_COLOR and the like, which CI services set, make Rich take a file for a terminal.
    """
    return console.file.isatty() and not console.is_dumb_terminal


def say(console: Console, line: str) -> None:
    """Print one line as it is: not wrapped, not coloured, without markup."""
    console.print(printable(line), highlight=False, soft_wrap=True, markup=False)


class Stream(io.RawIOBase):
    """An output of this process that never raises: it remembers the first failure instead.

    A long run must not end because a disk is full or nobody reads its output any more.
    """

    def __init__(self, descriptor: int, *, is_open: bool) -> None:
        self.failure: OSError | None = None
        """Why a write failed. What is written later is dropped."""
        self.on_broken_pipe: Callable[[], None] | None = None
        """Called once, if the reader of a pipe has gone away."""
        self._descriptor, self._is_open = descriptor, is_open

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        while self.failure is None:
            try:
                if not self._is_open:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = error
                if error.errno == errno.EPIPE and self.on_broken_pipe:
                    self.on_broken_pipe()
        return memoryview(data).nbytes


def replace_standard_streams() -> tuple[Stream, Stream]:
    """Make `sys.stdout` and `sys.stderr` of streams that never raise, and return the two.

    Characters that their encoding does not have become `?`. A standard stream that was closed is
    opened as the null device; otherwise the next file that is opened would get its number, and
    with it what libraries print.
    """
    is_open = [_ensure_open(descriptor) for descriptor in range(3)]
    out, err = (Stream(number, is_open=is_open[number]) for number in (1, 2))
    sys.stdout = _text(out, sys.stdout, line_buffering=out.isatty())
    sys.stderr = _text(err, sys.stderr, line_buffering=True)
    return out, err


def _ensure_open(descriptor: int) -> bool:
    """True if a descriptor is open; otherwise it becomes the null device."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)
        os.set_inheritable(descriptor, True)
        return False
    return True


def _text(raw: Stream, before: TextIO | None, *, line_buffering: bool) -> TextIO:
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", "utf-8"),
        errors="replace",
        line_buffering=line_buffering,
        write_through=getattr(before, "write_through", False),
    )
