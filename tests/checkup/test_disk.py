"""Disk and shared memory of a node."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.checkup import disk
from tlcluster.checkup.disk import Memory, Space, disk_finding, full_disk, memory_fault, space
from tlcluster.errors import UserError
from tlcluster.storage.cache import NodeCache

NOTHING = Memory(0, 0, 0)
SHARDS = [("a" * 64, 600_000), ("b" * 64, 700_000)]


def held(cache: NodeCache, sha256: str, size: int) -> None:
    cache.objects.mkdir(parents=True, exist_ok=True)
    (cache.objects / sha256).write_bytes(bytes(size))


def test_a_cache_grows_by_what_it_does_not_hold_and_never_above_its_limit(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache", 2_000_000)
    assert cache.growth(SHARDS) == 1_300_000
    held(cache, "a" * 64, 600_000)
    assert cache.growth(SHARDS) == 700_000
    held(cache, "c" * 64, 900_000)
    assert cache.growth(SHARDS) == 500_000  # the rest takes the place of what was used least
    assert NodeCache(tmp_path / "cache", 1_000_000).growth(SHARDS) == 0
    (cache.objects / "notes.txt").write_bytes(bytes(500_000))
    assert cache.growth(SHARDS) == 500_000


@given(st.lists(st.integers(0, 1000)), st.integers(1, 2000))
def test_growth_is_never_more_than_what_is_missing_or_the_limit(
    sizes: list[int], limit: int
) -> None:
    objects = [(f"{number:064x}", size) for number, size in enumerate(sizes)]
    growth = NodeCache(Path("/nowhere"), limit).growth(objects)
    assert growth == min(sum(sizes), limit)


def test_a_full_disk_is_a_fault_before_the_first_download(small_disk: Path) -> None:
    cache = NodeCache(small_disk / "cache")
    wrong = full_disk(cache, SHARDS)
    assert wrong == (
        f"cache folder {small_disk}/cache: 1.05 MB are free, and the shards take 1.3 MB; free some "
        "space or name another folder with --cache"
    )
    found = disk_finding(cache, SHARDS, NOTHING)
    assert (found.check, found.fault) == ("disk", wrong)
    assert found.found.startswith("cache 1.05 MB, needs 1.3 MB")
    assert list(small_disk.iterdir()) == []


def test_a_disk_with_room_is_none(tmp_path: Path) -> None:
    assert full_disk(NodeCache(tmp_path), SHARDS) == ""
    assert disk_finding(NodeCache(tmp_path / "new" / "cache"), SHARDS, NOTHING).fault == ""
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_read_in_place_and_needs_no_cache() -> None:
    found = disk_finding(NodeCache(Path("/proc/nowhere")), [], NOTHING)
    assert found.found.startswith("no cache needed")
    assert found.fault == ""


def test_a_cache_folder_that_cannot_be_written_is_a_fault() -> None:
    with pytest.raises(UserError, match=r"^cache folder /proc/nowhere: .*with --cache$"):
        disk_finding(NodeCache(Path("/proc/nowhere")), [("a" * 64, 0)], NOTHING)


def test_shared_memory_must_hold_the_weights_and_what_nccl_needs(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SHARED_MEMORY", small_disk)
    wrong = memory_fault(Memory(object_store=900_000, weights=2_000_000, nccl=0), space(small_disk))
    assert wrong == (
        f"{small_disk}: 1.05 MB are free, and a run takes 2 MB; remove what others left there, or "
        "give the node or container more (docker run --shm-size 2g, in Kubernetes an emptyDir in "
        "memory)"
    )
    assert disk_finding(NodeCache(), [], Memory(900_000, 2_000_000, 0)).fault == wrong


def test_an_object_store_that_ray_keeps_elsewhere_needs_no_shared_memory() -> None:
    docker = Space(total=64_000_000, free=64_000_000)
    assert memory_fault(Memory(object_store=2**30, weights=58_000_000_000, nccl=0), docker) == ""
    assert memory_fault(Memory(object_store=2**30, weights=0, nccl=2**28), docker) != ""
