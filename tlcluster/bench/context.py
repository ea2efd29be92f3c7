"""What every part of a benchmark is given."""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tlcluster.bench.datasets import Images


class Context(NamedTuple):
    """The data and the sizes of a benchmark."""

    all_images: Images
    """The whole data set."""
    some_images: Images
    """A part of it, for what takes long and is the same for every image."""
    work: Path
    """Folder for all that is made."""
    peers: Path
    """The interpreter of the peers' environment."""
    weights: str | None
    """VGG16's weights, as `--weights` has it."""
    repeats: int
    quick: bool
    """Only to see that it works: the shortest of everything."""
    console: Console
    """For what is going on meanwhile, on standard error."""

    @property
    def timed_epochs(self) -> int:
        """Of programs whose epochs take seconds, after the first one, which traces the graph.

        One alone is up to a tenth off.
        """
        return 1 if self.quick else 3 * self.repeats

    def tell(self, line: str) -> None:
        """Say what is going on; a part takes minutes."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
