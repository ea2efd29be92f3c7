"""A run's records, looked at again and again while it goes on."""

from collections.abc import Mapping
from typing import NamedTuple

from tlcluster.records import (
    CONFIG,
    EPOCHS,
    PAGE,
    PREDICTIONS,
    REPORT,
    RESULT,
    RunManifest,
    replicate_folder,
)
from tlcluster.report.reading import DamagedRecord
from tlcluster.report.runs import manifest_of, read_replicate
from tlcluster.storage.protocol import Store
from tlcluster.tracking.entry import Entry, replicate_entry, whole

Sizes = tuple[int | None, ...]
"""Of the records of a replicate. A record that is written again has most likely another size."""


class _Seen(NamedTuple):
    sizes: Sizes
    entry: Entry


class View:
    """What a tracker should have of a run."""

    def __init__(self, run: Store, keys: frozenset[str] | None) -> None:
        """
        Args:
            run: the run's folder.
            keys: the folders of the replicates to look at, which the caller trains; None: all of
                them, whoever trains them.
        """
        self._run, self._keys = run, keys
        self._seen: dict[str, _Seen] = {}
        self.damaged: dict[str, str] = {}
        """Folder of a replicate → why it cannot be read."""

    def entries(self, *, last: bool) -> tuple[Entry, ...]:
        """The run as a whole, then its replicates that have started.

        Args:
            last: the caller trains no more. What its records call running was interrupted.

        Raises:
            UserError: the manifest is damaged.
            StoreUnavailable: storage does not answer.
        """
        manifest = manifest_of(self._run)
        sizes = {item.key: item.size for item in self._run.list()}
        found = [whole(manifest)]
        for name in manifest.experiments:
            for seed in manifest.seeds_of(name):
                folder = replicate_folder(name, seed, manifest.seed)
                if self._keys is None or folder in self._keys:
                    entry = self._entry(manifest, name, seed, sizes, last)
                    if entry is not None:
                        found.append(entry)
        if last and self._keys is not None:
            # Others may still train the replicates that are not ours.
            alone = self._keys >= set(manifest.folders)
            found = [_interrupted(one) if one.parent or alone else one for one in found]
        return tuple(entry for entry in found if entry.status != "queued")

    def report(self) -> Mapping[str, bytes]:
        """The files of the report, by their names; none if it was not written to its end."""
        keys = [item.key for item in self._run.list(f"{REPORT}/")]
        if PAGE not in keys:
            return {}
        return {key.removeprefix(f"{REPORT}/"): self._run.get(key) for key in keys}

    def _entry(
        self,
        manifest: RunManifest,
        name: str,
        seed: int,
        sizes: Mapping[str, int],
        last: bool,
    ) -> Entry | None:
        folder = replicate_folder(name, seed, manifest.seed)
        records = (CONFIG, EPOCHS, RESULT, PREDICTIONS)
        now = tuple(sizes.get(f"{folder}/{record}") for record in records)
        seen = self._seen.get(folder)
        self.damaged.pop(folder, None)
        if seen is not None and seen.sizes == now and (seen.entry.ended or not last):
            return seen.entry
        if not any(now):
            return None
        try:
            one, _ = read_replicate(self._run, "", manifest, name, seed)
        except DamagedRecord as error:
            self.damaged[folder] = str(error)
            return seen.entry if seen else None
        entry = replicate_entry(manifest, name, one)
        self._seen[folder] = _Seen(now, entry)
        return entry


def _interrupted(entry: Entry) -> Entry:
    if entry.status != "running":
        return entry
    tags = {**entry.tags, "status": "interrupted"}
    return entry._replace(status="interrupted", tags=tags)
