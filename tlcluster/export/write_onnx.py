"""ONNX files: float32, and 8 bits calibrated on training images."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.helper
import tensorflow as tf
import tf2onnx
import tf_keras as keras
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tlcluster.export.facts import IMAGES, Facts, for_onnx
from tlcluster.export.opened import Images
from tlcluster.export.plain_model import FIXED, forward

OPSET = 17
"""Of ONNX 1.12 of 2022: runtimes of the last years know it."""

CALIBRATION_BATCH = 32


def write(model: keras.Model, path: Path, facts: Facts) -> None:
    """Write a plain model with float32 weights."""
    spec = tf.TensorSpec(model.input_shape, tf.uint8, name=IMAGES)
    converted, _ = tf2onnx.convert.from_function(forward(model), [spec], opset=OPSET)
    _save(converted, path, facts)


def write_int8(float32: Path, path: Path, facts: Facts, images: Images) -> None:
    """Write a model whose convolutions and dense layers compute with 8 bits.

    Weights have one scale for each output channel. The arithmetic on pixels before the base stays
    in float32.

    Args:
        float32: what `write` wrote.
        images: training images, which decide the range of each activation.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = (str(Path(folder) / name) for name in ("prepared", "quantized"))
        quant_pre_process(str(float32), prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        quantize_static(
            prepared,
            quantized,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            # Processors without VNNI add up products of 8 bits in 16, which may overflow.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in nodes if _is_fixed(node.name)],
        )
        _save(onnx.load(quantized), path, facts)


def _is_fixed(node: str) -> bool:
    """Whether a node belongs to one of the layers `FIXED`."""
    return not set(node.split("/")).isdisjoint(FIXED)


class _Images(CalibrationDataReader):
    """The images, batch by batch."""

    def __init__(self, images: Images) -> None:
        self._batches: Iterator[Images] = (
            images[begin : begin + CALIBRATION_BATCH]
            for begin in range(0, len(images), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {IMAGES: batch}


def _save(model: onnx.ModelProto, path: Path, facts: Facts) -> None:
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, for_onnx(facts))
    onnx.checker.check_model(model)
    onnx.save(model, path)
