"""The four experiments are the study's, and an experiment states its fields once."""

import pytest
from pydantic import ValidationError

from tlcluster.experiments import (
    EXPERIMENTS,
    STUDY,
    Experiment,
    differences,
)


def test_the_experiments_are_the_four_of_the_study_in_its_order() -> None:
    assert [(e.title, e.name, e.epochs) for e in EXPERIMENTS.values()] == [
        ("Model 1", "frozen", 55),
        ("Model 2", "augmented", 55),
        ("Model 3", "regularized", 100),
        ("Model 4", "finetuned", 200),
    ]
    assert [result.name for result in STUDY] == list(EXPERIMENTS)


def test_what_differs_between_them_is_what_the_study_says() -> None:
    differing = {
        name: experiment.model_dump(exclude={"name", "title", "summary", "epochs"})
        for name, experiment in EXPERIMENTS.items()
    }
    recipe = {
        "base": "vgg16",
        "base_trainable": False,
        "taps": "last",
        "trainable_from": "first",
        "augment": False,
        "augmentation": "study",
        "preprocess": "raw",
        "input_size": 0,
        "upsampling": "bicubic",
        "dense_units": 512,
        "batch_norm": False,
        "dropout": 0.0,
        "patience": 10,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "base_rate": 1.0,
        "schedule": "constant",
        "warmup": 0.0,
        "weight_decay": 0.0,
        "average": 0.0,
        "label_smoothing": 0.0,
        "mixup": 0.0,
        "clip_norm": 0.0,
        "global_batch": 128,
        "test_views": 1,
    }
    assert differing == {
        "frozen": recipe,
        "augmented": {**recipe, "augment": True},
        "regularized": {**recipe, "augment": True, "batch_norm": True, "dropout": 0.2},
        "finetuned": {**recipe, "augment": True, "base_trainable": True},
    }


def test_an_experiment_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        EXPERIMENTS["frozen"].epochs = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        EXPERIMENTS["other"] = EXPERIMENTS["frozen"]  # type: ignore[index]


def test_the_differences_of_an_experiment_are_worded_by_its_fields() -> None:
    frozen = EXPERIMENTS["frozen"]
    wide = frozen.model_copy(update={"dense_units": 2048, "weight_decay": 1e-4, "patience": 5})
    assert differences(wide, frozen) == [
        "dense units 2048",
        "patience 5 epochs",
        "weight decay 0.0001",
    ]
    slow = frozen.model_copy(update={"base_rate": 0.1, "warmup": 0.25, "average": 0.999})
    assert differences(slow, frozen) == [
        "learning rate of the base 0.1 times the head's",
        "warm-up 0.25 of all steps",
        "weight average 0.999 kept per step",
    ]
    assert differences(frozen, frozen) == []
    assert differences(EXPERIMENTS["finetuned"]) == [
        "base trained",
        "images augmented",
        "epochs at most 200",
    ]
    assert differences(frozen, EXPERIMENTS["augmented"]) == ["images augmented: no"]


UPPER = EXPERIMENTS["finetuned"].model_dump() | {"trainable_from": "block4"}


@pytest.mark.parametrize(
    ("experiment", "end", "taps"),
    [
        (EXPERIMENTS["frozen"], "last", "last"),
        (Experiment(**UPPER | {"base_trainable": False, "taps": "block4"}), "last", "block4"),
        (EXPERIMENTS["finetuned"], None, "last"),
        (Experiment(**UPPER), "block4", ""),
        (Experiment(**UPPER | {"taps": "block5"}), "block4", ""),
        (Experiment(**UPPER | {"taps": "block2,block3,last"}), "block4", "block2,block3"),
        # Its steps need images.
        (Experiment(**UPPER | {"mixup": 0.2}), None, "last"),
    ],
)
def test_features_end_where_the_frozen_part_of_the_base_ends(
    experiment: Experiment, end: str | None, taps: str
) -> None:
    assert (experiment.feature_end, experiment.feature_taps) == (end, taps)
