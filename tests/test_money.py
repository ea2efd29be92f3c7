"""Amounts of money, and what time costs."""

import pytest

from tlcluster.money import Money, money, parse_money, price_record


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2.50USD", Money(2.5, "USD")), ("3 EUR", Money(3.0, "EUR")), ("0.000001JPY", (1e-6, "JPY"))],
)
def test_an_amount_has_its_currency(text: str, amount: Money) -> None:
    assert parse_money(text) == amount


@pytest.mark.parametrize(
    "text", ["", "2.50", "USD", "$2", "2.5usd", "0USD", "-1USD", "1e3USD", "1,5EUR", "infUSD"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an amount above 0 and the three letters of its currency"):
        parse_money(text)


def test_the_price_is_that_of_gpus_or_without_them_of_workers() -> None:
    assert price_record(None, 1.0) is None
    on_gpus, on_cpus = (price_record(Money(2.5, "USD"), gpus) for gpus in (0.25, 0.0))
    assert on_gpus is not None
    assert on_cpus is not None
    assert (on_gpus.per, on_cpus.per) == ("GPU-hour", "worker-hour")
    assert money(on_gpus, 7200.0, 1800.0) == 1.25
    assert money(on_gpus, 7200.0, None) is None
    assert money(on_cpus, 7200.0, None) == 5.0
