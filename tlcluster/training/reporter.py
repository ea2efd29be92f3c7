"""What the first worker says to the driver, and the stop request that it hears in return."""

import threading
from collections.abc import Callable

from tlcluster.training.progress import Progress


class Reporter:
    """Posts progress and remembers a stop request. Safe for many threads."""

    def __init__(self, post: Callable[[Progress], bool] | None) -> None:
        """
        Args:
            post: tells the driver and returns True if it asks to stop. None: this worker
                is not the first, says nothing and hears nothing.
        """
        self._post = post
        self._last: Progress | None = None
        # Readers may repeat the last progress; it must not overtake a newer one.
        self._lock = threading.Lock()
        self._stop = False

    @property
    def stop_requested(self) -> bool:
        return self._stop

    def show(self, progress: Progress) -> None:
        """Post the progress."""
        with self._lock:
            self._last = progress
            self._repeat()

    def asked_to_stop(self) -> bool:
        """Ask again, with the last progress. True once the driver has asked to stop.

        Before the first progress the driver expects no answer: False.
        """
        with self._lock:
            self._repeat()
        return self._stop

    def _repeat(self) -> None:
        if self._post and self._last:
            # A stop request that is heard at the end of an epoch holds for the next one.
            self._stop |= self._post(self._last)
