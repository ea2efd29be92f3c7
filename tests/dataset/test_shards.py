"""What the shard and index format promises."""

import contextlib
import gc
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcluster.dataset.shards import (
    INDEX_KEY,
    MAX_ROWS,
    Index,
    ShardInfo,
    check_complete,
    encode,
    index_sha256,
    open_shard,
    read_index,
    row_dtype,
)
from tlcluster.errors import UserError
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.open import open_store

SHA = "0" * 64


def records(n: int, source_bytes: int = 12) -> np.ndarray:
    """n rows of random images whose names tell their number."""
    rows = np.zeros(n, dtype=row_dtype(source_bytes, (32, 32, 3)))
    rows["image"] = np.random.default_rng(n).integers(0, 256, rows["image"].shape, dtype=np.uint8)
    rows["label"] = np.arange(n) % 10
    rows["origin"] = np.arange(n) % 3
    rows["source"] = [f"{i}.png".encode() for i in range(n)]
    return rows


def info(data: bytes, rows: int, key: str = "train/00000.npy") -> ShardInfo:
    sha256 = hashlib.sha256(data).hexdigest()
    return ShardInfo(key=key, rows=rows, bytes=len(data), sha256=sha256)


def make_index(**splits: tuple[ShardInfo, ...]) -> Index:
    return Index(
        dataset="cinic-10", classes=tuple("abcdefghij"), image_shape=(32, 32, 3), splits=splits
    )


def three_shards() -> Index:
    return make_index(
        train=tuple(
            ShardInfo(key=f"train/{i:05d}.npy", rows=rows, bytes=10 * rows, sha256=SHA)
            for i, rows in enumerate((5, 7, 2))
        ),
        test=(ShardInfo(key="test/00000.npy", rows=3, bytes=30, sha256=SHA),),
    )


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    opened = open_store(str(tmp_path / "store"), create=True)
    assert isinstance(opened, DirectoryStore)
    return opened


def refused(data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        Index.from_json(data)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 500
    return message


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(three_shards().to_json()), **changes}).encode()


def with_shard(**changes: Any) -> bytes:
    shard = {"key": "train/00000.npy", "rows": 5, "bytes": 50, "sha256": SHA, **changes}
    return changed(splits={"train": [shard]})


# Shards


def test_a_shard_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = records(50)
    (tmp_path / "shard.npy").write_bytes(data := encode(rows))
    opened = open_shard(tmp_path / "shard.npy", info(data, 50), three_shards())
    assert opened.dtype == rows.dtype
    assert opened.tobytes() == rows.tobytes()
    assert not opened.flags.writeable


def test_numpy_reads_a_shard_without_pickle(tmp_path: Path) -> None:
    rows = records(50)
    (tmp_path / "shard.npy").write_bytes(encode(rows))
    for mode in (None, "r"):
        loaded = np.load(tmp_path / "shard.npy", allow_pickle=False, mmap_mode=mode)
        assert loaded.dtype == rows.dtype
        assert loaded.tobytes() == rows.tobytes()


def test_equal_rows_give_equal_bytes_also_from_a_strided_array() -> None:
    rows = records(50)
    assert encode(rows[::2]) == encode(rows[::2].copy())


def test_the_bytes_of_a_shard_stay_the_same_for_ever() -> None:
    rows = np.zeros(2, dtype=row_dtype(5, (1, 2, 3)))
    rows["image"] = np.arange(12).reshape(2, 1, 2, 3)
    rows["label"], rows["origin"], rows["source"] = [7, 8], [0, 1], [b"a.png", b"b.png"]
    header = (
        b"\x93NUMPY\x01\x00\xb6\x00{'descr': [('image', '|u1', (1, 2, 3)), ('label', '|u1'), "
        b"('origin', '|u1'), ('source', '|S5')], 'fortran_order': False, 'shape': (2,), }"
    )
    first, second = (
        b"\x00\x01\x02\x03\x04\x05\x07\x00a.png",
        b"\x06\x07\x08\x09\x0a\x0b\x08\x01b.png",
    )
    assert encode(rows) == header.ljust(191) + b"\n" + first + second


def test_the_header_may_be_padded_as_another_numpy_pads_it(tmp_path: Path) -> None:
    rows = records(5)
    data = encode(rows)
    begin = len(data) - rows.nbytes
    longer = begin - 10 + 64
    data = data[:8] + longer.to_bytes(2, "little") + data[10:begin] + b" " * 63 + b"\n"
    data += rows.tobytes()
    (tmp_path / "shard.npy").write_bytes(data)
    assert np.load(tmp_path / "shard.npy").tobytes() == rows.tobytes()
    opened = open_shard(tmp_path / "shard.npy", info(data, 5), three_shards())
    assert opened.tobytes() == rows.tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_a_shard_closes_with_its_last_view(tmp_path: Path) -> None:
    path = tmp_path / "shard.npy"
    path.write_bytes(data := encode(records(50)))
    images = open_shard(path, info(data, 50), three_shards())["image"]
    assert str(path) in Path("/proc/self/maps").read_text()
    del images
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()


def _pickled() -> bytes:
    objects = np.array([{"any": "object"}], dtype=object)
    buffer = io.BytesIO()
    np.save(buffer, objects, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "begins with b''"),
        (b"PK\x03\x04" + b"\0" * 100, "begins with"),
        (_pickled(), "begins with"),
        (encode(records(49)), r"not a NumPy file of 50 rows"),
        (encode(records(50))[:-1], "has 154491 bytes, its rows take 154492"),
        (encode(records(50)) + b"\0", "its rows take"),
        (encode(np.zeros(50, row_dtype(9, (32, 32, 1)))), r"images of \(32, 32, 3\)"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "begins with"),
    ],
    ids=["empty", "zip", "pickle", "rows", "cut", "longer", "grey", "parentheses"],
)
def test_a_file_that_is_not_the_shard_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "shard.npy"
    path.write_bytes(data)
    expected = ShardInfo(key="train/00000.npy", rows=50, bytes=max(len(data), 1), sha256=SHA)
    with pytest.raises(UserError, match=why) as caught:
        open_shard(path, expected, three_shards())
    assert str(caught.value).startswith("shard train/00000.npy ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("field", "code"), [("label", 10), ("origin", 3)])
def test_a_code_without_a_meaning_is_refused(tmp_path: Path, field: str, code: int) -> None:
    rows = records(50)
    rows[field][30] = code
    path = tmp_path / "shard.npy"
    path.write_bytes(data := encode(rows))
    message = f"has the {field} {code}, the largest allowed is {code - 1}"
    with pytest.raises(UserError, match=message):
        open_shard(path, info(data, 50), three_shards())


# The index


def test_an_index_comes_back_as_it_was_written() -> None:
    index = three_shards()
    assert Index.from_json(index.to_json()) == index


def test_equal_indexes_give_equal_bytes() -> None:
    index = three_shards()
    other = make_index(**dict(reversed(index.splits.items())))
    assert other.to_json() == index.to_json()
    assert index_sha256(other.to_json()) == index_sha256(index.to_json())


def test_the_bytes_of_an_index_stay_the_same_for_ever() -> None:
    index = Index(
        dataset="cinic-10",
        classes=("a", "b"),
        image_shape=(32, 32, 3),
        splits={"test": (ShardInfo(key="test/00000.npy", rows=3, bytes=30, sha256=SHA),)},
    )
    assert (
        index.to_json().decode()
        == """{
 "classes": [
  "a",
  "b"
 ],
 "dataset": "cinic-10",
 "format": 1,
 "image_shape": [
  32,
  32,
  3
 ],
 "splits": {
  "test": [
   {
    "bytes": 30,
    "key": "test/00000.npy",
    "rows": 3,
    "sha256": "0000000000000000000000000000000000000000000000000000000000000000"
   }
  ]
 }
}
"""
    )


def test_an_index_counts_its_rows() -> None:
    index = three_shards()
    assert index.rows("train") == 14
    assert index.shard_rows("train").tolist() == [5, 7, 2]
    assert index.offsets("train").tolist() == [0, 5, 12, 14]
    assert index.offsets("train").dtype == np.int64


def test_a_split_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UserError, match="no split 'valid'; it has: train, test"):
        three_shards().rows("valid")


@pytest.mark.parametrize(
    "key",
    [
        "train/../../etc/passwd.npy",
        "../train/0.npy",
        "/train/0.npy",
        "train//0.npy",
        "train/./0.npy",
        "train\\0.npy",
        "train/\n.npy",
        "train/\x1b[31m.npy",
        "train/0.npy\n",
        "train/é.npy",
        "train/.hidden.npy",
        "train/0.npz",
        "0.npy",
        "",
    ],
)
def test_an_unsafe_key_is_refused(key: str) -> None:
    assert "is not allowed" in refused(with_shard(key=key))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "invalid JSON"),
        (b"{", "invalid JSON"),
        (b"\xff\xfe", "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b"[]", "object"),
        (b"{}", "dataset: Field required"),
        (changed(extra=1), "extra: Extra inputs are not permitted"),
        (
            changed(format=3),
            "its format is 3, this version of tlcluster reads 1 and 2; use the ver",
        ),
        (changed(format=2), "format 2 does not allow 10 classes"),
        (changed(classes=[str(n) for n in range(257)]), "format 1 does not allow 257 classes"),
        (changed(format=2, classes=[str(n) for n in range(1001)]), "at most 1000 items"),
        (
            changed(classes=["a", "\x1b[31mred"]),
            "'\\\\x1b[31mred' has a name that cannot be printed",
        ),
        (changed(classes=["a", ""]), "has a name that cannot be printed"),
        (changed(classes=["a", "x" * 256]), "has a name that cannot be printed"),
        (changed(classes=[]), "classes"),
        (changed(classes=["a", "a"]), "a class is named twice"),
        (changed(image_shape=[32, 32]), "image_shape"),
        (changed(image_shape=[32, 32, 10**9]), "image_shape"),
        (changed(splits={"train": []}), "split train has no shards"),
        (changed(splits={"../x": []}), "is not allowed"),
        (changed(splits={"\x1b[31m": 1}), "x1b"),
        (with_shard(rows=0), "splits.train.0.rows"),
        (with_shard(rows=-1), "splits.train.0.rows"),
        (with_shard(rows=MAX_ROWS + 1), "splits.train.0.rows"),
        (with_shard(rows="5"), "splits.train.0.rows"),
        (with_shard(rows=10**400), "splits.train.0.rows"),
        (with_shard(bytes=0), "splits.train.0.bytes"),
        (with_shard(sha256="0" * 63), "splits.train.0.sha256"),
        (with_shard(sha256="0" * 64 + "\n"), "splits.train.0.sha256"),
        (with_shard(url="http://elsewhere"), "splits.train.0.url"),
        (with_shard(key="test/00000.npy"), "lies outside train/"),
        (
            changed(splits={"train": [json.loads(with_shard())["splits"]["train"][0]] * 2}),
            "shard train/00000.npy is named twice",
        ),
    ],
)
def test_a_damaged_or_hostile_index_is_refused_in_one_line(data: bytes, why: str) -> None:
    assert why.lower() in refused(data).lower()


@settings(deadline=None)
@given(st.data())
def test_an_index_with_flipped_bytes_is_read_or_refused_never_a_crash(data: st.DataObject) -> None:
    damaged = bytearray(three_shards().to_json())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=3)):
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        Index.from_json(bytes(damaged))


def test_a_store_without_an_index_says_how_to_ingest(store: DirectoryStore) -> None:
    with pytest.raises(UserError) as caught:
        read_index(store)
    assert str(caught.value) == (
        f"{store.url} has no index.json, so no data set was ingested there completely; "
        f"run: python jobs/ingest.py --source PATH --store {store.url}"
    )


def test_the_index_of_a_store_comes_with_the_sha256_of_its_bytes(store: DirectoryStore) -> None:
    data = three_shards().to_json()
    store.put(INDEX_KEY, data)
    assert read_index(store) == (three_shards(), hashlib.sha256(data).hexdigest())


def test_a_damaged_index_is_named_with_its_store(store: DirectoryStore) -> None:
    store.put(INDEX_KEY, b"{}")
    with pytest.raises(UserError, match=f"^{INDEX_KEY} of {store.url} cannot be used: "):
        read_index(store)


def filled(store: DirectoryStore) -> Index:
    index = three_shards()
    for shards in index.splits.values():
        for shard in shards:
            store.put(shard.key, b"x" * shard.bytes)
    return index


def test_a_store_with_every_shard_is_complete(store: DirectoryStore) -> None:
    index = filled(store)
    store.put("train/99999.npy", b"not of the index")
    check_complete(store, index)


def test_the_first_missing_shard_is_named(store: DirectoryStore) -> None:
    index = filled(store)
    store.delete("train/00001.npy")
    store.delete("train/00002.npy")
    with pytest.raises(UserError, match=r"lacks the shard train/00001\.npy; run: python jobs/in"):
        check_complete(store, index)


def test_a_shard_of_another_size_is_named(store: DirectoryStore) -> None:
    index = filled(store)
    store.put("test/00000.npy", b"x" * 29)
    with pytest.raises(
        UserError, match=r"29 bytes of the shard test/00000\.npy, the index says 30"
    ):
        check_complete(store, index)
