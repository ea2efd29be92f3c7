"""A `.tflite` file, run by LiteRT, or by the interpreter inside TensorFlow if that is installed."""

from pathlib import Path

from tlcluster.export.facts import attached
from tlcluster.export.opened import Content, Images, Probabilities, Run

try:
    from ai_edge_litert.interpreter import Interpreter
except ModuleNotFoundError:
    from tensorflow.lite.python.interpreter import Interpreter


def open_file(path: Path) -> tuple[Content, Run]:
    """What the file says of itself, and its model."""
    interpreter = Interpreter(str(path))
    (images_in,), (answer_out,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: Images) -> Probabilities:
        interpreter.resize_tensor_input(images_in["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(images_in["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(answer_out["index"])

    return attached(path), run
