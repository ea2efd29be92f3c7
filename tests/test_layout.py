"""The layout: who may import whom, and which libraries have one home.

The rules are data. A new file has no layer until someone decides on one here.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = {
    ".".join(path.relative_to(ROOT / "tlcluster").with_suffix("").parts): path.read_text()
    for path in sorted((ROOT / "tlcluster").rglob("*.py"))
    if path.stem != "__init__"
}
"""Module → source, without the name of the package: `store`, `bench.input`."""
SUBPACKAGES = frozenset(module.partition(".")[0] for module in PACKAGE if "." in module)
JOBS = sorted((ROOT / "jobs").glob("*.py"))

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(layer.split())
    for layer in (
        # What everyone may know.
        "cinic10 collective draws environment errors experiments lean_ray marked meter order",
        "adam augment cli download metrics paths records scratch small_maps trainer",
        # Where things are kept.
        "cache",
        "admission figures progress settings sources store",
        "checkpoint cluster events feature_key model runs s3 shards step weights",
        # What makes batches, pages and stores of them.
        "ingest manifest page stream task",
        "data embedded report",
        # What trains.
        "evaluate features",
        "train",
        # What trains many.
        "ready worker",
        "driver plan",
        "suite",
        # What measures all of that, and itself beside others.
        "bench.clock bench.measures bench.pngs",
        "bench.datasets bench.machine bench.matmul bench.peer_keras bench.program bench.show",
        "bench.context bench.peer_head bench.read_order bench.read_stream",
        "bench.peer_litdata bench.peer_mosaicml bench.peer_tfrecord bench.peer_webdataset",
        "bench.input bench.plain_keras bench.runs",
        "bench.concurrency bench.memory bench.scaling bench.startup bench.suite bench.views",
        "bench.parts",
    )
)
"""From the ground up. A module imports modules of lower layers, none of its own or above."""

DEFERRED = {
    # A store's kind is known when its address is. boto3 takes a third of a second to import, and
    # s3.py speaks the words that store.py defines.
    ("store", "s3"),
}
"""Imports inside a function that go upwards, with the reason."""

TENSORFLOW = frozenset(
    {
        "adam",
        "augment",
        "bench.matmul",
        "bench.peer_head",
        "bench.peer_keras",
        "bench.peer_tfrecord",
        "collective",
        "data",
        "draws",
        "evaluate",
        "events",
        "features",
        "model",
        "small_maps",
        "step",
        "train",
    }
)
HOMES: Mapping[str, frozenset[str]] = {
    "tensorflow": TENSORFLOW,
    "tf_keras": TENSORFLOW,
    "keras": frozenset(),  # Keras 3 does not work with MultiWorkerMirroredStrategy
    "ray": frozenset({"cluster", "driver", "lean_ray", "trainer", "worker"}),
    "boto3": frozenset({"bench.peer_webdataset", "s3"}),
    "botocore": frozenset({"s3"}),
    "s3transfer": frozenset({"s3"}),
    # In the peers' environment alone.
    "litdata": frozenset({"bench.peer_litdata"}),
    "streaming": frozenset({"bench.peer_mosaicml"}),
    "torch": frozenset({"bench.peer_litdata", "bench.peer_mosaicml"}),
    "webdataset": frozenset({"bench.peer_webdataset"}),
}
"""Library → the modules of tlcluster that may import it."""

HEAVY = (*HOMES, "matplotlib", "pandas", "pyarrow", "scipy", "sklearn")
"""What no command needs to print its help."""


class Import(NamedTuple):
    """One name that a source imports."""

    name: str
    """With its package: `tlcluster.store` for `from tlcluster import store` as well."""
    line: int
    deferred: bool
    """Inside a function."""


def imports(source: str) -> Iterator[Import]:
    def visit(node: ast.AST, deferred: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, deferred)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = f"tlcluster.{module}".rstrip(".")
            if module == "tlcluster" or module.removeprefix("tlcluster.") in SUBPACKAGES:
                for alias in node.names:
                    yield Import(f"{module}.{alias.name}", node.lineno, deferred)
            else:
                yield Import(module, node.lineno, deferred)
        inner = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inner)

    return visit(ast.parse(source), False)


def layer_of(module: str) -> int | None:
    return next((number for number, layer in enumerate(LAYERS) if module in layer), None)


def neighbours(source: str) -> Iterator[tuple[str, Import]]:
    """The modules of tlcluster that a source imports, without the name of the package."""
    for found in imports(source):
        package, _, rest = found.name.partition(".")
        parts = rest.split(".")
        module = ".".join(parts[:2] if parts[0] in SUBPACKAGES else parts[:1])
        # `from tlcluster import __version__` imports no module.
        if package == "tlcluster" and module and not module.startswith("__"):
            yield module, found


def violations(module: str, source: str) -> list[str]:
    """What the imports of a module of tlcluster break, one line each."""
    broken = []
    for found in imports(source):
        library = found.name.partition(".")[0]
        if library in HOMES and module not in HOMES[library]:
            broken.append(f"{module}.py:{found.line}: {library} has its home elsewhere")
        if library == "jobs":
            broken.append(f"{module}.py:{found.line}: a command is no library")
    own = layer_of(module)
    if own is None:
        return [*broken, f"{module}.py: has no layer yet, give it one in LAYERS"]
    for other, found in neighbours(source):
        theirs = layer_of(other)
        if theirs is None:
            broken.append(f"{module}.py:{found.line}: {other} has no layer")
        elif theirs >= own and not (found.deferred and (module, other) in DEFERRED):
            broken.append(f"{module}.py:{found.line}: {other} is not below {module}")
    return broken


def reach(module: str) -> frozenset[str]:
    """A module and all that it imports, by way of others too."""
    reached: set[str] = set()
    ahead = {module}
    while ahead:
        current = ahead.pop()
        reached.add(current)
        ahead |= {other for other, _ in neighbours(PACKAGE[current])} - reached
    return frozenset(reached)


@pytest.mark.parametrize("module", PACKAGE)
def test_a_module_imports_only_from_below_and_only_the_libraries_it_is_home_to(module: str) -> None:
    assert violations(module, PACKAGE[module]) == []


def test_every_module_has_one_layer_and_every_name_in_the_rules_is_a_module() -> None:
    names = [name for layer in LAYERS for name in layer]
    assert sorted(names) == sorted(PACKAGE)
    assert frozenset().union(*HOMES.values()) <= PACKAGE.keys()


def test_mypy_is_lenient_where_tensorflow_is_and_nowhere_else() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    (lenient,) = (
        override["module"]
        for override in settings["overrides"]
        if "disallow_subclassing_any" in override
    )
    assert lenient == [f"tlcluster.{module}" for module in sorted(TENSORFLOW)]


def test_every_import_that_may_go_upwards_still_does() -> None:
    upwards = {
        (module, other)
        for module, source in PACKAGE.items()
        for other, found in neighbours(source)
        if found.deferred and (layer_of(other) or 0) >= (layer_of(module) or 0)
    }
    assert upwards == DEFERRED


def test_the_report_reaches_neither_tensorflow_nor_ray() -> None:
    assert reach("report") & (TENSORFLOW | HOMES["ray"]) == frozenset()


def test_reach_follows_the_imports_of_imports() -> None:
    assert {"train", "data", "stream", "store", "s3", "errors"} <= reach("train")


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("store", "import tensorflow as tf", "store.py:1: tensorflow has its home elsewhere"),
        ("store", "from ray.train import report", "store.py:1: ray has its home elsewhere"),
        ("model", "import keras", "model.py:1: keras has its home elsewhere"),
        ("shards", "\nimport boto3.session", "shards.py:2: boto3 has its home elsewhere"),
        ("store", "def f():\n    import ray", "store.py:2: ray has its home elsewhere"),
        ("records", "from tlcluster import store", "records.py:1: store is not below records"),
        ("records", "from tlcluster.store import S", "records.py:1: store is not below records"),
        ("records", "import tlcluster.train", "records.py:1: train is not below records"),
        ("records", "from . import suite", "records.py:1: suite is not below records"),
        ("records", "from .suite import run", "records.py:1: suite is not below records"),
        ("metrics", "from tlcluster import cli", "metrics.py:1: cli is not below metrics"),
        ("store", "from tlcluster import s3", "store.py:1: s3 is not below store"),
        (
            "errors",
            "def f():\n    from tlcluster import cli",
            "errors.py:2: cli is not below errors",
        ),
        ("store", "import tlcluster.utils", "store.py:1: utils has no layer"),
        (
            "suite",
            "from tlcluster.bench import input",
            "suite.py:1: bench.input is not below suite",
        ),
        (
            "bench.show",
            "from tlcluster.bench.parts import PARTS",
            "bench.show.py:1: bench.parts is not below bench.show",
        ),
        ("bench.input", "import torch", "bench.input.py:1: torch has its home elsewhere"),
        ("suite", "from jobs import run_all", "suite.py:1: a command is no library"),
        ("utils", "", "utils.py: has no layer yet, give it one in LAYERS"),
    ],
)
def test_the_rules_can_be_broken(module: str, source: str, broken: str) -> None:
    assert violations(module, source) == [broken]


def test_what_the_rules_allow_passes() -> None:
    source = "import json\nfrom tlcluster import __version__, errors\nimport numpy as np\n"
    assert violations("store", source + "def f():\n    from tlcluster.s3 import g") == []


HELP = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({HEAVY!r}))  # None there: `import` says it is not installed
sys.argv = [sys.argv[1], "--help"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def help_of(job: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HELP, str(job)],
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
