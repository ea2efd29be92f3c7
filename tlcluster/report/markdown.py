"""`tables.md`: tables for a paper or a README, in Markdown."""

import re

from tlcluster.report.formats import shorten
from tlcluster.report.paper import Cell, Number, Paper, Table


def tables_md(of: Paper) -> str:
    """The tables, each with its caption above it."""
    return "\n".join(map(_table, of.tables)) or "No experiment has been tested.\n"


def _table(table: Table) -> str:
    rule = [":--"] * table.words + ["--:"] * (len(table.heading) - table.words)
    lines = [
        escaped(table.caption),
        "",
        _row([escaped(shorten(heading, 40)) for heading in table.heading]),
        _row(rule),
        *(_row([_cell(cell) for cell in row]) for row in table.rows),
    ]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return escaped("".join(part.text if isinstance(part, Number) else part for part in cell))


def escaped(text: str) -> str:
    """A text in one line that Markdown does not take for its own characters."""
    printable = "".join(one if one.isprintable() else " " for one in text)
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", " ".join(printable.split()))
