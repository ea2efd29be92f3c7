"""A weights file from the web, or a quick answer that it cannot be had."""

import http.client
import queue
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

from tlcluster.dataset.download import download
from tlcluster.errors import StoreUnavailable, UserError

ANSWER_SECONDS = 5.0
"""A server that has not answered by then is taken to be out of reach."""


class NotFetched(Exception):
    """The file cannot be had from the web now. The message says why."""


def fetch(url: str) -> bytes:
    """The content of the file at an address.

    Without a route to the server this takes `ANSWER_SECONDS` at most; a server
    that is busy is asked again, see `tlcluster.dataset.download`.

    Raises:
        NotFetched: the server does not answer, or not with the file.
    """
    _await_answer(url)
    try:
        with tempfile.TemporaryDirectory(prefix="tlcluster-weights-") as folder:
            return download(url, Path(folder)).read_bytes()
    except (UserError, StoreUnavailable, OSError) as error:
        raise NotFetched(str(error).partition(";")[0]) from None


def _await_answer(url: str) -> None:
    """Return when the server answers, with whatever status.

    Nothing but a thread limits the time that name resolution takes.

    Raises:
        NotFetched: it does not, or not in time.
    """
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):  # noqa: S310
                answers.put(None)
        except urllib.error.HTTPError as error:
            error.close()
            answers.put(None)
        except (OSError, http.client.HTTPException) as error:
            answers.put(str(getattr(error, "reason", error)) or type(error).__name__)

    threading.Thread(target=ask, daemon=True).start()
    try:
        failure = answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        failure = f"no answer within {ANSWER_SECONDS:g} seconds"
    if failure is not None:
        raise NotFetched(failure)
