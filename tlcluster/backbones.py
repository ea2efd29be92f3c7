"""The convolutional bases that an experiment may have, as values.

Everything that code needs to know of a base is a field here: another base is
one more value. This file imports no TensorFlow; `tlcluster.training.model`
builds the network.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"


class Backbone(NamedTuple):
    """A convolutional base with its weights and its preprocessing."""

    name: str
    """What a recipe calls it."""
    title: str
    """What people call it."""
    constructor: str
    """Name of its function in `keras.applications`."""
    weights_url: str
    """Where Keras downloads its ImageNet weights without the top; the last part names the file."""
    weights_md5: str | None
    """Checksum of that file as Keras Applications publishes it; None where it publishes none."""
    preprocessing: Literal["caffe", "tf"]
    """The mode of its `preprocess_input`: `caffe` is BGR less the ImageNet means, `tf` scales to
    −1…1."""
    smallest_side: int = 32
    """Pixels; Keras refuses smaller images."""

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
            ),
            Backbone(
                name="vgg19",
                title="VGG19",
                constructor="VGG19",
                weights_url=f"{_KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
                weights_md5="253f8cb515780f3b799900260a226db6",
                preprocessing="caffe",
            ),
            Backbone(
                name="resnet50",
                title="ResNet50",
                constructor="ResNet50",
                weights_url=f"{_KERAS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
                weights_md5="4d473c1dd8becc155b73f8504c6f6626",
                preprocessing="caffe",
            ),
            Backbone(
                name="mobilenet_v2",
                title="MobileNetV2",
                constructor="MobileNetV2",
                weights_url=f"{_KERAS}/mobilenet_v2/"
                "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
                weights_md5=None,
                preprocessing="tf",
            ),
        )
    }
)
