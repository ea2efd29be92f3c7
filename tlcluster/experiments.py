"""The four experiments and the profiles: what is trained, and how.

An experiment is a frozen value. Experiments differ in their fields, never in
code, and a profile is a set of changes to those fields.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Experiment(BaseModel):
    """One VGG16 variant with its recipe. The defaults are the recipe of the study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(frozen=True)
    title: str
    summary: str

    base_trainable: bool = False
    augment: bool = False
    preprocess: Literal["raw", "vgg16"] = "raw"
    """`raw` feeds RGB in 0…255, as the study did; `vgg16` feeds BGR less the ImageNet means."""
    dense_units: int = Field(512, gt=0)
    batch_norm: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)

    epochs: int = Field(gt=0)
    """The most epochs; early stopping may end the training before."""
    patience: int = Field(10, gt=0)
    """Epochs without a better validation accuracy before training stops."""
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    global_batch: int = Field(128, gt=0)


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        experiment.name: experiment
        for experiment in (
            Experiment(
                name="frozen",
                title="Model 1",
                summary="frozen base",
                epochs=55,
            ),
            Experiment(
                name="augmented",
                title="Model 2",
                summary="frozen base, augmented images",
                augment=True,
                epochs=55,
            ),
            Experiment(
                name="regularized",
                title="Model 3",
                summary="frozen base, augmented images, BatchNorm and Dropout",
                augment=True,
                batch_norm=True,
                dropout=0.2,
                epochs=100,
            ),
            Experiment(
                name="finetuned",
                title="Model 4",
                summary="trainable base, augmented images",
                base_trainable=True,
                augment=True,
                epochs=200,
            ),
        )
    }
)

BASE_PARAMETERS = 14_714_688
"""VGG16 without its top."""

BASE_FEATURES = 512
"""Numbers that the base makes of an image of 32×32: its last map is 1×1×512."""


def trainable_parameters(experiment: Experiment, classes: int = 10) -> int:
    """Numbers that an experiment trains."""
    units = experiment.dense_units
    dense = (BASE_FEATURES + 1) * units + (units + 1) * classes
    norms = 2 * (BASE_FEATURES + units) if experiment.batch_norm else 0
    return (BASE_PARAMETERS if experiment.base_trainable else 0) + norms + dense


EVERY = "*"
"""In a profile: the change holds for every experiment."""

PROFILES: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "paper": {},
        "quick": {
            EVERY: {"epochs": 12, "global_batch": 25},
            "finetuned": {"epochs": 6, "learning_rate": 5e-5, "preprocess": "vgg16"},
        },
    }
)
"""Profile → experiment (or every one) → field → value; later entries win."""


class StudyResult(BaseModel):
    """What the original study reports of one experiment: 90,000 images a split, one GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    accuracy: float
    loss: float
    epochs_run: int
    train_images: int = 90_000
    test_images: int = 90_000
    seed: int = 524


STUDY = (
    StudyResult(name="frozen", accuracy=0.4870, loss=1.524, epochs_run=14),
    StudyResult(name="augmented", accuracy=0.4922, loss=1.448, epochs_run=32),
    StudyResult(name="regularized", accuracy=0.5309, loss=1.323, epochs_run=71),
    StudyResult(name="finetuned", accuracy=0.7528, loss=0.739, epochs_run=82),
)
