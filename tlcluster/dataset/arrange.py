"""The files of a source → the images of each split, checked.

This module works on paths only; `tlcluster.dataset.folder` and `archive` find them.
"""

import hashlib
import itertools
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tlcluster.cinic10 import SPLITS
from tlcluster.dataset.names import LAYOUT, is_litter, problem_of, shown, split_of
from tlcluster.dataset.shards import MAX_CLASSES
from tlcluster.errors import UserError

MAX_IMAGE_BYTES = 10 * 2**20
"""Largest image file. A photograph of 20 megapixels has about this size."""
MAX_FILES = 1_000_000
"""CINIC-10 has 270,000. The list of files is what memory grows with."""

_BLOCK = 2**16


class Found(NamedTuple):
    """A file of a source."""

    path: str
    """Inside the source, with forward slashes. A folder has a slash at its end."""
    offset: int = -1
    length: int = 0
    problem: str = ""
    """Why it cannot be read, if that is known."""


class Image(NamedTuple):
    """One image of a split and the place of its bytes."""

    label: int
    file: str
    """File name as the source has it."""
    folder: str
    """Path of its folder inside the source."""
    offset: int
    """Where its bytes begin in the file `Source.root`; -1 if that is a folder."""
    length: int
    """Number of bytes in that file."""

    @property
    def name(self) -> str:
        """The file name in Unicode's normal form C, the same on every system."""
        return unicodedata.normalize("NFC", self.file)

    @property
    def path(self) -> str:
        """Path inside the source."""
        return f"{self.folder}/{self.file}"


class Source(NamedTuple):
    """All images of a source."""

    name: str
    """For messages."""
    root: Path
    """The folder of the data set, or the file with the bytes of all images."""
    classes: tuple[str, ...]
    """Label → name of the class, sorted."""
    images: dict[str, list[Image]]
    """Split → images, sorted by class and name."""

    def read(self, image: Image) -> bytes:
        """The bytes of an image, at most one more than `MAX_IMAGE_BYTES`."""
        if image.offset >= 0:
            with self.root.open("rb", buffering=0) as file:
                file.seek(image.offset)
                return file.read(image.length)
        with (self.root / image.folder / image.file).open("rb", buffering=0) as file:
            # Asking for the maximum at once would allocate it, which is slow.
            data = file.read(_BLOCK)
            if len(data) == _BLOCK:
                data += file.read(MAX_IMAGE_BYTES + 1 - _BLOCK) or b""
            return data


def limited(source: str, found: Iterable[Found]) -> Iterator[Found]:
    """The same files.

    Raises:
        UserError: there are more than `MAX_FILES`.
    """
    for count, item in enumerate(found):
        if count == MAX_FILES:
            raise UserError(
                f"{source}: there are more than {MAX_FILES:,} files; name a part of the data set"
            )
        yield item


def arrange(
    source: str, root: Path, found: Iterable[Found], valid_fraction: float | None = None
) -> Source:
    """Sort the files of a source into splits and classes.

    One folder around the splits is stepped over. Hidden files, litter of operating
    systems and everything beside the splits are ignored (CINIC-10 has a README and lists
    of its ImageNet images there).

    Args:
        source: name of the source, for messages.
        root: see `Source`.
        found: the files, in any order.
        valid_fraction: take this part of `train` as the validation split.

    Raises:
        UserError: a split or class is missing, a file does not belong there, or the
            validation split is missing and not asked for, or both. Of several
            files with problems, the first in the order of paths is named.
    """
    groups = _grouped(source, found)
    have = {split for split, _ in groups}
    for split in ("train", "test"):
        if split not in have:
            raise UserError(f"{source}: there is no image in {split!r}; {LAYOUT}")
    if "valid" in have and valid_fraction is not None:
        raise UserError(
            f"--valid-fraction {valid_fraction}: {source} has a validation split of its own; "
            "leave the flag out, or move that split out of the data set"
        )
    if "valid" not in have and valid_fraction is None:
        raise UserError(
            f"{source}: there is no image in 'valid', 'val' or 'validation'; give "
            "--valid-fraction 0.1 to take a tenth of 'train' as the validation split"
        )
    classes = _classes(source, groups, have)
    labels = {name: label for label, name in enumerate(classes)}
    images: dict[str, list[Image]] = {split: [] for split in SPLITS}
    for split, class_name in sorted(groups):
        for path, offset, length, _ in groups[split, class_name]:
            folder, _, file = path.rpartition("/")
            image = Image(labels[class_name], file, folder, offset, length)
            images[split].append(image)
    for arranged in images.values():
        arranged.sort(key=lambda image: (image.label, image.name))
        _refuse_twins(source, arranged)
    if valid_fraction is not None:
        images = _with_valid(classes, images, valid_fraction)
    return Source(source, root, classes, images)


def goes_to_valid(class_name: str, name: str, fraction: float) -> bool:
    """Whether `--valid-fraction` takes an image out of `train`.

    Depends on class and file name only, so that an image stays where it is when
    others are added.
    """
    digest = hashlib.sha256(f"{class_name}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _with_valid(
    classes: Sequence[str], images: dict[str, list[Image]], fraction: float
) -> dict[str, list[Image]]:
    parts: tuple[list[Image], list[Image]] = ([], [])
    for image in images["train"]:
        parts[goes_to_valid(classes[image.label], image.name, fraction)].append(image)
    for split, part in zip(("train", "valid"), parts, strict=True):
        present = {image.label for image in part}
        for label, class_name in enumerate(classes):
            if label not in present:
                count = sum(image.label == label for image in images["train"])
                raise UserError(
                    f"--valid-fraction {fraction}: of the {count:,} images of "
                    f"{shown(f'train/{class_name}')}, none would be in {split!r}; give another "
                    "fraction, add images, or make a folder 'valid'"
                )
    return {**images, "train": parts[0], "valid": parts[1]}


def _grouped(source: str, found: Iterable[Found]) -> dict[tuple[str, str], list[Found]]:
    """(split, class) → its files."""
    items = sorted(item for item in found if not is_litter(item.path))
    top = _top(source, [item.path for item in items])
    groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
    folders: dict[tuple[str, ...], str] = {}

    def one_folder(key: tuple[str, ...], folder: str) -> None:
        other = folders.setdefault(key, folder)
        if other != folder:
            raise UserError(
                f"{source}: {shown(top + other)} and {shown(top + folder)} are the same "
                f"{'split' if len(key) == 1 else 'class'}; leave one"
            )

    for item in items:
        split_folder, _, inside = item.path[len(top) :].partition("/")
        split = split_of(split_folder)
        if split is None or not item.path.startswith(top) or not (inside or item.problem):
            continue
        if problem := item.problem or problem_of(unicodedata.normalize("NFC", inside)):
            raise UserError(f"{source}: {shown(item.path)} {problem}")
        class_folder = inside.partition("/")[0]
        class_name = unicodedata.normalize("NFC", class_folder)
        one_folder((split,), split_folder)
        one_folder((split, class_name), f"{split_folder}/{class_folder}")
        groups[split, class_name].append(item)
    return groups


def _classes(
    source: str, groups: Mapping[tuple[str, str], object], have: set[str]
) -> tuple[str, ...]:
    splits_of: dict[str, set[str]] = defaultdict(set)
    for split, class_name in groups:
        splits_of[class_name].add(split)
    if not 2 <= len(splits_of) <= MAX_CLASSES:
        raise UserError(
            f"{source}: {len(splits_of):,} classes; a data set has 2 to {MAX_CLASSES:,}, each "
            "a folder in every split"
        )
    for class_name in sorted(splits_of):
        for split in SPLITS:
            if split in have - splits_of[class_name]:
                there = min(splits_of[class_name], key=SPLITS.index)
                raise UserError(
                    f"{source}: there is no image in {shown(f'{split}/{class_name}')}, but "
                    f"{shown(f'{there}/{class_name}')} has some; every split needs images of every "
                    "class"
                )
    return tuple(sorted(splits_of))


def _refuse_twins(source: str, images: Sequence[Image]) -> None:
    for image, following in itertools.pairwise(images):
        if image.label == following.label and image.name == following.name:
            raise UserError(f"{source}: {shown(following.path)} is there twice; leave one")


def _top(source: str, paths: list[str]) -> str:
    """The folder around the splits with its slash, or nothing."""
    parts = [path.split("/", 2) for path in paths]
    if any(len(part) > 1 and split_of(part[0]) for part in parts):
        return ""
    tops = sorted({part[0] for part in parts if len(part) > 2 and split_of(part[1])})
    if not tops:
        there = sorted({part[0] for part in parts if len(part) > 1})[:10]
        raise UserError(
            f"{source}: there is no folder 'train', 'valid' or 'test'; {LAYOUT}; the folders "
            f"there are: {', '.join(map(shown, there)) or 'none'}"
        )
    if len(tops) > 1:
        raise UserError(
            f"{source}: there are several data sets: {', '.join(map(shown, tops[:10]))}; name one "
            "of them"
        )
    return f"{tops[0]}/"
