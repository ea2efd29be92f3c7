"""The study's four experiments: what is trained, and how.

An experiment is a frozen value. Experiments differ in their fields, never in
code. `tlcluster.recipes` changes them and adds others.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from tlcluster.backbones import BACKBONES, FIRST, LAST
from tlcluster.cli import nearest

LearningRateCurve = Literal["constant", "cosine"]

OptimizerName = Literal["adam", "sgd-nesterov"]

AugmentationName = Literal["study", "flip-and-shift", "strong"]

Upsampling = Literal["bicubic", "bilinear"]

MOST_EPOCHS = 1_000_000
"""Above every use; larger numbers would overflow in the arithmetic of steps and times."""


def _recipe(
    default: Any = ..., *, label: str, unit: str = "", option: bool = False, **limits: Any
) -> Any:
    """A field of the recipe: it decides the result, together with the seed and the data.

    An option is a field that the study's recipes do not have. The report does not mention it while
    it has its default.
    """
    extra: dict[str, Any] = {"unit": unit, "option": option}
    return Field(default, title=label, json_schema_extra=extra, **limits)


class Experiment(BaseModel):
    """One model variant with its recipe. The defaults are the recipe of the study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    summary: str

    base: str = _recipe("vgg16", label="base")
    """One of `tlcluster.backbones.BACKBONES`."""
    base_trainable: bool = _recipe(False, label="base trained")
    taps: str = _recipe(LAST, label="features from", option=True)
    """`last` flattens the last map of the base. Names of its blocks, separated by commas, take the
    mean of each channel of each block's last map; `last` may be one of them. Blocks above the
    highest tap are left out."""
    trainable_from: str = _recipe(FIRST, label="base trained from", option=True)
    """If the base is trained: the block from which on it is; those below stay frozen."""
    augment: bool = _recipe(False, label="images augmented")
    augmentation: AugmentationName = _recipe("study", label="augmentation", option=True)
    """How images are augmented, if they are; see `tlcluster.training.augment`."""
    preprocess: Literal["raw", "base"] = _recipe("raw", label="input preprocessing")
    """`raw` feeds RGB in 0…255, as the study did; `base` is the preprocessing of the base."""
    input_size: int = _recipe(0, label="input size", option=True, unit="pixels", ge=0, le=1024)
    """The shorter side of the images as the base sees them; 0 leaves them as they are."""
    upsampling: Upsampling = _recipe("bicubic", label="upsampling", option=True)
    """How images are made as large as `input_size`."""
    dense_units: int = _recipe(512, label="dense units", gt=0, le=65_536)
    batch_norm: bool = _recipe(False, label="batch normalisation")
    dropout: float = _recipe(0.0, label="dropout rate", ge=0, lt=1)

    epochs: int = _recipe(label="epochs at most", gt=0, le=MOST_EPOCHS)
    """Early stopping may end the training earlier."""
    patience: int = _recipe(10, label="patience", unit="epochs", gt=0, le=MOST_EPOCHS)
    """Epochs without a better validation accuracy before training stops."""
    optimizer: OptimizerName = _recipe("adam", label="optimizer")
    """With `weight_decay`, `adam` is AdamW."""
    learning_rate: float = _recipe(1e-3, label="learning rate", gt=0, allow_inf_nan=False)
    base_rate: float = _recipe(
        1.0, label="learning rate of the base", option=True, unit="times the head's", gt=0, le=1_000
    )
    """As a multiple of the head's, if the base is trained."""
    schedule: LearningRateCurve = _recipe("constant", label="learning-rate schedule", option=True)
    """`cosine` falls to 0 at the end of the last epoch; see `tlcluster.training.learning_rate`."""
    warmup: float = _recipe(0.0, label="warm-up", option=True, unit="of all steps", ge=0, lt=1)
    """Share of all steps in which the learning rate rises linearly to `learning_rate`."""
    weight_decay: float = _recipe(0.0, label="weight decay", option=True, ge=0, allow_inf_nan=False)
    """Decoupled from the gradient (AdamW); biases and BatchNorm have none."""
    average: float = _recipe(
        0.0, label="weight average", option=True, unit="kept per step", ge=0, lt=1
    )
    """Share of the average of the weights that a step keeps. If it is not 0, the average is
    validated, tested and written instead of the last weights."""
    label_smoothing: float = _recipe(0.0, label="label smoothing", option=True, ge=0, lt=1)
    """Share of the training target that is spread evenly over all classes."""
    mixup: float = _recipe(0.0, label="mixup", option=True, ge=0, le=100)
    """Training images are mixed in pairs, in shares from Beta(mixup, mixup); 0 mixes none."""
    clip_norm: float = _recipe(
        0.0, label="gradient norm at most", option=True, ge=0, allow_inf_nan=False
    )
    """Longer gradients of the global batch are scaled to this norm; 0 leaves all as they are."""
    global_batch: int = _recipe(128, label="global batch", gt=0, le=1_000_000)

    test_views: int = _recipe(1, label="views per test image", option=True, ge=1, le=2)
    """2 tests the mean of the probabilities of each image and its mirror image."""

    @property
    def feature_end(self) -> str | None:
        """Up to where features of an image, or of a view of it, can be used again.

        `LAST` if all of the base is frozen, the lowest block that is trained if those below it
        stay frozen, None if there are no such features: mixup makes other images in every step.
        """
        if not self.base_trainable:
            return LAST
        return None if self.trainable_from == FIRST or self.mixup else self.trainable_from

    @property
    def feature_taps(self) -> str:
        """The taps that are part of the features; "" if none is, below a block."""
        if self.feature_end in (LAST, None):
            return self.taps
        blocks = BACKBONES[self.base].blocks
        below = blocks[: blocks.index(self.trainable_from)]
        return ",".join(tap for tap in self.taps.split(",") if tap in below)

    def input_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape of the images as the base sees them, (height, width, channels).

        Args:
            image_shape: of the data set. The longer side keeps its proportion to the shorter one,
                in whole pixels.
        """
        if not self.input_size:
            return image_shape
        height, width, channels = image_shape
        shorter = min(height, width)
        return (
            round(self.input_size * height / shorter),
            round(self.input_size * width / shorter),
            channels,
        )

    @field_validator("base")
    @classmethod
    def _known_base(cls, value: str) -> str:
        if value not in BACKBONES:
            raise ValueError(f"no such base; {nearest(value, BACKBONES)}")
        return value

    @field_validator("taps")
    @classmethod
    def _known_taps(cls, value: str, info: ValidationInfo) -> str:
        base = info.data.get("base")
        if base is None:  # refused for itself
            return value
        known = (*BACKBONES[base].blocks, LAST)
        taps = [tap.strip() for tap in value.split(",")]
        for tap in taps:
            if tap not in known:
                raise ValueError(f"the base {base} has no block {tap!r}; {nearest(tap, known)}")
            if taps.count(tap) > 1:
                raise ValueError(f"has {tap} twice; name each once")
        # In one order, so that the same taps are the same features.
        return ",".join(tap for tap in known if tap in taps)

    @field_validator("trainable_from")
    @classmethod
    def _known_block(cls, value: str, info: ValidationInfo) -> str:
        base, taps = info.data.get("base"), info.data.get("taps")
        if base is None or taps is None:  # refused for themselves
            return value
        known = (FIRST, *BACKBONES[base].blocks)
        if value not in known:
            raise ValueError(f"the base {base} has no block {value!r}; {nearest(value, known)}")
        highest = taps.split(",")[-1]
        if highest != LAST and known.index(value) > known.index(highest):
            raise ValueError(
                f"the head is on {taps}, so that no block from {value} on is used; give {highest} "
                "or a block below, or other taps"
            )
        return value

    @field_validator("mixup")
    @classmethod
    def _mixes_images(cls, value: float, info: ValidationInfo) -> float:
        if value and not info.data.get("base_trainable", True):
            raise ValueError(
                "images are mixed, and a frozen base keeps features of single images; give 0, or "
                "set base_trainable"
            )
        return value

    @field_validator("preprocess", mode="before")
    @classmethod
    def _older_name(cls, value: object) -> object:
        # Version 0.1.0 had one base and named its preprocessing after it.
        return "base" if value == "vgg16" else value


RECIPE: Mapping[str, str] = MappingProxyType(
    {
        name: ", ".join(filter(None, (field.title, str(field.json_schema_extra["unit"]))))
        for name, field in Experiment.model_fields.items()
        if isinstance(field.json_schema_extra, dict)
    }
)
"""Field of the recipe → its label, with its unit if it has one."""


OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        name: field.default
        for name, field in Experiment.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["option"]
    }
)
"""Field that the study's recipes do not have → its default, which leaves them as they are."""


def worded(field: str, value: object) -> str:
    """A field of the recipe with its value in words: `dense units 2048`, `images augmented`."""
    info = Experiment.model_fields[field]
    if isinstance(value, bool):
        return str(info.title) if value else f"{info.title}: no"
    unit = info.json_schema_extra["unit"] if isinstance(info.json_schema_extra, dict) else ""
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join(filter(None, (info.title, number, str(unit))))


def differences(experiment: Experiment, other: Experiment | None = None) -> list[str]:
    """The fields of the recipe that differ from another experiment's, in words.

    Without another, from the defaults; a field without a default always differs.
    """
    return [
        worded(field, value)
        for field in RECIPE
        if (value := getattr(experiment, field))
        != (getattr(other, field) if other else Experiment.model_fields[field].default)
    ]


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
