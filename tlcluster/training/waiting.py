"""How long training steps waited for their input, by when it came: a pure function."""

from collections.abc import Sequence


def waited(came: Sequence[float], began: float, ended: float) -> float:
    """Seconds of one call of the graph in which its steps waited for their batches.

    Steps and the batches that they take are in one call, where nothing can be timed without slowing
    it down. But it is known when each batch came, and when the call ended. If the steps of a call
    take equally long, then with n steps the last ends when the latest of these is over: from the
    arrival of batch k on, the n − k steps that need it or follow it. That gives the time of a step,
    and what is left of the call is waiting.

    Args:
        came: when each batch of the call could be taken, one for each step, in order.
        began: when the call began.
        ended: when it ended.
    """
    steps = len(came)
    step = min((ended - max(at, began)) / (steps - k) for k, at in enumerate(came))
    return ended - began - steps * max(0.0, step)
