"""How much a model computes and how many numbers it trains, by tracing it.

    python -m tlcluster.training.work

reads a JSON object from stdin (image_shape, classes, and experiments: a list of experiments) and
writes a list of `Work` to stdout. The driver asks it as a child process, so that TensorFlow, with
its seconds of start and its memory, stays out of the driver; see `ask_work`.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tlcluster.backbones import BACKBONES, FIRST
from tlcluster.cost import Forward
from tlcluster.errors import UserError
from tlcluster.experiments import Experiment

MODULE = "tlcluster.training.work"

TIMEOUT_SECONDS = 600
"""Importing TensorFlow from a slow network file system takes minutes."""


class Work(BaseModel):
    """Size of an experiment's model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    forward_flop: float
    """Floating-point operations of a forward pass for one image of the part of the base that is
    used; a multiplication and an addition are two."""
    trained_share: float
    """Share of it in the blocks that are trained; 0 if the base is frozen."""
    row_bytes: int
    """Bytes of an image's features of the frozen part of a base whose upper blocks are trained; 0
    if there is no such part."""
    kept_share: float
    """Share of the forward pass that these features save; 0 if they are not worth keeping."""
    trainable_params: int
    total_params: int
    feature_shape: tuple[int, ...]
    """Shape of what the head gets of the base, (height, width, channels)."""

    @property
    def forward(self) -> Forward:
        """What the estimate of the cost takes of it."""
        return Forward(self.forward_flop, self.trained_share, self.kept_share)


def ask_work(
    experiments: Sequence[Experiment], *, image_shape: tuple[int, int, int], classes: int
) -> list[Work]:
    """The work of each experiment, found by a child process that imports TensorFlow.

    Raises:
        UserError: the child process failed; the message ends with its last line.
    """
    question = {
        "image_shape": image_shape,
        "classes": classes,
        "experiments": [experiment.model_dump() for experiment in experiments],
    }
    environment = {
        **os.environ,
        # This package, wherever the command was started.
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))
        ),
        # Otherwise a `numpy.py` in the working directory would be imported as NumPy.
        "PYTHONSAFEPATH": "1",
        "KERAS_HOME": os.devnull,
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # GPUs are for the workers; tracing needs none.
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    try:
        answer = subprocess.run(
            [sys.executable, "-m", MODULE],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            env=environment,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
        return [Work.model_validate(work) for work in json.loads(answer.stdout)]
    except subprocess.TimeoutExpired:
        words = f"no answer in {TIMEOUT_SECONDS} s"
    except (subprocess.CalledProcessError, ValueError) as error:
        said = str(getattr(error, "stderr", error)).split("\n")
        words = next((line for line in reversed(said) if line.strip()), "no message")
    raise UserError(
        f"the models could not be built with TensorFlow: {words[:300]}; check the installation "
        f"with `{sys.executable} -c 'import tf_keras'`"
    )


def forwards(
    experiments: Sequence[Experiment], image_shape: tuple[int, int, int]
) -> Mapping[str, Forward]:
    """Name of an experiment → a forward pass of its base.

    They are for comparison. If all use the same part of the same base and train it from the same
    block on, each has one operation: a common factor changes no comparison, so no process is
    started.
    """
    # The first experiment of each kind; the head makes no difference.
    first = {_kind(experiment): experiment for experiment in reversed(experiments)}
    if len(first) < 2:
        return {experiment.name: Forward(1.0) for experiment in experiments}
    answers = ask_work(list(first.values()), image_shape=image_shape, classes=2)
    found = {
        # Whether all of a base is trained, or nothing, is known without asking.
        one: work.forward if _first_trained(experiment) != FIRST else Forward(work.forward_flop)
        for (one, experiment), work in zip(first.items(), answers, strict=True)
    }
    return {experiment.name: found[_kind(experiment)] for experiment in experiments}


def _kind(experiment: Experiment) -> tuple[tuple[str, str, int], str, bool]:
    """What decides a forward pass and what of it is trained, apart from all and nothing."""
    first = _first_trained(experiment)
    return part(experiment), first, first != FIRST and experiment.feature_end is None


def _first_trained(experiment: Experiment) -> str:
    return experiment.trainable_from if experiment.base_trainable else FIRST


def part(experiment: Experiment) -> tuple[str, str, int]:
    """What decides the work of a forward pass: the base, how much of it is used, and its input."""
    return experiment.base, experiment.taps, experiment.input_size


def works(
    experiments: Sequence[Experiment], *, image_shape: tuple[int, int, int], classes: int
) -> list[Work]:
    """The work of each experiment. Imports TensorFlow, which `ask_work` does not."""
    from tlcluster.training.base import (  # noqa: PLC0415
        build_base,
        forward_flop,
        set_trainable,
        tapped,
        tapped_shape,
        trained_share,
    )
    from tlcluster.training.lower_part import is_kept, row_bytes  # noqa: PLC0415
    from tlcluster.training.model import build_head, parameter_counts  # noqa: PLC0415

    trunks = {
        part(one): tapped(
            build_base(BACKBONES[one.base], one.input_shape(image_shape)), one.taps.split(",")
        )
        for one in {part(experiment): experiment for experiment in experiments}.values()
    }
    flop = {one: forward_flop(trunk) for one, trunk in trunks.items()}
    found = []
    for experiment in experiments:
        trunk = trunks[part(experiment)]
        trained, first = experiment.base_trainable, experiment.trainable_from
        set_trainable(trunk, BACKBONES[experiment.base], trainable=trained, first=first)
        map_shape = tapped_shape(trunk, experiment.taps.split(","))
        head, _ = build_head(experiment, map_shape, classes=classes, seed=0)
        counts = parameter_counts(trunk), parameter_counts(head)
        trainable, total = (sum(count) for count in zip(*counts, strict=True))
        share = trained_share(trunk, first) if trained else 0.0
        found.append(
            Work(
                forward_flop=flop[part(experiment)],
                trained_share=share,
                row_bytes=row_bytes(trunk, experiment),
                kept_share=1.0 - share if is_kept(trunk, experiment) else 0.0,
                trainable_params=trainable,
                total_params=total,
                feature_shape=map_shape,
            )
        )
    return found


def main() -> None:
    """Answer one question; see the module's docstring."""
    question = json.load(sys.stdin)
    # Libraries print too; stdout is for the answer.
    with contextlib.redirect_stdout(sys.stderr):
        answer = works(
            [Experiment.model_validate(experiment) for experiment in question["experiments"]],
            image_shape=tuple(question["image_shape"]),
            classes=question["classes"],
        )
    print(json.dumps([work.model_dump() for work in answer]))


if __name__ == "__main__":
    main()
