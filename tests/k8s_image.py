"""Reads k8s/Dockerfile."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "k8s/Dockerfile"


class Instruction(NamedTuple):
    """One instruction, with its continued lines joined."""

    name: str
    text: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile in order, without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def image_environment() -> dict[str, str]:
    """The variables that the image sets."""
    words = [
        word
        for instruction in instructions(DOCKERFILE.read_text())
        if instruction.name == "ENV"
        for word in instruction.text.split()
    ]
    return dict(word.split("=", 1) for word in words)
