"""Money: amounts with their currency, and what the time of workers or GPUs costs."""

import contextlib
import math
import re
from typing import NamedTuple

from tlcluster.records import PriceRecord

_MONEY = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?([A-Z]{3})", re.ASCII)


class Money(NamedTuple):
    """An amount of money."""

    amount: float
    currency: str
    """Three letters, for example EUR; see ISO 4217."""


def parse_money(text: str) -> Money:
    """`2.50USD` → an amount above 0.

    Raises:
        ValueError: it is none.
    """
    found = _MONEY.fullmatch(text)
    if not found or not float(found[1]):
        raise ValueError(
            "give an amount above 0 and the three letters of its currency, such as 2.50USD"
        )
    return Money(float(found[1]), found[2])


def parse_budget(text: str) -> float | Money:
    """`8` → worker-hours; `30USD` → money.

    Raises:
        ValueError: it is neither, or not above 0.
    """
    with contextlib.suppress(ValueError):
        return parse_money(text)
    with contextlib.suppress(ValueError):
        if 0 < (hours := float(text)) < math.inf:
            return hours
    raise ValueError("give worker-hours above 0, such as 8, or an amount of money, such as 30USD")


def price_record(price: Money | None, gpus: float) -> PriceRecord | None:
    """What an hour costs.

    Args:
        price: that was given; None if none was.
        gpus: that a worker reserves. Without any, it is the hour of a worker that has the price.
    """
    if price is None:
        return None
    return PriceRecord(
        amount=price.amount, currency=price.currency, per="GPU-hour" if gpus else "worker-hour"
    )


def money(price: PriceRecord, worker_seconds: float, gpu_seconds: float | None) -> float | None:
    """What so much time costs; None if the time that has the price is not known."""
    seconds = gpu_seconds if price.per == "GPU-hour" else worker_seconds
    return None if seconds is None else price.amount * seconds / 3600
