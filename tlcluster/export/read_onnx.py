"""An ONNX model, run by ONNX Runtime on the processor."""

from pathlib import Path

import onnxruntime

from tlcluster.export.facts import IMAGES, KEY, PROBABILITIES
from tlcluster.export.opened import Content, Images, Probabilities, Run


def open_file(path: Path) -> tuple[Content, Run]:
    """What the file says of itself, and its model."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Images) -> Probabilities:
        (answer,) = session.run([PROBABILITIES], {IMAGES: images})
        return answer

    return session.get_modelmeta().custom_metadata_map.get(KEY), run
