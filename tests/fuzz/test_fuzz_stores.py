"""Stores of strangers: the index, and shards that match the hash in it."""

import functools
import hashlib
import io
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mangle import KINDS, SHAPES, damaged, json_files
from promise import fuzzed, kept

from tlcluster.dataset.labels import sources_and_labels
from tlcluster.dataset.pixels import images_of
from tlcluster.dataset.shards import (
    INDEX_KEY,
    Index,
    ShardInfo,
    check_complete,
    encode,
    read_index,
    row_dtype,
)
from tlcluster.storage.directory import DirectoryStore

SHAPE = (4, 4, 3)
ROWS = 5


@functools.cache
def shard() -> bytes:
    rows = np.zeros(ROWS, row_dtype(8, SHAPE))
    rows["image"] = np.random.default_rng(1).integers(0, 256, rows["image"].shape, np.uint8)
    rows["label"], rows["origin"] = np.arange(ROWS) % 2, np.arange(ROWS) % 3
    rows["source"] = [f"{number}é.png".encode() for number in range(ROWS)]
    return encode(rows)


def index_of(content: bytes) -> Index:
    sha256 = hashlib.sha256(content).hexdigest()
    info = ShardInfo(key="test/0.npy", rows=ROWS, bytes=max(1, len(content)), sha256=sha256)
    return Index(dataset="any", classes=("cat", "dog"), image_shape=SHAPE, splits={"test": (info,)})


@fuzzed
@given(content=json_files(index_of(shard()).to_json()))
def test_an_index(content: bytes, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put(INDEX_KEY, content)

    def read() -> Index:
        index, _ = read_index(store)
        check_complete(store, index)
        return index

    store.put("test/0.npy", shard())
    index = kept("index", read)
    if index is not None:
        assert Index.from_json(index.to_json()) == index
        keys = [info.key for infos in index.splits.values() for info in infos]
        assert not any(".." in key.split("/") or key.startswith("/") for key in keys)


@st.composite
def shards(draw: st.DrawFn) -> bytes:
    """A shard with other bytes, another header, or other rows under the same header."""
    content = shard()
    begin = 10 + int.from_bytes(content[8:10], "little")
    match draw(st.integers(0, 3)):
        case 0:
            return draw(damaged(content))
        case 1:
            return content[:begin] + draw(damaged(content[begin:]))[: len(content) - begin]
        case 2:
            kind, shape = draw(st.sampled_from(KINDS)), draw(st.sampled_from(SHAPES))
            header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
            return content[:8] + len(header).to_bytes(2, "little") + header + content[begin:]
        case _:
            rows = np.frombuffer(content[begin:], row_dtype(8, SHAPE)).copy()
            field = draw(st.sampled_from(("label", "origin", "source")))
            value = draw(st.binary(min_size=8, max_size=8))
            rows[field] = value if field == "source" else value[0] % 4
            if draw(st.booleans()):
                return encode(rows)
            buffer = io.BytesIO()
            np.save(buffer, np.array(rows.tolist(), object), allow_pickle=True)
            return buffer.getvalue()


@fuzzed
@given(content=shards())
def test_a_shard(content: bytes, tmp_path: Path) -> None:
    store, index = DirectoryStore(tmp_path), index_of(content)
    store.put("test/0.npy", content)

    def read() -> int:
        sources, labels = sources_and_labels(store, index, "test")
        images = list(images_of(store, index, "test", range(-1, ROWS + 1)))
        assert len(sources) == len(labels) == len(images) == ROWS
        assert labels.max() < len(index.classes)
        "".join(sources.tolist()).encode()
        return ROWS

    kept("shard", read)
