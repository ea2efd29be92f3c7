"""The work of an experiment: counted by tracing its model, without TensorFlow in this process."""

import subprocess
import sys

import pytest

from tlcluster.cost import Forward
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS
from tlcluster.training import work
from tlcluster.training.model import build_models, parameter_counts
from tlcluster.training.work import Work, ask_work, forwards, works

MIXED = (
    *EXPERIMENTS.values(),
    EXPERIMENTS["finetuned"].model_copy(update={"base": "mobilenet_v2", "name": "small"}),
    EXPERIMENTS["regularized"].model_copy(update={"base": "resnet50", "name": "deep"}),
    EXPERIMENTS["finetuned"].model_copy(update={"trainable_from": "block4", "name": "upper"}),
    EXPERIMENTS["regularized"].model_copy(update={"taps": "block3,block4", "name": "tapped"}),
)


@pytest.fixture(scope="module")
def answers() -> dict[str, Work]:
    """What a child process says of `MIXED` at 32×32."""
    found = ask_work(MIXED, image_shape=(32, 32, 3), classes=10)
    return {experiment.name: one for experiment, one in zip(MIXED, found, strict=True)}


def test_vgg16_takes_0_627_gflop_for_an_image_of_32_by_32(answers: dict[str, Work]) -> None:
    for name in EXPERIMENTS:
        assert answers[name].forward_flop == pytest.approx(0.627e9, rel=0.01)


def test_other_bases_take_a_49th_of_what_is_published_for_224_by_224(
    answers: dict[str, Work],
) -> None:
    """3.86 and 0.300 billion multiply-adds: ResNet50 without its top, MobileNetV2."""
    assert answers["deep"].forward_flop == pytest.approx(2 * 3.86e9 / 49, rel=0.03)
    assert answers["small"].forward_flop == pytest.approx(2 * 0.300e9 / 49, rel=0.03)


def test_the_last_map_is_that_of_the_base(answers: dict[str, Work]) -> None:
    shapes = {name: answers[name].feature_shape for name in ("frozen", "small", "deep")}
    assert shapes == {"frozen": (1, 1, 512), "small": (1, 1, 1280), "deep": (1, 1, 2048)}


def test_blocks_above_the_highest_tap_are_no_work(answers: dict[str, Work]) -> None:
    assert answers["tapped"].feature_shape == (1, 1, 256 + 512)
    # Three convolutions of 512 channels on 2×2 pixels are left out.
    saved = answers["frozen"].forward_flop - answers["tapped"].forward_flop
    assert saved == pytest.approx(3 * 2 * 4 * 9 * 512 * 512, rel=0.01)


def test_the_share_of_the_work_that_is_trained_is_that_of_the_blocks(
    answers: dict[str, Work],
) -> None:
    assert answers["frozen"].trained_share == 0.0
    assert answers["finetuned"].trained_share == 1.0
    # Convolutions: pixels × 9 × inputs × outputs, two operations each.
    upper = 16 * 9 * 512 * (256 + 2 * 512) + 4 * 9 * 512 * 3 * 512
    assert answers["upper"].trained_share == pytest.approx(2 * upper / 0.627e9, rel=0.02)


def test_features_save_the_work_of_the_frozen_blocks_below_those_that_are_trained(
    answers: dict[str, Work],
) -> None:
    assert answers["upper"].row_bytes == 4 * 4 * 4 * 256
    assert answers["upper"].kept_share == 1.0 - answers["upper"].trained_share
    others = [work for name, work in answers.items() if name != "upper"]
    assert {(work.row_bytes, work.kept_share) for work in others} == {(0, 0.0)}


def test_parameters_are_those_of_the_models_that_are_trained(answers: dict[str, Work]) -> None:
    for experiment in MIXED:
        models = build_models(
            experiment, image_shape=(32, 32, 3), classes=10, seed=1, imagenet_weights=None
        )
        found = answers[experiment.name]
        assert (found.trainable_params, found.total_params) == parameter_counts(models.whole)


def test_larger_images_and_more_classes_are_more_work() -> None:
    frozen = [EXPERIMENTS["frozen"]]
    (one,), (other,) = (
        works(frozen, image_shape=shape, classes=classes)
        for shape, classes in (((32, 32, 3), 10), ((64, 96, 3), 100))
    )
    assert other.forward_flop == pytest.approx(6 * one.forward_flop, rel=0.01)
    assert other.feature_shape == (2, 3, 512)
    assert other.trainable_params == (2 * 3 * 512 + 1) * 512 + 513 * 100


def test_images_made_larger_are_the_work_of_larger_images() -> None:
    larger = EXPERIMENTS["frozen"].model_copy(update={"input_size": 64})
    (one,) = works([larger], image_shape=(32, 48, 3), classes=10)
    (other,) = works([EXPERIMENTS["frozen"]], image_shape=(64, 96, 3), classes=10)
    assert one == other


def test_asking_imports_no_tensorflow() -> None:
    code = "import sys, tlcluster.training.work; print('tensorflow' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_a_run_with_one_base_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "ask_work", None)
    found = forwards(tuple(EXPERIMENTS.values()), (32, 32, 3))
    assert found == dict.fromkeys(EXPERIMENTS, Forward(1.0))


def test_a_run_asks_once_for_each_part_of_a_base_and_each_block_from_which_it_is_trained(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Work]
) -> None:
    asked = []

    def ask(experiments: list, **_: object) -> list[Work]:  # type: ignore[type-arg]
        asked.append([experiment.name for experiment in experiments])
        return [answers[experiment.name] for experiment in experiments]

    monkeypatch.setattr(work, "ask_work", ask)
    found = forwards(MIXED, (32, 32, 3))
    assert [sorted(names) for names in asked] == [["deep", "frozen", "small", "tapped", "upper"]]
    assert {name: one.flop for name, one in found.items()} == {
        name: work.forward_flop for name, work in answers.items()
    }
    assert found["upper"] == answers["upper"].forward
    assert found["finetuned"] == Forward(answers["finetuned"].forward_flop)


def test_a_child_that_fails_is_one_line_with_its_last_words() -> None:
    with pytest.raises(UserError, match="Input size must be at least 32x32") as caught:
        ask_work([EXPERIMENTS["frozen"]], image_shape=(16, 32, 3), classes=10)
    assert "\n" not in str(caught.value)


def test_a_child_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "TIMEOUT_SECONDS", 0.01)
    with pytest.raises(UserError, match=r"no answer in 0\.01 s"):
        ask_work([EXPERIMENTS["frozen"]], image_shape=(32, 32, 3), classes=10)
