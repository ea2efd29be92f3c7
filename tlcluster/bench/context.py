"""The input of every part of a benchmark."""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tlcluster.bench.datasets import Images


class Context(NamedTuple):
    """The data and the sizes of a benchmark."""

    all_images: Images
    """The whole data set."""
    some_images: Images
    """A part of it, for measurements that take long and do the same for every image."""
    work: Path
    """Folder for all files of the benchmark."""
    peers: Path
    """The interpreter of the peers' environment."""
    weights: str | None
    """VGG16's weights, as in `--weights`."""
    repeats: int
    quick: bool
    """The shortest of everything, to check that it works."""
    console: Console
    """For progress, on standard error."""

    @property
    def timed_epochs(self) -> int:
        """Epochs to time in programs whose epochs take seconds.

        The first epoch, which traces the graph, does not count. A single one varies by a tenth.
        """
        return 1 if self.quick else 3 * self.repeats

    def say(self, line: str) -> None:
        """Print progress; a part takes minutes."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
