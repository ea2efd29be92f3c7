"""`tables.tex` and `numbers.tex`: tables for a paper, and each number as a macro."""

import re
import unicodedata

from tlcluster.report.formats import shorten
from tlcluster.report.paper import Cell, Number, Paper, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "{}$&#%_"},
    '"': "''",
    "`": "'",
    "’": "'",
    "‘": "'",
    "“": "''",
    "”": "''",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}

_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
"""Combining character → the command of LaTeX."""


def escaped(text: str) -> str:
    """A text as every LaTeX sets it, in ASCII and one line. A character that not every font has
    becomes its number: `[U+5C0F]`."""
    line = " ".join("".join(map(_printable, text)).split())
    set_ = "".join(map(_character, unicodedata.normalize("NFC", line)))
    # Two hyphens would be a dash.
    return re.sub("-(?=-)", "-{}", set_) if "--" in line else set_


def _printable(character: str) -> str:
    return character if character.isprintable() else " "


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character
    letter, *accents = list(unicodedata.normalize("NFD", character))
    if letter.isascii() and len(accents) == 1 and accents[0] in _ACCENTS:
        return f"\\{_ACCENTS[accents[0]]}{{{letter}}}"
    return f"[U+{ord(character):04X}]"


def numbers_tex(of: Paper, run_name: str) -> str:
    r"""A `\newcommand` for each number, so that a text cannot differ from the results."""
    return "".join(
        [
            f"% The numbers of the run {_comment(run_name)}, rounded as in its report.\n",
            *(f"\\newcommand{{\\{one.name}}}{{{_number(one.text)}}}\n" for one in of.numbers),
        ]
    )


def tables_tex(of: Paper, run_name: str) -> str:
    """The tables, whose numbers are the macros of `numbers.tex`. Needs the package booktabs."""
    return "\n".join(
        [
            f"% The tables of the run {_comment(run_name)}. In the preamble:",
            "%   \\usepackage{booktabs}",
            "%   \\input{numbers}",
            "",
            *map(_table, of.tables),
        ]
    )


def _table(table: Table) -> str:
    columns = "l" * table.words + "r" * (len(table.heading) - table.words)
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escaped(table.caption)}}}",
        rf"\label{{tab:tlc-{table.label}}}",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        _row([escaped(shorten(heading, 40)) for heading in table.heading]),
        r"\midrule",
        *(_row([_cell(cell) for cell in row]) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    # A row that begins with `[` would be the argument of the `\\` before it.
    return "{}" + " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    return "".join(
        rf"\{part.name}{{}}" if isinstance(part, Number) else _between(part) for part in cell
    )


def _between(text: str) -> str:
    """The text of a cell; spaces at its ends are kept."""
    left, right = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return left + escaped(text) + right


def _number(text: str) -> str:
    """In math mode if it has a sign."""
    return text if text[0].isdigit() else rf"\ensuremath{{{text.replace(' ', '')}}}"


def _comment(text: str) -> str:
    return escaped(shorten(text, 100))
