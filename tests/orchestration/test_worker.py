"""What a worker does before it trains."""

import socket

import pytest

from tlcluster.checkup.versions import versions
from tlcluster.errors import UserError
from tlcluster.orchestration.worker import refuse_other_versions


def test_a_worker_with_other_versions_than_the_driver_says_so_and_does_not_train() -> None:
    refuse_other_versions(versions())
    with pytest.raises(UserError) as caught:
        refuse_other_versions({**versions(), "tlcluster": "0.0.9"})
    assert str(caught.value).startswith(f"{socket.gethostname()}: tlcluster is ")
    assert ", and 0.0.9 at the driver; install the same versions" in str(caught.value)
