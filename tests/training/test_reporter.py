"""What the first worker tells the driver, and how it hears a stop request."""

from tlcluster.training.progress import Progress
from tlcluster.training.reporter import Reporter
from tlcluster.training.schedule import Schedule
from tlcluster.training.state import TrainingState, progress_of

SCHEDULE = Schedule(0, 1, 5, 50, 1e-3, 4, 9, 3)
NOW = progress_of(TrainingState(), SCHEDULE, "training")


def test_a_stop_request_is_remembered() -> None:
    answers = iter([False, True, False])
    reporter = Reporter(lambda _: next(answers))
    heard = []
    for _ in range(3):
        reporter.show(NOW)
        heard.append(reporter.stop_requested)
    assert heard == [False, True, True]


def test_asking_again_repeats_the_last_progress() -> None:
    posts: list[Progress] = []

    def post(progress: Progress) -> bool:
        posts.append(progress)
        return len(posts) > 2

    reporter = Reporter(post)
    assert not reporter.asked_to_stop()
    assert posts == []
    reporter.show(NOW)
    assert not reporter.asked_to_stop()
    assert reporter.asked_to_stop()
    assert reporter.stop_requested
    assert posts == [NOW] * 3


def test_workers_other_than_the_first_say_nothing() -> None:
    reporter = Reporter(None)
    reporter.show(NOW)
    assert not reporter.asked_to_stop()
