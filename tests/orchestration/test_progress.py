"""What a person sees of a run: a live table, or one line per epoch."""

import io

import pytest
from rich.console import Console

from tlcluster.orchestration.board import Board, Seen, Since
from tlcluster.orchestration.display import (
    Display,
    Row,
    coarse,
    duration,
    fitting,
    line,
    percent,
    seconds_left,
    table,
)
from tlcluster.training.progress import Phase, Progress, epochs_finished, now_and_then

UNDER_WAY = {
    "finetuned": Row(
        "Model 4",
        "running",
        Progress(2, 6, 20, 40, 38.4, 0.4125, 0.4125, Phase.TRAINING),
        began=100.0,
    ),
    "regularized": Row(
        "Model 3",
        "running",
        Progress(12, 12, 40, 40, 1234.5, 0.5, 0.525, Phase.VALIDATING),
        began=130.0,
        resumed=6,
    ),
    "augmented": Row("Model 2", "running", began=155.0),
    "frozen": Row(
        "Model 1",
        "running",
        Progress(9, 12, 0, 40, 5345.6, 0.47, 0.49, Phase.TESTING),
        began=100.0,
    ),
}
ENDED = {
    "finetuned": Row(
        "Model 4",
        "failed",
        Progress(1, 6, 8, 40, 38.4, None, None, Phase.TRAINING),
        note="a worker died [/oops] [[node]]",
        began=100.0,
        ended=130.0,
    ),
    "regularized": Row(
        "Model 3",
        "interrupted",
        Progress(3, 12, 8, 40, 300.0, 0.5, 0.525, Phase.TRAINING),
        began=100.0,
        ended=141.4,
    ),
    "augmented": Row("Model 2", "queued"),
    "frozen": Row("Model 1", "finished", note="earlier"),
}


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(rows: dict[str, Row]) -> str:
    console = Console(file=io.StringIO(), record=True, width=120)
    console.print(table("first, quick profile", rows, now=160.0))
    return "".join(line.rstrip() + "\n" for line in console.export_text().splitlines())


UNDER_WAY_SHOWN = """\
first, quick profile
┏━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━┓
┃ experiment          ┃ state      ┃       epoch ┃ val. accuracy ┃    best ┃ images/s ┃ elapsed ┃   left ┃
┡━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━┩
│ finetuned Model 4   │ training   │   2/6  50 % │       41.25 % │ 41.25 % │       38 │    1:00 │ ≤ 3:00 │
│ regularized Model 3 │ validating │ 12/12 100 % │       50.00 % │ 52.50 % │    1,234 │    30 s │  ≤ 0 s │
│ augmented Model 2   │ starting   │             │               │         │          │     5 s │        │
│ frozen Model 1      │ testing    │        9/12 │       47.00 % │ 49.00 % │    5,346 │    1:00 │        │
└─────────────────────┴────────────┴─────────────┴───────────────┴─────────┴──────────┴─────────┴────────┘
"""  # noqa: E501

ENDED_SHOWN = """\
first, quick profile
┏━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━┳━━━━━━┓
┃ experiment          ┃ state                            ┃ epoch ┃ val. accuracy ┃    best ┃ images/s ┃ elapsed ┃ left ┃
┡━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━╇━━━━━━┩
│ finetuned Model 4   │ failed a worker died [/oops]     │   1/6 │               │         │       38 │    30 s │      │
│                     │ [[node]]                         │       │               │         │          │         │      │
│ regularized Model 3 │ interrupted                      │  3/12 │       50.00 % │ 52.50 % │      300 │    41 s │      │
│ augmented Model 2   │ queued                           │       │               │         │          │         │      │
│ frozen Model 1      │ finished earlier                 │       │               │         │          │         │      │
└─────────────────────┴──────────────────────────────────┴───────┴───────────────┴─────────┴──────────┴─────────┴──────┘
"""  # noqa: E501


def test_a_phase_is_posted_at_once_and_then_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    posted = []

    def post(progress: Progress) -> bool:
        posted.append((progress.phase, progress.step))
        return True

    progress = now_and_then(post)
    at = UNDER_WAY["finetuned"].progress
    assert at
    answers = []
    for step in range(8):
        phase = Phase.VALIDATING if step == 5 else Phase.TRAINING
        answers.append(progress(at._replace(step=step, phase=phase)))
        now += 0.04
    assert posted == [("training", 0), ("training", 3), ("validating", 5), ("training", 6)]
    assert answers == [True, False, False, True, False, True, True, False]


def test_the_table_shows_state_numbers_and_time_of_every_experiment() -> None:
    assert shown(UNDER_WAY) == UNDER_WAY_SHOWN


def test_the_table_shows_why_an_experiment_ended_with_its_numbers_as_they_were() -> None:
    assert shown(ENDED) == ENDED_SHOWN


def test_the_table_shows_the_time_of_workers_once_there_is_some() -> None:
    assert "worker-h" not in shown(UNDER_WAY)
    rows = {name: row._replace(worker_seconds=5400.0) for name, row in ENDED.items()}
    rows["augmented"] = rows["augmented"]._replace(worker_seconds=0.0)
    text = shown(rows)
    assert "worker-h" in text
    assert text.count("1.50") == 3
    assert "cost" not in text
    priced = {name: row._replace(money="3.00 EUR") for name, row in rows.items()}
    assert shown(priced).count("3.00") == 4
    assert line("finetuned", rows["finetuned"]) == (
        "finetuned    failed  1.50 worker-hours  a worker died [/oops] [[node]]"
    )


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("augmented", UNDER_WAY["augmented"], "augmented    running"),
        (
            "finetuned",
            UNDER_WAY["finetuned"],
            "finetuned    running  epoch 1/6  val. accuracy 41.25 %  best 41.25 %  38 images/s",
        ),
        (
            "frozen",
            UNDER_WAY["frozen"],
            "frozen       running  epoch 9/12  val. accuracy 47.00 %  best 49.00 %  5,346 images/s",
        ),
        ("finetuned", ENDED["finetuned"], "finetuned    failed  a worker died [/oops] [[node]]"),
        ("augmented", ENDED["augmented"], "augmented    queued"),
        ("frozen", ENDED["frozen"], "frozen       finished  earlier"),
    ],
)
def test_without_a_terminal_an_experiment_is_one_line(name: str, row: Row, said: str) -> None:
    assert line(name, row) == said


def test_of_more_replicates_than_fit_those_that_run_are_shown() -> None:
    rows = {
        **{f"done/seeds/{n}": Row("Model 1", "finished") for n in range(3)},
        "wrong": Row("Model 2", "failed", note="a worker died"),
        "now": Row("Model 3", "running"),
        **{f"later/seeds/{n}": Row("Model 1", "queued") for n in range(3)},
    }
    assert list(fitting(rows, 4)) == ["wrong", "now", "later/seeds/0"]
    assert fitting(rows, 8) == fitting(rows, None) == rows
    console = Console(file=io.StringIO(), record=True, width=120)
    console.print(table("first", rows, now=0.0, most=4))
    assert "and 3 finished, 2 queued" in console.export_text()
    ended = {name: Row("Model 1", "finished") for name in rows}
    assert fitting(ended, 4) == ended


def at(epoch: int, step: int, phase: Phase = Phase.TRAINING) -> Row:
    accuracy = (epoch - 1) / 10 if epoch > 1 else None
    progress = Progress(epoch, 3, step, 40, 100.0, accuracy, accuracy, phase)
    return Row("Model 1", "running", progress)


EVERY_EPOCH = """\
frozen       queued
frozen       running
frozen       running  epoch 1/3  val. accuracy 10.00 %  best 10.00 %  100 images/s
frozen       running  epoch 2/3  val. accuracy 20.00 %  best 20.00 %  100 images/s
frozen       running  epoch 3/3  val. accuracy 30.00 %  best 30.00 %  100 images/s
frozen       finished  epoch 3/3  val. accuracy 30.00 %  best 30.00 %  100 images/s
"""


def test_without_a_terminal_every_epoch_and_every_change_is_said_once() -> None:
    console = Console(file=io.StringIO(), record=True, width=40)
    seen = (
        Row("Model 1", "queued"),
        Row("Model 1", "running"),
        at(1, 8),
        at(1, 40, Phase.VALIDATING),
        at(2, 0),
        at(2, 8),
        at(2, 40, Phase.VALIDATING),
        at(3, 40, Phase.VALIDATING),
        at(3, 0, Phase.TESTING)._replace(
            progress=Progress(3, 3, 0, 40, 100.0, 0.3, 0.3, Phase.TESTING)
        ),
        Row("Model 1", "finished", Progress(3, 3, 0, 40, 100.0, 0.3, 0.3, Phase.TESTING)),
    )
    with Display(console, "first") as display:
        for row in seen:
            display.show({"frozen": row})
            display.show({"frozen": row})
    assert console.export_text() == EVERY_EPOCH


def test_without_a_terminal_an_epoch_that_passed_unseen_is_said_too() -> None:
    console = Console(file=io.StringIO(), record=True, width=40)
    second, third = at(2, 40).progress, at(3, 8).progress
    assert second is not None
    with Display(console, "first") as display:
        display.show({"frozen": Row("Model 1", "running", third, passed=(second,))})
        display.show({"frozen": Row("Model 1", "running", third)})
    assert (
        console.export_text()
        == """\
frozen       running  epoch 1/3  val. accuracy 10.00 %  best 10.00 %  100 images/s
frozen       running  epoch 2/3  val. accuracy 20.00 %  best 20.00 %  100 images/s
"""
    )


def test_an_accuracy_of_zero_is_said_too() -> None:
    console = Console(file=io.StringIO(), record=True, width=40)
    with Display(console, "first") as display:
        display.show(
            {"frozen": Row("", "running", Progress(2, 3, 8, 40, 1.0, 0.0, 0.0, Phase.TRAINING))}
        )
    assert console.export_text() == (
        "frozen       running  epoch 1/3  val. accuracy 0.00 %  best 0.00 %  1 images/s\n"
    )


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=Terminal(), record=True, width=40)
    with Display(console, "first") as display:
        display.show({"frozen": at(2, 0)})
        assert console.export_text() == (
            "frozen       running  epoch 1/3  val. accuracy 10.00 %  best 10.00 %  100 images/s\n"
        )


def test_text_of_others_cannot_draw_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    row = Row("\x1b[2J[red]", "failed", note="died \x1b]0;title\x07 [/oops]")
    for file in (io.StringIO(), Terminal()):
        console = Console(file=file, record=True, width=200)
        with Display(console, "[/first]") as display:
            display.show({"frozen": row}, Since(0.0, "s3://b answered \x9b2J\u202e [/c]"))
        text = console.export_text()
        assert r"died \x1b]0;title\x07 [/oops]" in text
        assert r"s3://b answered \x9b2J\u202e [/c]" in text


def test_on_a_terminal_the_last_state_of_the_table_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=Terminal(), record=True, width=120)
    with Display(console, "first, quick profile") as display:
        display.show(UNDER_WAY)
        display.show(ENDED)
    last = console.export_text().split("first, quick profile")[-1]
    assert "failed a worker died [/oops]" in last
    assert "finished earlier" in last


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (12.4, "12 s"),
        (59.6, "1:00"),
        (185, "3:05"),
        (3599.4, "59:59"),
        (3599.6, "1:00:00"),
        (3723, "1:02:03"),
        (100 * 3600, "100:00:00"),
    ],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("epoch", "step", "elapsed", "resumed", "seconds"),
    [
        (1, 20, 10.0, 0, 50.0),
        (2, 0, 10.0, 0, 20.0),
        (3, 40, 30.0, 0, 0.0),
        # What an earlier sitting did took none of this one's time.
        (3, 0, 10.0, 1, 10.0),
        # Too early to say.
        (1, 0, 10.0, 0, None),
        (1, 1, 10.0, 0, None),
        (2, 1, 10.0, 1, None),
    ],
)
def test_the_time_left_is_that_of_the_epochs_left_at_the_present_pace(
    epoch: int, step: int, elapsed: float, resumed: int, seconds: float | None
) -> None:
    progress = Progress(epoch, 3, step, 40, 1.0, None, None, Phase.TRAINING)
    assert seconds_left(progress, elapsed, resumed) == seconds


def test_an_epoch_is_finished_when_it_was_validated() -> None:
    assert epochs_finished(None) == 0
    assert epochs_finished(at(1, 40, Phase.VALIDATING).progress) == 0
    assert epochs_finished(at(2, 0).progress) == 1
    assert epochs_finished(at(3, 0, Phase.TESTING).progress) == 3


def test_a_percentage_has_two_digits_and_none_is_nothing() -> None:
    assert (percent(0.41254), percent(1.0), percent(None)) == ("41.25 %", "100.00 %", "")


STEP = Progress(1, 3, 8, 40, 1.0, None, None, Phase.TRAINING)


def test_the_board_hands_progress_on_and_answers_whether_to_stop() -> None:
    board = Board()
    assert board.post("frozen", STEP) is False
    assert board.read() == {"frozen": Seen((STEP,))}
    assert board.read() == {"frozen": Seen((STEP,))}
    board.stop("frozen")
    assert board.post("frozen", STEP) is True
    assert board.post("augmented", STEP) is False


def test_the_board_forgets_no_epoch_however_seldom_it_is_read() -> None:
    board = Board()
    posts = [at(*where).progress for where in ((1, 8), (1, 40), (2, 8), (2, 40), (3, 8))]
    for post in posts:
        assert post is not None
        board.post("frozen", post)
    assert board.read()["frozen"].posts == (posts[1], posts[3], posts[4])
    assert board.read()["frozen"].posts == (posts[4],)


def test_the_board_keeps_the_first_error_that_no_attempt_can_avoid() -> None:
    board = Board()
    assert board.failure("frozen") is None
    board.fail("frozen", "the shard is damaged")
    board.fail("frozen", "the other workers are gone")
    assert board.failure("frozen") == "the shard is damaged"


def test_a_new_attempt_forgets_the_workers_and_the_progress_of_the_last() -> None:
    board = Board()
    board.hello("frozen", "worker 0")
    board.hello("frozen", "worker 1")
    board.controlled("frozen", "controller")
    board.reserved("frozen", "placement group")
    board.post("frozen", STEP)
    board.away("frozen", 0, 5.0, "no route")
    assert board.workers("frozen") == ["worker 0", "worker 1"]
    assert board.reservations("frozen") == ["placement group"]
    assert board.everyone() == ["controller", "worker 0", "worker 1"]
    assert board.read()["frozen"].workers == 2
    board.begin("frozen")
    assert board.workers("frozen") == board.everyone() == board.reservations("frozen") == []
    assert board.read() == {}


def test_storage_is_away_for_an_experiment_as_long_as_for_one_of_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    board = Board()
    board.away("frozen", 0, 0.0, "connection refused")
    board.away("frozen", 1, 30.0, "timed out")
    assert board.read()["frozen"].away == Since(70.0, "timed out")
    board.away("frozen", 1, 0.0, "")
    assert board.read()["frozen"].away == Since(100.0, "connection refused")
    board.away("frozen", 0, 0.0, "")
    assert board.read()["frozen"].away is None


AWAY_SHOWN = """\
first, quick profile
┏━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━┓
┃ experiment        ┃ state                  ┃     epoch ┃ val. accuracy ┃    best ┃ images/s ┃ elapsed ┃   left ┃
┡━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━┩
│ finetuned Model 4 │ storage away for 2 min │ 2/6  50 % │       41.25 % │ 41.25 % │       38 │    1:00 │ ≤ 3:00 │
└───────────────────┴────────────────────────┴───────────┴───────────────┴─────────┴──────────┴─────────┴────────┘
storage away for 45 s: s3://b [/c]: timed out
"""  # noqa: E501


def test_the_table_shows_for_how_long_storage_is_away_for_workers_and_driver() -> None:
    row = UNDER_WAY["finetuned"]._replace(away=Since(40.0, "no route"))
    assert row.phase == Phase.WAITING
    console = Console(file=io.StringIO(), record=True, width=120)
    away = Since(115.0, "s3://b [/c]: timed out")
    console.print(table("first, quick profile", {"finetuned": row}, now=160.0, away=away))
    text = "".join(line.rstrip() + "\n" for line in console.export_text().splitlines())
    assert text == AWAY_SHOWN


def test_without_a_terminal_it_is_said_once_that_storage_is_away_and_that_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    console = Console(file=io.StringIO(), record=True, width=40)
    waits = at(1, 8)._replace(away=Since(90.0, "no route"))
    with Display(console, "first") as display:
        display.show({"frozen": at(1, 8)})
        display.show({"frozen": waits})
        display.show({"frozen": waits}, Since(95.0, "timed out"))
        now = 150.0
        display.show({"frozen": at(1, 8)}, Since(95.0, "timed out"))
        now = 215.0
        display.show({"frozen": at(1, 8)})
        display.show({"frozen": at(1, 8)})
    assert console.export_text() == (
        "frozen       running\nstorage away: no route\nstorage is back after 2 min\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.1, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (89, "1 min"),
        (91, "2 min"),
        (5400, "90 min"),
    ],
)
def test_how_long_storage_is_away_is_said_in_round_numbers(seconds: float, text: str) -> None:
    assert coarse(seconds) == text
