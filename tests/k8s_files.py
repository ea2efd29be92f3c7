"""Reads k8s/: renders the overlays, and takes the Dockerfile apart."""

import functools
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parent.parent
K8S = ROOT / "k8s"
DOCKERFILE = K8S / "Dockerfile"
BIN = Path(sys.executable).parent
MANUAL = K8S / "README.md"

Object = dict[str, Any]
Objects = Sequence[Object]


def tool(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of this Python's environment."""
    return subprocess.run(
        [BIN / arguments[0], *arguments[1:]], capture_output=True, text=True, check=False, **options
    )


def kustomize(folder: Path) -> str:
    """The objects that `kubectl apply -k` would send, as text."""
    done = tool("kubectl", "kustomize", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def rendered(overlay: str) -> str:
    return kustomize(K8S / "overlays" / overlay)


def loaded(text: str) -> list[Object]:
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def objects(overlay: str) -> list[Object]:
    """The objects of an overlay, for a test to change."""
    return loaded(rendered(overlay))


def of_kind(items: Objects, *kinds: str) -> list[Object]:
    return [item for item in items if item["kind"] in kinds]


def only(items: Objects, kind: str) -> Object:
    (item,) = of_kind(items, kind)
    return item


def values_of(items: Objects, container: Object) -> dict[str, str]:
    """The variables that a container gets from ConfigMaps and its own list."""
    maps = {item["metadata"]["name"]: item["data"] for item in of_kind(items, "ConfigMap")}
    values: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        values |= maps[source["configMapRef"]["name"]]
    return values | {item["name"]: item["value"] for item in container.get("env", ())}


def substituted(container: Object, values: dict[str, str]) -> list[str]:
    """A container's command line with `$(NAME)` replaced as Kubernetes does it."""
    return [
        re.sub(r"\$\((\w+)\)", lambda found: values.get(found[1], found[0]), word)
        for word in (*container.get("command", ()), *container.get("args", ()))
    ]


def shown_overlay() -> tuple[str, str]:
    """The overlay that k8s/README.md shows, and what it shows to add for some clusters."""
    least, more = re.findall(r"^```yaml\n(.*?)^```$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    return least, more


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
