"""Test images that are in another split too: what an audit of the data set means for a run.

A run has a copy of the audit, so that its report needs no data set. The manifest has the sha256 of
that copy; an `audit.json` that it does not name is not read.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tlcluster.errors import UserError
from tlcluster.leakage import AUDIT, TEST, Audit, Duplicate
from tlcluster.paths import typed
from tlcluster.records import RunManifest
from tlcluster.report.formats import shorten
from tlcluster.report.metrics import Predictions
from tlcluster.report.reading import DamagedRecord, damaged, read_record
from tlcluster.report.seeds.accuracy import Accuracy, accuracy
from tlcluster.report.seeds.moments import Right
from tlcluster.storage.protocol import Store


class Leakage(NamedTuple):
    """What an audit says about the test images of a run."""

    audit: Audit
    leaked: npt.NDArray[np.bool_]
    """(images,) whether a test image is in another split too."""

    @property
    def duplicates(self) -> tuple[Duplicate, ...]:
        """Those that are."""
        return self.audit.duplicates.get(TEST, ())


class Apart(NamedTuple):
    """The accuracy of an experiment on two parts of the test images, over all its seeds."""

    without: Accuracy | None
    """On those that no other split has; None if there are none."""
    only: Accuracy | None
    """On those that another split has."""


def apart(right: Right, leakage: Leakage) -> Apart:
    """The accuracy without the duplicates and on them alone, from (seeds, images)."""
    parts = (right[:, ~leakage.leaked], right[:, leakage.leaked])
    return Apart(*(accuracy(part) if part.size else None for part in parts))


def read_leakage(
    store: Store, prefix: str, manifest: RunManifest, tested: Predictions | None
) -> Leakage | None:
    """What the run's audit says about the images that it was tested on.

    Args:
        store: holds the run.
        prefix: what the run's keys begin with.
        manifest: of the run.
        tested: predictions of any of its trainings; None if there are none.

    Returns:
        None without an audit, or if nothing was tested.

    Raises:
        DamagedRecord: the audit is damaged, or of other images.
    """
    key = prefix + AUDIT
    if manifest.audit_sha256 is None or tested is None:
        return None
    audit = read_record(Audit, store, key)
    if audit is None:
        return None
    if audit.index_sha256 != manifest.dataset.index_sha256:
        raise damaged(store, key, "it is of another data set than the run")
    found = audit.duplicates.get(TEST, ())
    rows = [one.row for one in found]
    images = len(tested.source)
    if any(row >= images for row in rows) or (
        tested.source[rows].tolist() != [one.source for one in found]
    ):
        raise damaged(store, key, "it names other test images than the predictions")
    leaked = np.zeros(images, np.bool_)
    leaked[rows] = True
    return Leakage(audit, leaked)


def adopted(run: Store, data: Store, manifest: RunManifest) -> RunManifest:
    """Copy the audit of the data set into a run.

    Args:
        run: the run's folder.
        data: has the audit; usually the store of the data set.
        manifest: of the run.

    Returns:
        The manifest, which now names the audit; the caller writes it.

    Raises:
        UserError: there is no audit, or it is damaged or of another data set.
        StoreUnavailable: storage does not answer.
    """
    again = f"make one: {typed('audit')} --store {shorten(manifest.dataset.store, 200)}"
    try:
        audit = read_record(Audit, data, AUDIT)
    except DamagedRecord as error:
        raise UserError(f"{str(error).partition('; restore')[0]}; {again}") from None
    if audit is None:
        raise UserError(f"{data.url} has no {AUDIT}; {again}")
    expected = manifest.dataset.index_sha256
    if audit.index_sha256 != expected:
        raise UserError(
            f"{data.url}/{AUDIT}: is not of the data set of this run: its index has sha256 "
            f"{shorten(audit.index_sha256, 64)}, the run's had {shorten(expected, 64)}; {again}"
        )
    content = audit.to_json()
    run.put(AUDIT, content)
    return manifest.model_copy(update={"audit_sha256": hashlib.sha256(content).hexdigest()})
