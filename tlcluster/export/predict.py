"""Pictures of any size → their classes, with a model that was exported.

    from tlcluster.export.predict import Classifier
    classifier = Classifier("exported/model.onnx")
    print([(answer.path, answer.label, answer.probability) for answer in classifier(["photo.jpg"])])

Neither Ray nor, for ONNX and LiteRT files, TensorFlow is needed.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlcluster.errors import UserError
from tlcluster.export.opened import open_model
from tlcluster.export.pictures import found, read_images

BATCH_PIXELS = 2**22
"""Pixels of the images at once: 4,096 of 32×32, 83 of 224×224."""


class Answer(NamedTuple):
    """What a model says of one picture."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    """One for each class."""

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Classes with their probabilities, the most probable first, of equals the first."""
        pairs = zip(self.classes, self.probabilities, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.ranked[0][0]

    @property
    def probability(self) -> float:
        """Of the most probable class."""
        return self.ranked[0][1]


class Classifier:
    """An exported model, opened."""

    def __init__(self, model: str | Path) -> None:
        """Raises UserError; see `tlcluster.export.opened.open_model`."""
        self.model = model
        self.facts, self._run = open_model(model)

    def __call__(self, paths: Iterable[str | Path]) -> list[Answer]:
        """Classify pictures.

        Args:
            paths: PNG and JPEG files of any size, and folders that hold some.

        Raises:
            UserError: a path is missing, holds no picture, or a picture cannot be read; or the
                model gives something else than its classes' probabilities.
        """
        return list(self._answers(found(paths)))

    def _answers(self, paths: Sequence[Path]) -> Iterator[Answer]:
        height, width, _ = self.facts.image_shape
        images = read_images(paths, (width, height))
        names = iter(paths)
        while batch := list(itertools.islice(images, max(1, BATCH_PIXELS // (height * width)))):
            answers = np.asarray(self._run(np.stack(batch)))
            if answers.shape != (len(batch), len(self.facts.classes)):
                raise UserError(
                    f"{self.model}: gives {answers.shape} for {len(batch)} images and "
                    f"{len(self.facts.classes)} classes; export the experiment again"
                )
            for row, path in zip(answers.tolist(), names, strict=False):
                yield Answer(path, self.facts.classes, tuple(row))
