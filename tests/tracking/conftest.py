"""What the tests of tracking share."""

from pathlib import Path

import pytest
from tracked_run import half_trained

from tlcluster.storage.directory import DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """See `half_trained`."""
    return half_trained(tmp_path)
