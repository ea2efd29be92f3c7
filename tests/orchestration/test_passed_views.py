"""Which views every experiment has passed."""

from hypothesis import given
from hypothesis import strategies as st

from tlcluster.experiments import EXPERIMENTS
from tlcluster.orchestration.passed_views import PassedViews, View, sharing
from tlcluster.orchestration.replicates import Replicate, replicates
from tlcluster.orchestration.state import Limits, Standing, State
from tlcluster.records import Status
from tlcluster.training.feature_key import FeatureKey
from tlcluster.training.progress import Phase, Progress

KEY = FeatureKey("index", "weights", "raw", 1, "vgg16", (32, 32, 3))
OTHER = KEY._replace(preprocess="vgg16")


def state(**epochs: int | Status) -> State:
    """Experiments of 6 epochs: in an epoch, or as they ended."""
    return State(
        tuple(
            Standing(
                name,
                6,
                "running" if isinstance(epoch, int) else epoch,
                progress=Progress(epoch, 6, 0, 1, 0.0, None, None, Phase.TRAINING)
                if isinstance(epoch, int)
                else None,
            )
            for name, epoch in epochs.items()
        ),
        Limits(1, 0, 1.0, None, 1.0),
    )


def test_a_view_is_passed_when_every_experiment_is_in_a_later_epoch() -> None:
    views = PassedViews({KEY: ("a", "b")})
    passed, views = views.passed(state(a=4, b=1))
    assert passed == ()
    passed, views = views.passed(state(a=5, b=3))
    assert passed == (View(KEY, 1), View(KEY, 2))
    passed, views = views.passed(state(a=5, b=4))
    assert passed == (View(KEY, 3),)


def test_an_experiment_that_waits_its_turn_needs_every_view() -> None:
    passed, _ = PassedViews({KEY: ("a", "b")}).passed(state(a=5, b="queued"))
    assert passed == ()


def test_an_experiment_that_ended_needs_none() -> None:
    passed, _ = PassedViews({KEY: ("a", "b")}).passed(state(a="failed", b=3))
    assert passed == (View(KEY, 1), View(KEY, 2))
    passed, _ = PassedViews({KEY: ("a", "b")}).passed(state(a="failed", b="finished"))
    assert [view.number for view in passed] == [1, 2, 3, 4, 5, 6]


def test_views_under_different_keys_do_not_wait_for_each_other() -> None:
    views = PassedViews({KEY: ("a",), OTHER: ("b",)})
    passed, _ = views.passed(state(a=2, b=1))
    assert passed == (View(KEY, 1),)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=12))
def test_each_view_is_passed_once_and_in_order_even_if_an_attempt_begins_again(
    epochs: list[tuple[int, int]],
) -> None:
    views, numbers = PassedViews({KEY: ("a", "b")}), []
    for a, b in epochs:
        passed, views = views.passed(state(a=a, b=b))
        numbers += [view.number for view in passed]
    furthest = max((min(pair) for pair in epochs), default=1)
    assert numbers == list(range(1, furthest))


def test_only_a_frozen_base_with_augmented_images_has_fresh_views() -> None:
    four = replicates(tuple(EXPERIMENTS.values()), [524])
    users = sharing(four, lambda one: KEY if one.key == "augmented" else OTHER)
    assert users == {KEY: ("augmented",), OTHER: ("regularized",)}
    assert sharing(four, lambda _: KEY) == {KEY: ("augmented", "regularized")}


def test_a_view_that_seeds_share_stays_until_the_last_of_them_has_passed_it() -> None:
    two = replicates([EXPERIMENTS["augmented"]], [1, 2])

    def key(one: Replicate) -> FeatureKey:
        return KEY._replace(seed=one.seed)

    assert sharing(two, key) == {KEY: ("augmented",), KEY._replace(seed=2): ("augmented/seeds/2",)}
    views = PassedViews(sharing(two, lambda _: KEY))
    passed, _ = views.passed(state(**{"augmented": "finished", "augmented/seeds/2": "queued"}))
    assert passed == ()
    passed, _ = views.passed(state(**{"augmented": "finished", "augmented/seeds/2": 2}))
    assert passed == (View(KEY, 1),)


def test_a_base_whose_lower_blocks_are_frozen_has_fresh_views_unless_images_are_mixed() -> None:
    upper, mixed = (
        EXPERIMENTS["finetuned"].model_copy(update={"trainable_from": "block4", **changes})
        for changes in ({"name": "upper"}, {"name": "mixed", "mixup": 0.2})
    )
    three = replicates([upper, mixed, EXPERIMENTS["finetuned"]], [524])
    assert sharing(three, lambda _: KEY) == {KEY: ("upper",)}
