"""Fixtures of the tests of comparisons."""

from pathlib import Path

import pytest
from many_runs import write_all


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs; see `many_runs.write_all`. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    write_all(folder)
    return folder
