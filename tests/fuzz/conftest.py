"""Says at the end what the fuzz targets were given."""

import pytest
from promise import LONG, TALLIES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not (LONG and TALLIES):
        return
    terminalreporter.section("fuzz")
    terminalreporter.line(
        f"{'target':<20}{'examples':>9}{'read':>8}{'refused':>9}{'reasons':>9}"
        f"{'slowest':>10}{'memory':>10}"
    )
    for target, tally in TALLIES.items():
        terminalreporter.line(
            f"{target:<20}{tally.read + tally.refused:>9,}{tally.read:>8,}{tally.refused:>9,}"
            f"{len(tally.reasons):>9,}{tally.slowest:>8.2f} s{tally.largest / 2**20:>6.1f} MiB"
        )
