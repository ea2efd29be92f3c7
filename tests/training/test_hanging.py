"""Two real workers of which one hangs: where both of them stand, seen by another process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_tasks import small_task

from tlcluster.dataset.ingest import ingest
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.orchestration.hang import explanation
from tlcluster.records import RankRecord
from tlcluster.storage.open import open_store

# The decisions are tested with fakes.
pytestmark = [pytest.mark.drill, pytest.mark.cluster]

HOWS = ("stopped", "else")


@pytest.fixture(scope="module")
def stand(
    small_cinic: Path,
    tmp_path_factory: pytest.TempPathFactory,
    run_wave: Callable[[list[Any]], list[list[Any]]],
) -> dict[str, list[RankRecord]]:
    """How the second worker hangs after the first epoch → where both stand, by rank."""
    folder = tmp_path_factory.mktemp("hanging")
    store = open_store(str(folder / "store"), create=True)
    ingest(str(small_cinic), store, rows_per_shard=50, processes=1)
    recipe = {"global_batch": 50, "epochs": 3, "patience": 99}
    experiment = Experiment(**{**EXPERIMENTS["frozen"].model_dump(), **recipe})
    wave: list[Any] = []
    for how in HOWS:
        pages = folder / f"pages-{how}"
        pages.mkdir()
        task = small_task(experiment, store, folder, run=str(folder / f"run-{how}"))
        job = {
            "task": {**task._asdict(), "experiment": experiment.model_dump()},
            **dict.fromkeys(("weights", "stop_at", "die_at", "outage")),
            "hang": {"how": how, "pages": str(pages)},
        }
        wave += [[job, job], [{"watch": str(pages)}]]
    answers = run_wave(wave)
    assert answers[0] == answers[2] == [None, None]
    return {
        how: [RankRecord(**one) for one in answer[0]["ranks"]]
        for how, answer in zip(HOWS, answers[1::2], strict=True)
    }


EXCHANGE = "steps 1 to 4 of epoch 2"


@pytest.mark.parametrize("how", HOWS)
def test_a_worker_that_waits_in_tensorflow_for_one_that_hangs_says_so(
    how: str, stand: dict[str, list[RankRecord]]
) -> None:
    waits = stand[how][0]
    assert (waits.process, waits.doing, waits.exchange, waits.inside) == (
        "sleeping",
        EXCHANGE,
        EXCHANGE,
        True,
    )
    assert any(frame.endswith(" _train") for frame in waits.stack)
    assert waits.stack[-1].startswith("tensorflow/")
    assert waits.other_stacks == ()


@pytest.mark.parametrize("how", HOWS)
def test_of_the_worker_that_hangs_the_last_exchange_is_known(
    how: str, stand: dict[str, list[RankRecord]]
) -> None:
    hangs = stand[how][1]
    assert hangs.doing == hangs.exchange == "report of epoch 1"
    assert hangs.exchanges == (stand[how][0].exchanges or 0) - 1
    assert (hangs.stack == ()) == (how == "stopped")


def test_the_hang_of_real_workers_is_explained_by_rank_and_host(
    stand: dict[str, list[RankRecord]],
) -> None:
    host, pid = stand["stopped"][1].host, stand["stopped"][1].pid
    waits = f"rank 0 on {host} waits in the {EXCHANGE}"
    assert explanation(stand["stopped"]) == (
        f"rank 1 on {host} (process {pid}) is stopped by a signal in the report of epoch 1; {waits}"
    )
    elsewhere = explanation(stand["else"])
    assert elsewhere.startswith(f"{waits} for rank 1 on {host}, in the report of epoch 1 for ")
    assert elsewhere.endswith(")")
