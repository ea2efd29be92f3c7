"""How the report writes numbers, times and names. Pure functions."""

import datetime
import math
import unicodedata
from collections.abc import Iterable
from typing import Any


def percent(fraction: float, digits: int) -> str:
    """`75.28` for 0.7528."""
    return f"{100 * fraction:.{digits}f}"


def points(difference: float, digits: int) -> str:
    """A difference of two fractions in percentage points, with its sign unless it is 0."""
    rounded = round(100 * difference, digits)
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"


def number(value: float | None, digits: int = 0) -> str:
    """With thousands separators; empty for None and for what is not finite."""
    return "" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def p_value(p: float) -> str:
    """Three decimals; very small ones only as such."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """In the two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def time_unit(longest: float) -> tuple[str, float]:
    """The unit for times of up to `longest` seconds, and its length in seconds."""
    if longest < 120:
        return "s", 1.0
    return ("min", 60.0) if longest < 2 * 3600 else ("h", 3600.0)


def gib(size: int) -> str:
    """Bytes as GiB."""
    return f"{size / 2**30:,.0f}"


def moment(iso: str) -> str:
    """`2026-04-12T07:15:00Z` → `2026-04-12 07:15 UTC`; other text is returned unchanged."""
    try:
        when = datetime.datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{when:%Y-%m-%d %H:%M} UTC"


def listing(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    every = list(words)
    return " and ".join(filter(None, [", ".join(every[:-1]), *every[-1:]]))


def plain(value: Any) -> str:
    """The value of a setting; empty for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def columns(text: str) -> int:
    """Width of a text in the columns of a terminal: 2 for a CJK character, 0 for an accent."""
    return sum(_columns(character) for character in text)


def shorten(text: str, width: int) -> str:
    """One line of at most `width` columns, without control characters."""
    printable = "".join(
        character if character.isprintable() or character in _JOINERS else " "
        # A text can have millions of characters; no more than these can be kept.
        for character in text[: 4 * width + 100]
    )
    if columns(printable) <= width:
        return printable
    used, kept = 1, []
    for character in printable:
        used += _columns(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept) + "…"


_JOINERS = "\u200c\u200d"
"""Zero width (non-)joiners: several scripts cannot be written without them."""


def _columns(character: str) -> int:
    if unicodedata.combining(character) or character in _JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
