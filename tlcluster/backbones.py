"""The convolutional bases that an experiment can use, as values.

A base is described by its fields alone, so adding one means adding a value to
`BACKBONES`. This module does not import TensorFlow; `tlcluster.training.base`
builds the network.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

FIRST = "first"
"""In `trainable_from`: all of the base."""

LAST = "last"
"""In `taps`: the last map of the base."""

_VGG_BLOCKS = tuple(f"block{number}" for number in range(1, 6))

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"


class Backbone(NamedTuple):
    """A convolutional base with its weights and its preprocessing."""

    name: str
    """Its name in a recipe."""
    title: str
    """Its usual name, for people."""
    constructor: str
    """Name of its function in `keras.applications`."""
    weights_url: str
    """Address of its ImageNet weights without the top; the last part is the file name."""
    weights_md5: str | None
    """Checksum of that file in Keras Applications; None if Keras publishes none."""
    preprocessing: Literal["caffe", "tf", "torch"]
    """Mode of Keras' `preprocess_input`: `caffe` converts RGB to BGR and subtracts the ImageNet
    means, `tf` scales to −1…1, `torch` scales to 0…1 and normalises each channel."""
    efficiency: float
    """Rate of its floating-point operations, zeros of the border included, in training ÷ rate of
    NumPy's float32 matrix product. Only the estimate of time needs it.

    Measured with 50 images of 32×32 in TensorFlow 2.21 with oneDNN, both on one Xeon core. VGG is
    above 1 because oneDNN is faster than NumPy and `small_maps` skips zeros. MobileNetV2's
    depthwise convolutions wait for memory."""
    blocks: tuple[str, ...] = ()
    """Names of its blocks, from the image on, as its layers' names begin; see `taps` and
    `trainable_from` in a recipe."""
    smallest_side: int = 32
    """Smallest height and width of an image, in pixels."""
    train_batch_norm: bool = True
    """Whether training the base also trains its BatchNorm layers. False keeps their weights and
    moving statistics, and runs them in inference mode."""

    @property
    def weights_file(self) -> str:
        """Name of the weights file."""
        return self.weights_url.rpartition("/")[2]


BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        backbone.name: backbone
        for backbone in (
            Backbone(
                name="vgg16",
                title="VGG16",
                constructor="VGG16",
                weights_url=f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
                weights_md5="6d6bbae143d832006294945121d1f1fc",
                preprocessing="caffe",
                efficiency=1.2,
                blocks=_VGG_BLOCKS,
            ),
            Backbone(
                name="vgg19",
                title="VGG19",
                constructor="VGG19",
                weights_url=f"{_KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
                weights_md5="253f8cb515780f3b799900260a226db6",
                preprocessing="caffe",
                efficiency=1.25,
                blocks=_VGG_BLOCKS,
            ),
            Backbone(
                name="resnet50",
                title="ResNet50",
                constructor="ResNet50",
                weights_url=f"{_KERAS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
                weights_md5="4d473c1dd8becc155b73f8504c6f6626",
                preprocessing="caffe",
                efficiency=0.62,
                blocks=tuple(
                    f"conv{stage}_block{number}"
                    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3))
                    for number in range(1, blocks + 1)
                ),
            ),
            Backbone(
                name="mobilenet_v2",
                title="MobileNetV2",
                constructor="MobileNetV2",
                weights_url=f"{_KERAS}/mobilenet_v2/"
                "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
                weights_md5=None,
                preprocessing="tf",
                efficiency=0.22,
                blocks=("expanded_conv", *(f"block_{number}" for number in range(1, 17))),
            ),
        )
    }
)
