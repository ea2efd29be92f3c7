"""The layout: which room may import which, and where the large libraries have their home."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tlcluster.commands import COMMANDS

ROOT = Path(__file__).parent.parent
PACKAGE = {
    ".".join(path.relative_to(ROOT / "tlcluster").with_suffix("").parts): path.read_text()
    for path in sorted((ROOT / "tlcluster").rglob("*.py"))
    if path.stem != "__init__"
}
"""Module → source, without the name of the package: `cli`, `storage.s3`."""
JOBS = sorted((ROOT / "jobs").glob("*.py"))

TOP = ""
ALLOWED: Mapping[str, frozenset[str]] = {
    room: frozenset({TOP, room, *below.split()})
    for room, below in {
        TOP: "",
        "storage": "",
        "report": "storage",
        "tracking": "storage report",
        "audit": "storage dataset report",
        "comparison": "storage report",
        "dataset": "storage",
        "checkup": "storage dataset",
        "training": "storage dataset checkup",
        "orchestration": "storage dataset checkup training report tracking",
        "tuning": "storage dataset checkup training report tracking orchestration",
        "export": "storage dataset checkup training report",
        "bench": "storage dataset checkup training report tracking orchestration",
        "commands": "storage dataset checkup training report tracking orchestration tuning export "
        "bench comparison audit",
    }.items()
}
"""Room → the rooms that its modules may import. `TOP` is what lies in no room; `commands` is what
a user calls."""

HOMES: Mapping[str, frozenset[str]] = {
    "tensorflow": frozenset({"training", "bench", "export"}),
    "tf_keras": frozenset({"training", "bench", "export", "tuning"}),
    "keras": frozenset(),  # Keras 3 does not work with MultiWorkerMirroredStrategy
    "ray": frozenset({"orchestration", "tuning"}),
    "optuna": frozenset({"tuning"}),
    "boto3": frozenset({"storage", "bench"}),
    "botocore": frozenset({"storage"}),
    "s3transfer": frozenset({"storage"}),
    "mlflow": frozenset({"tracking"}),
    "wandb": frozenset({"tracking"}),
    "matplotlib": frozenset({"report"}),
    "sklearn": frozenset({"report"}),
    "scipy": frozenset({"report", "training"}),
    # Extras of this package.
    **dict.fromkeys(("ai_edge_litert", "onnx", "onnxruntime", "tf2onnx"), frozenset({"export"})),
    # In the peers' environment alone.
    **dict.fromkeys(("litdata", "streaming", "torch", "webdataset"), frozenset({"bench"})),
}
"""Library → the rooms that may import it."""

PRIVATE = {"orchestration.ray_internals"}
"""What may use names that are private to Ray."""

HEAVY = (*HOMES, "pandas", "pyarrow")
"""What no command needs to print its help."""


class Import(NamedTuple):
    """One name that a source imports."""

    name: str
    """With its package: `tlcluster.cli` for `from tlcluster import cli` as well."""
    line: int
    deferred: bool
    """Inside a function."""


def imports(source: str) -> Iterator[Import]:
    def visit(node: ast.AST, deferred: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, deferred)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno, deferred)
        inner = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inner)

    return visit(ast.parse(source), False)


def neighbours(source: str, *, deferred: bool = True) -> Iterator[tuple[str, int]]:
    """The modules of tlcluster that a source imports, each with its line."""
    for found in imports(source):
        package, _, name = found.name.partition(".")
        if package == "tlcluster" and (deferred or not found.deferred):
            # `tlcluster.storage.open.open_store` is a name in the module `storage.open`.
            parts = name.split(".")
            heads = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
            module = next((head for head in heads if head in PACKAGE), None)
            if module is not None:
                yield module, found.line


def room_of(module: str) -> str:
    if module in ("commands", "__main__"):
        return "commands"
    return module.rpartition(".")[0].partition(".")[0]


def violations(module: str, source: str) -> list[str]:
    """What the imports of a module of tlcluster break, one line each."""
    room = room_of(module)
    broken = []
    for found in imports(source):
        library, _, rest = found.name.partition(".")
        if library in HOMES and room not in HOMES[library]:
            broken.append(f"{module}:{found.line}: {library} has its home elsewhere")
        if library == "ray" and "._" in rest and module not in PRIVATE:
            broken.append(f"{module}:{found.line}: {found.name} is private to Ray")
        if library == "jobs":
            broken.append(f"{module}:{found.line}: a script is no library")
    for other, line in neighbours(source):
        if room_of(other) not in ALLOWED[room]:
            broken.append(f"{module}:{line}: {other} is not below {room or 'the top level'}")
    return broken


def reach(module: str) -> frozenset[str]:
    """A module and all that is imported with it, by way of others too."""
    reached: set[str] = set()
    ahead = {module}
    while ahead:
        current = ahead.pop()
        reached.add(current)
        ahead |= {other for other, _ in neighbours(PACKAGE[current], deferred=False)} - reached
    return frozenset(reached)


def libraries(module: str) -> frozenset[str]:
    """The libraries that are imported with a module, by way of others too."""
    return frozenset(
        found.name.partition(".")[0]
        for one in reach(module)
        for found in imports(PACKAGE[one])
        if not found.deferred
    )


@pytest.mark.parametrize("module", PACKAGE)
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    assert violations(module, PACKAGE[module]) == []


def test_every_room_has_its_rule() -> None:
    assert {room_of(module) for module in PACKAGE} == ALLOWED.keys()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {other for other, _ in neighbours(source)} for module, source in PACKAGE.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # Raises CycleError, which names the circle.


@pytest.mark.parametrize("module", ["report.write", "comparison.write"])
def test_the_report_needs_neither_tensorflow_nor_ray(module: str) -> None:
    assert not libraries(module) & {"tensorflow", "tf_keras", "ray"}


def test_the_driver_needs_no_tensorflow() -> None:
    assert "ray" in libraries("orchestration.suite")
    assert not libraries("orchestration.suite") & {"tensorflow", "tf_keras"}


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("storage.open", "import tensorflow as tf", "storage.open:1: tensorflow has its home"),
        ("storage.open", "def f():\n    import ray", "storage.open:2: ray has its home elsewhere"),
        ("training.model", "import keras", "training.model:1: keras has its home elsewhere"),
        ("dataset.shards", "\nimport boto3.session", "dataset.shards:2: boto3 has its home"),
        ("records", "from tlcluster.storage import open", "records:1: storage.open is not below"),
        ("dataset.order", "from tlcluster.report.runs import Run", "report.runs is not below"),
        ("report.page", "from tlcluster.dataset import order", "dataset.order is not below report"),
        ("training.step", "import tlcluster.bench.views", "bench.views is not below training"),
        ("orchestration.suite", "from jobs import run_all", "a script is no library"),
        ("settings", "from tlcluster import commands", "settings:1: commands is not below"),
        ("orchestration.cluster", "from ray.train.v2._internal import x", "is private to Ray"),
    ],
)
def test_the_rules_can_be_broken(module: str, source: str, broken: str) -> None:
    (found,) = violations(module, source)
    assert broken in found


def test_what_the_rules_allow_passes() -> None:
    source = "import json\nfrom tlcluster import __version__, errors\nimport numpy as np\n"
    assert violations("storage.open", source + "def f():\n    import tlcluster.storage.s3") == []


def tree(folder: Path, depth: int = 0) -> Iterator[str]:
    """The files below a folder, each with what the first line of it says."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield shown(path.name, path, depth)
    for room in sorted(folder.iterdir()):
        if (room / "__init__.py").exists():
            yield shown(f"{room.name}/", room / "__init__.py", depth)
            if room.name != "bench":
                yield from tree(room, depth + 1)


def shown(name: str, path: Path, depth: int) -> str:
    says = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0].split("; ")[0]
    return f"{'  ' * depth}{name:<{26 - 2 * depth}}{says}"


def test_contributing_shows_the_folder_tree() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert "\n".join(tree(ROOT / "tlcluster")) in text


HELP = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({HEAVY!r}))  # None there: `import` says it is not installed
sys.argv = [*sys.argv[1:], "--help"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def help_of(job: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HELP, str(job), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_command_prints_its_help_where_no_large_library_is_installed(job: Path) -> None:
    done = help_of(job)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_tlcluster_prints_its_help_where_no_large_library_is_installed(command: str | None) -> None:
    done = help_of(ROOT / "tlcluster/__main__.py", *([command] if command else []))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m tlcluster {command or 'COMMAND'} ")


@pytest.mark.parametrize("library", HEAVY)
def test_a_command_that_needs_a_large_library_for_its_help_is_caught(
    library: str, tmp_path: Path
) -> None:
    job = tmp_path / "job.py"
    job.write_text(f"import {library}\nprint('usage: ')\n")
    done = help_of(job)
    assert done.returncode == 1
    assert f"import of {library} halted" in done.stderr


def test_what_runs_in_the_peers_environment_needs_nothing_of_ours_that_is_not_there() -> None:
    for module in ("bench.peer_litdata", "bench.peer_mosaicml", "bench.peer_webdataset"):
        assert reach(module) == {module, "bench.clock", "bench.pngs"}
        for ours in ("bench.clock", "bench.pngs"):
            foreign = {found.name.partition(".")[0] for found in imports(PACKAGE[ours])}
            assert foreign <= sys.stdlib_module_names
