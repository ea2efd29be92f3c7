"""What `results.json` holds of a test: metrics, calibration and single images."""

from pydantic import BaseModel, ConfigDict, Field

Interval = tuple[float, float]
"""Low and high."""

Number = float | None
"""null if it is not finite."""


class Part(BaseModel):
    """An object in the file. The docstrings of its fields are the schema's descriptions."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ClassPart(Part):
    """One class against all others. A ratio is 0 if its denominator is 0."""

    name: str = Field(serialization_alias="class")
    precision: float
    recall: float
    f1: float
    support: int
    """Test images of this class."""


class OriginPart(Part):
    """The test images of one origin."""

    accuracy: float
    support: int
    ci95: Interval
    """Wilson's."""


class OriginClassPart(Part):
    """The test images of one class and one origin."""

    name: str = Field(serialization_alias="class")
    images: int
    wrong: int
    """How many were taken for another class."""


class ReliabilityPart(Part):
    """15 bins of equal width. Bin k, from 0 on, holds the images whose most probable class has a
    probability above k/15 and up to (k + 1)/15."""

    images: tuple[int, ...]
    confidence: tuple[Number, ...]
    """Mean probability of the most probable class; null if the bin is empty."""
    accuracy: tuple[Number, ...]
    """null if the bin is empty."""


class MistakePart(Part):
    """A test image that was taken for another class."""

    image: int
    """Its number in the test split, from 0 on."""
    source: str
    """Its name in the data set."""
    origin: str | None
    """null unless the data set is CINIC-10."""
    true: str
    """Its class."""
    predicted: str
    probability: float
    """Of the predicted class."""


class SaidPart(Part):
    """What one experiment said of an image."""

    experiment: str
    predicted: str
    probability: float
    """Of the predicted class."""


class DisputedPart(Part):
    """A test image of which experiments say different classes."""

    image: int
    """Its number in the test split, from 0 on."""
    source: str
    """Its name in the data set."""
    origin: str | None
    """null unless the data set is CINIC-10."""
    true: str
    """Its class."""
    said: tuple[SaidPart, ...]
    """One for each experiment that was tested."""


class Score(Part):
    """The test metrics of one training."""

    loss: Number
    """Mean categorical cross-entropy, natural logarithm."""
    accuracy: float
    accuracy_ci95: Interval
    """Wilson's: it covers the choice of the test images."""
    precision_macro: float
    """Mean over the classes, as are recall and F1."""
    recall_macro: float
    f1_macro: float
    ece: Number
    """Expected calibration error of the most probable class, in 15 bins of equal width
    (Guo et al., 2017, arXiv:1706.04599); null if a probability is none, like the next two."""
    brier: Number
    """Brier score: squared distance between probabilities and truth, summed over the classes."""
    confidence: Number
    """Mean probability of the most probable class."""
    reliability: ReliabilityPart


class SeedTest(Score):
    """The test metrics of one seed. Those of single classes are in its `predictions.npz`."""

    images: int
    per_origin: dict[str, OriginPart]


class TestPart(Score):
    """The test metrics of the first seed."""

    per_class: tuple[ClassPart, ...]
    per_origin: dict[str, OriginPart]
    """Empty unless the data set is CINIC-10."""
    per_origin_and_class: dict[str, tuple[OriginClassPart, ...]]
    """Empty unless the data set is CINIC-10."""
    confusion: tuple[tuple[int, ...], ...]
    """Images by true class (row) and predicted class (column)."""
    images: int
