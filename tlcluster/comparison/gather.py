"""The runs at some places, read and checked: which can be compared, and why others cannot."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tlcluster.comparison.places import Place
from tlcluster.errors import UserError
from tlcluster.report.formats import shorten
from tlcluster.report.runs import Answers, manifest_of, read_answers
from tlcluster.report.trained import Replicate, Run

UNFINISHED = {"running": "is still running", "interrupted": "was interrupted"}
"""Status of a run that has not ended → how this is said."""


class Entry(NamedTuple):
    """A run that has ended, and at least one of whose trainings was tested."""

    label: str
    """The name of the run, with a number if an earlier run has the same name."""
    place: str
    """As the user would type it."""
    run: Run
    answers: Answers
    data: str
    """What it was tested on, in words; equal for runs that can be compared image by image."""


class LeftOut(NamedTuple):
    """A run in a folder that cannot be used."""

    place: str
    why: str
    """One line."""


class Gathered(NamedTuple):
    """All runs that were found."""

    entries: tuple[Entry, ...]
    """In the order of the arguments; those of a folder by the time of their start."""
    left_out: tuple[LeftOut, ...]

    @property
    def groups(self) -> tuple[tuple[Entry, ...], ...]:
        """Runs on the same test images, together."""
        found: dict[str, list[Entry]] = {}
        for one in self.entries:
            found.setdefault(one.data, []).append(one)
        return tuple(map(tuple, found.values()))


def gather(places: Sequence[Place], *, any_images: bool = False) -> Gathered:
    """Read the runs.

    Args:
        places: where they are.
        any_images: whether runs that were named themselves may have other test images than the
            first run. Runs of a folder may.

    Raises:
        UserError: a run that was named itself is damaged, has not ended, was not tested, or has
            other test images; or fewer than two runs are left.
    """
    read: list[tuple[Place, Run, Answers]] = []
    left_out = []
    for place in places:
        try:
            read.append((place, *_read(place)))
        except UserError as error:
            if place.named:
                raise
            why = error.why if isinstance(error, _Unusable) else str(error)
            # Without the run's place, which stands beside it.
            why = why.removeprefix(f"{place.store.url}/{place.prefix}")
            left_out.append(LeftOut(place.shown, shorten(" ".join(why.split()), 300)))
    read.sort(key=lambda one: (one[0].argument, one[1].manifest.started, one[0].shown))
    if len(read) < 2:
        raise UserError(_too_few([place.shown for place, _, _ in read], left_out))
    if not any_images:
        _same_images(read)
    labels = unique(shorten(run.manifest.name, 60) for _, run, _ in read)
    data = _data(read)
    entries = (
        Entry(label, place.shown, run, answers, data[_identity(run, answers)])
        for label, (place, run, answers) in zip(labels, read, strict=True)
    )
    return Gathered(tuple(entries), tuple(left_out))


class _Unusable(UserError):
    """A whole run with which nothing can be compared."""

    def __init__(self, place: Place, why: str, way_out: str) -> None:
        super().__init__(f"{place.shown}: {why}; {way_out}")
        self.why = why


def _read(place: Place) -> tuple[Run, Answers]:
    status = manifest_of(place.store, place.prefix).status
    if status in UNFINISHED:
        finish = (
            "finish it with its own command, or give the folder of runs, where a run that has "
            "not ended is left out"
        )
        raise _Unusable(place, f"the run {UNFINISHED[status]}", finish)
    run, answers = read_answers(place.store, place.prefix)
    if answers is None:
        raise _Unusable(place, "no experiment of the run was tested", "leave this run out")
    return _without_classes(run), answers


def _without_classes(run: Run) -> Run:
    """The run without what it knows of single classes: of a thousand, with many runs, gigabytes."""
    return run._replace(
        experiments=tuple(
            one._replace(replicates=tuple(map(_light, one.replicates))) for one in run.experiments
        )
    )


def _light(one: Replicate) -> Replicate:
    if one.metrics is None:
        return one
    return one._replace(metrics=one.metrics._replace(per_class=(), confusion=()))


def _too_few(used: Sequence[str], left_out: Sequence[LeftOut]) -> str:
    found = f"{used[0]} is the only run" if used else "no run"
    message = f"a comparison needs two runs, and {found} that can be used; name more"
    if not left_out:
        return message
    more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
    return f"{message}; left out: {left_out[0].place} ({left_out[0].why}){more}"


def _identity(run: Run, answers: Answers) -> tuple[str, str]:
    """Equal if two runs were tested on the same images: the same data set, and the same images of
    it in the same order."""
    return run.manifest.dataset.index_sha256, answers.images


def _same_images(read: Sequence[tuple[Place, Run, Answers]]) -> None:
    first, of, seen = read[0]
    for place, run, answers in read[1:]:
        if place.named and _identity(run, answers) != _identity(of, seen):
            same = run.manifest.dataset.index_sha256 == of.manifest.dataset.index_sha256
            what = "on different images" if same else "on different data sets"
            raise UserError(
                f"{first.shown} and {place.shown} were tested {what}, so that they cannot be "
                "compared image by image; leave one out, or show both with --any-images"
            )


def _data(read: Sequence[tuple[Place, Run, Answers]]) -> dict[tuple[str, str], str]:
    """What the runs were tested on → in words, `cinic-10, 9,000 images`."""
    words = {_identity(run, answers): _tested_on(run, answers) for _, run, answers in read}
    return dict(zip(words, unique(words.values()), strict=True))


def _tested_on(run: Run, answers: Answers) -> str:
    images = len(next(iter(answers.right.values()))[0])
    return f"{shorten(run.manifest.dataset.name, 40)}, {images:,} images"


def unique(texts: Iterable[str]) -> list[str]:
    """The texts, each with a number if it or another one before is the same: `a`, `a (2)`."""
    found: dict[str, None] = {}
    for text in texts:
        name, number = text, 1
        while name in found:
            number += 1
            name = f"{text} ({number})"
        found[name] = None
    return list(found)
