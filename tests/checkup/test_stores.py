"""Stores as a worker uses them: what is read, what is written, and that nothing is left."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlcluster.checkup.stores import (
    NO_LOCKS,
    OUTPUT_BYTES,
    UNCONDITIONAL,
    data_finding,
    exercise,
    marked,
    new_mark,
    output_finding,
    smallest_shard,
)
from tlcluster.dataset.shards import read_index
from tlcluster.errors import UserError
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import CorruptObject, Store

# --- data --------------------------------------------------------------------------------------


def test_the_index_and_a_shard_are_read(sample_store: Store) -> None:
    index, sha256 = read_index(sample_store)
    shard = smallest_shard(index)
    found = data_finding(sample_store.url, sha256, shard)
    assert found.found.startswith("read, 7")
    assert (found.check, found.fault) == ("data", "")


def test_a_node_that_sees_another_data_set_is_found_out(sample_store: Store) -> None:
    index, _ = read_index(sample_store)
    with pytest.raises(UserError, match="holds another data set here than at the driver"):
        data_finding(sample_store.url, "0" * 64, smallest_shard(index))


def test_a_damaged_shard_is_found_out(sample_store: Store) -> None:
    index, sha256 = read_index(sample_store)
    shard = smallest_shard(index).model_copy(update={"sha256": "0" * 64})
    with pytest.raises(CorruptObject):
        data_finding(sample_store.url, sha256, shard)


def test_a_store_that_this_node_does_not_have_is_named(sample_store: Store, tmp_path: Path) -> None:
    index, sha256 = read_index(sample_store)
    with pytest.raises(UserError, match="no such directory"):
        data_finding(str(tmp_path / "elsewhere"), sha256, smallest_shard(index))


# --- output ------------------------------------------------------------------------------------


@pytest.fixture(params=["directory", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return open_store(str(tmp_path / "runs"), create=True)
    return open_store(request.getfixturevalue("s3_url"))


def test_a_check_leaves_nothing_in_the_output_and_touches_nothing_there(output: Store) -> None:
    output.put("first/manifest.json", b"{}")
    mark = new_mark()
    with marked(output, mark, 2):
        for rank in range(2):
            found = output_finding(output.url, mark, rank)
            assert (found.fault, found.note) == ("", "")
            kind = "conditional put" if "://" in output.url else "hard links"
            assert kind in found.found
            assert f"no {kind}" not in found.found
    assert [item.key for item in output.list()] == ["first/manifest.json"]
    if "://" not in output.url:
        assert os.listdir(output.url) == ["first"]  # noqa: PTH208


def test_what_a_worker_left_that_was_stopped_is_removed(output: Store) -> None:
    mark = new_mark()
    with marked(output, mark, 2):
        output.put(mark.of(1), b"left")
    assert output.list() == []


def test_a_directory_that_is_not_shared_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="what the driver writes there is not seen here; name a"):
        output_finding(str(tmp_path / "mine"), new_mark(), 0)
    with pytest.raises(UserError, match="what the driver writes there is not seen here; name a"):
        output_finding(str(tmp_path / "missing"), new_mark(), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_output_directory_that_is_nearly_full_is_a_fault(small_disk: Path) -> None:
    mark = new_mark()
    with marked(DirectoryStore(small_disk), mark, 1):
        found = output_finding(str(small_disk), mark, 0)
    assert found.fault.startswith(
        f"--output {small_disk}: 1.04 MB are free, and a run takes 268 MB"
    )
    assert OUTPUT_BYTES == 2**28


def test_a_disk_that_is_full_is_a_fault(small_disk: Path) -> None:
    store = DirectoryStore(small_disk)
    with (small_disk / "full").open("wb") as file, contextlib.suppress(OSError):
        file.write(bytes(2**21))
    with pytest.raises(UserError, match="the disk is full; free some space"):
        exercise(store, "a")


class _FakeWithoutConditions(DirectoryStore):
    """Replaces objects whatever it is asked, as some S3 services do."""

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        self.put(key, data)
        return True


class _FakeForgetful(DirectoryStore):
    """Does not show what was just written."""

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:  # noqa: ARG002
        return True


def test_a_service_without_conditional_put_works_with_a_note(tmp_path: Path) -> None:
    assert exercise(_FakeWithoutConditions(tmp_path), "a") == UNCONDITIONAL
    assert exercise(DirectoryStore(tmp_path), "a") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_does_not_show_what_was_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read right after it was written"):
        exercise(_FakeForgetful(tmp_path), "a")


class _FakeForEver(DirectoryStore):
    """Does not let anybody delete, as S3 does without s3:DeleteObject."""

    def delete(self, key: str) -> None:
        raise UserError(f"{key}: may not be deleted")


def test_an_account_that_may_not_delete_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a: may not be deleted"):
        exercise(_FakeForEver(tmp_path), "a")


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake of a file system whose locks reach no other process."""

    @contextlib.contextmanager
    def unlocked(path: Path, *, wait: bool) -> Iterator[bool]:  # noqa: ARG001
        yield False

    monkeypatch.setattr("tlcluster.checkup.stores.process_lock", unlocked)


@pytest.mark.usefixtures("no_locks")
def test_a_file_system_without_locks_works_with_a_note(tmp_path: Path) -> None:
    mark = new_mark()
    with marked(DirectoryStore(tmp_path), mark, 1):
        found = output_finding(str(tmp_path), mark, 0)
    assert "no locks" in found.found
    assert (found.fault, found.note) == ("", f"--output {tmp_path}: {NO_LOCKS}")
    assert list(tmp_path.iterdir()) == []
