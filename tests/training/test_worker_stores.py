"""The stores of a worker, and the disk that their copies need."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tlcluster.dataset.shards import read_index
from tlcluster.errors import UserError
from tlcluster.storage.protocol import Store
from tlcluster.training.stores import refuse_full_disk, refuse_full_output


def told(url: str, cache: Path) -> tuple[Any, Any]:
    """A task and stores, as far as they matter for the disk."""
    task = SimpleNamespace(cache=str(cache), cache_bytes=2**30)
    return task, SimpleNamespace(images=SimpleNamespace(url=url))


def test_shards_that_do_not_fit_on_the_disk_are_refused_before_the_first_one_comes(
    sample_store: Store, small_disk: Path
) -> None:
    index, _ = read_index(sample_store)
    with pytest.raises(UserError) as caught:
        refuse_full_disk(*told("s3://bucket/cinic10", small_disk), index)
    assert str(caught.value).startswith(
        f"{socket.gethostname()}: cache folder {small_disk}: 1.05 MB are free, and the shards take "
    )
    # A directory is read in place.
    refuse_full_disk(*told("/data/cinic10", small_disk), index)


def test_features_that_do_not_fit_on_the_disk_of_the_output_are_refused(small_disk: Path) -> None:
    output: Any = SimpleNamespace(url=str(small_disk))
    with pytest.raises(UserError) as caught:
        refuse_full_output(output, lambda: 3_000_000)
    assert str(caught.value) == (
        f"{socket.gethostname()}: output {small_disk}: 1.05 MB are free, and features of the base "
        "take 3 MB; free some space, name another --output, or compute them each time with "
        "--no-feature-cache"
    )
    refuse_full_output(output, lambda: 1_000_000)
    bucket: Any = SimpleNamespace(url="s3://bucket/runs")
    refuse_full_output(bucket, lambda: 3_000_000)
