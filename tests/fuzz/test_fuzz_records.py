"""Runs of strangers: every record that a report reads, and the report that is made of it."""

import functools
import io
import json
import zlib
from pathlib import Path

import fake_run
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangle import json_files, npz_files
from promise import LONG, fuzzed, kept

from tlcluster.leakage import AUDIT, Audit, Method
from tlcluster.records import MANIFEST, PICTURES, PicturesRecord
from tlcluster.report.page import render_page
from tlcluster.report.pictures import gathered_pictures, kept_pictures
from tlcluster.report.runs import read_run
from tlcluster.report.tables import results_json, summary_csv
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.protocol import ObjectMissing

IMAGES = 40

of_reports = fuzzed if LONG else settings(fuzzed, max_examples=8)
"""A report takes half a second."""

PREDICTIONS = "frozen/predictions.npz"
JSON = (
    MANIFEST, AUDIT, PICTURES, "frozen/config.json", "frozen/epochs.jsonl", "frozen/result.json",
)  # fmt: skip

FIGURES = fake_run.blank_figures("frozen")


class Memory(DirectoryStore):
    """A store without a disk."""

    def __init__(self, written: dict[str, bytes]) -> None:
        super().__init__(Path("run"))
        self.written = written

    def put(self, key: str, data: bytes | Path) -> None:
        assert isinstance(data, bytes)
        self.written[key] = data

    def get(self, key: str, _most: int = 0) -> bytes:
        if key not in self.written:
            raise ObjectMissing(key)
        return self.written[key]


@functools.cache
def records() -> dict[str, bytes]:
    """Key → content of a small run without damage, with an audit and pictures."""
    store = Memory({})
    dataset = {
        **fake_run.manifest().dataset.model_dump(), "classes": ("cat", "dog"),
        "splits": {"test": IMAGES},
    }  # fmt: skip
    manifest = fake_run.manifest(experiments=("frozen",), dataset=dataset, audit_sha256="0" * 64)
    fake_run.write_run(store, manifest)
    sources = np.load(io.BytesIO(store.written[PREDICTIONS]))["source"].tolist()
    method = Method(bound=0.2, shift=1, candidates=5, similarity=0.5)
    duplicate = {
        "row": 3, "source": sources[3], "label": 1, "partner_split": "train", "partner_row": 7,
        "partner_source": "x.png", "partner_label": 0, "distance": 0.01, "exact": False,
    }  # fmt: skip
    overlap = {
        "split": "test", "other": "train", "images": IMAGES, "exact": 0, "near": 1,
        "other_class": 1, "by_class": {"dog": 1}, "by_origin": {"cifar": 1},
    }  # fmt: skip
    audit = Audit.model_validate(
        {
            "dataset": manifest.dataset.name, "index_sha256": manifest.dataset.index_sha256,
            "method": method, "overlaps": [overlap], "repeated": {"test": 0},
            "duplicates": {"test": [duplicate]},
        }
    )  # fmt: skip
    store.put(AUDIT, audit.to_json())
    gathered_pictures(store, "", read_run(store), fake_run.look(IMAGES, side=2))
    some = PicturesRecord.model_validate_json(store.written[PICTURES])
    some = some.model_copy(update={"pictures": some.pictures[:3]})
    store.put(PICTURES, some.model_dump_json().encode())
    return store.written


def report(key: str, content: bytes) -> None:
    """Everything that a report says of a run with this record, but the figures."""
    store = Memory({**records(), key: content})

    def read() -> tuple[str, str]:
        run = read_run(store)
        pictures = kept_pictures(store, "", run)
        # The page takes most of the time.
        page = render_page(run, FIGURES, pictures) if zlib.crc32(content) % 8 == 0 else ""
        return page + summary_csv(run), results_json(run)

    said = kept(key.rpartition("/")[2], read)
    if said is not None:
        page, results = said
        page.encode()
        assert "\x1b" not in page
        json.loads(results.encode(), parse_constant=pytest.fail)


@pytest.mark.parametrize("key", JSON)
@of_reports
@given(data=st.data())
def test_a_record(key: str, data: st.DataObject) -> None:
    whole = records()[key]
    if key.endswith(".jsonl"):
        first, *rest = whole.splitlines(keepends=True)
        content = data.draw(json_files(first)) + b"\n" + b"".join(rest)
    else:
        content = data.draw(json_files(whole))
    report(key, content)


@of_reports
@given(data=st.data())
def test_predictions(data: st.DataObject) -> None:
    with np.load(io.BytesIO(records()[PREDICTIONS])) as arrays:
        content = data.draw(npz_files(dict(arrays)))
    report(PREDICTIONS, content)
