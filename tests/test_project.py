"""The project's own files: the locks, the Makefile, what is kept in git, and the code's style."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
MEGABYTE = 1_000_000

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES: list[str] = PYPROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
GPU = EXTRAS["gpu"]
EXPORT = EXTRAS["onnx"] + EXTRAS["litert"]
TRACK = EXTRAS["mlflow"] + EXTRAS["wandb"]
DEV: list[str] = PYPROJECT["dependency-groups"]["dev"]
BENCH: list[str] = PYPROJECT["dependency-groups"]["bench"]
SUPPLY: list[str] = PYPROJECT["dependency-groups"]["supply"]
BUILD: list[str] = PYPROJECT["build-system"]["requires"]

ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
        "platform_system": platform.capitalize(),
        "platform_machine": machine,
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for python in ("3.11", "3.12")
    for platform, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]
"""What a lock is made for."""


# --- the locks ---------------------------------------------------------------------------------


class Pin(NamedTuple):
    """One entry of a lock."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def version(self) -> Version:
        (only,) = self.requirement.specifier
        return Version(only.version)

    def applies(self, environment: dict[str, str]) -> bool:
        marker = self.requirement.marker
        return marker is None or marker.evaluate(environment)


_ENTRY = re.compile(
    r"(?P<requirement>[A-Za-z0-9._-]+(?:\[[a-z,-]+\])?==[^\s;]+(?: ; [^\\]+?)?)"
    r"(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)"
)


def read_lock(text: str) -> list[Pin]:
    """The entries of a lock.

    Raises:
        ValueError: a line is none: it has no version, no hash, or names an index or an address.
    """
    lines = re.sub(r"\\\n\s+", "", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()
    pins = []
    for line in lines:
        entry = _ENTRY.fullmatch(line.replace("--hash", " --hash").replace("  ", " "))
        if entry is None:
            raise ValueError(f"no entry of a lock: {line[:80]}")
        hashes = tuple(entry["hashes"].split())
        pins.append(Pin(Requirement(entry["requirement"]), hashes))
    return pins


def unmet(requirements: Iterable[str], lock: list[Pin]) -> list[str]:
    """Requirements that a lock does not meet exactly once in every environment."""
    missing = []
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        for environment in ENVIRONMENTS:
            pins = [
                pin
                for pin in lock
                if canonicalize_name(pin.requirement.name) == name and pin.applies(environment)
            ]
            if len(pins) != 1 or pins[0].version not in requirement.specifier:
                missing.append(str(requirement))
                break
    return missing


LOCKS = {
    name: read_lock((ROOT / name).read_text())
    for name in (
        "requirements.txt",
        "requirements-bench.txt",
        "requirements-supply.txt",
        "requirements-dev.txt",
        "requirements-export.txt",
        "requirements-gpu.txt",
        "requirements-track.txt",
    )
}


@pytest.mark.parametrize(
    ("requirements", "lock"),
    [
        (DEPENDENCIES, "requirements.txt"),
        (BUILD, "requirements.txt"),  # `make env` builds without fetching anything
        (DEV, "requirements-dev.txt"),
        (EXPORT, "requirements-export.txt"),
        (GPU, "requirements-gpu.txt"),
        (TRACK, "requirements-track.txt"),
        (BENCH, "requirements-bench.txt"),
        (SUPPLY, "requirements-supply.txt"),
    ],
    ids=["dependencies", "build", "dev", "export", "gpu", "track", "bench", "supply"],
)
def test_a_lock_meets_what_pyproject_asks_for(requirements: list[str], lock: str) -> None:
    assert unmet(requirements, LOCKS[lock]) == []


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("requirements-dev.txt", "requirements.txt"),
        ("requirements-export.txt", "requirements.txt"),
        ("requirements-gpu.txt", "requirements.txt"),
        ("requirements-track.txt", "requirements.txt"),
        ("requirements-dev.txt", "requirements-track.txt"),
        ("requirements-dev.txt", "requirements-export.txt"),
        ("requirements-export.txt", "requirements-track.txt"),
    ],
)
def test_a_lock_on_top_changes_nothing_below(name: str, base: str) -> None:
    below = {str(pin.requirement.name): set[Version]() for pin in LOCKS[base]}
    for pin in LOCKS[base]:
        below[pin.requirement.name].add(pin.version)
    for pin in LOCKS[name]:
        assert pin.version in below.get(pin.requirement.name, {pin.version}), str(pin.requirement)


def test_a_lock_says_how_it_is_renewed_and_nothing_of_who_renewed_it() -> None:
    for name in LOCKS:
        header = (ROOT / name).read_text().splitlines()[:2]
        assert header == [
            "# This file was autogenerated by uv via the following command:",
            "#    make lock",
        ]


def test_tensorflow_and_its_keras_are_of_one_minor_version() -> None:
    versions = {pin.requirement.name: pin.version for pin in LOCKS["requirements.txt"]}
    assert versions["tensorflow"].release[:2] == versions["tf-keras"].release[:2]


def refusals(distributions: Iterable[tuple[str, str | None]]) -> list[str]:
    """Those of ``(name, Requires-Python)`` that pip does not install on a Python of ours.

    uv, which makes the locks, overlooks an upper limit of Requires-Python; pip does not.
    """
    return [
        f"{name} refuses Python {environment['python_version']}: pyproject.toml has to bound it"
        for name, wanted in distributions
        for environment in ENVIRONMENTS[::3]
        if not SpecifierSet(wanted or "").contains(environment["python_full_version"])
    ]


def test_pip_takes_what_the_locks_name_on_every_python_of_ours() -> None:
    installed = ((d.name, d.metadata.get("Requires-Python")) for d in distributions())
    assert refusals(installed) == []


def test_a_version_that_refuses_our_python_is_noticed() -> None:
    assert refusals([("old", ">=3.8,<3.11"), ("any", None)]) == [
        "old refuses Python 3.11: pyproject.toml has to bound it",
        "old refuses Python 3.12: pyproject.toml has to bound it",
    ]


def test_nothing_makes_every_process_of_ray_start_slowly() -> None:
    """With that one, jsonschema compiles a grammar for seconds, and Ray gives up slow starts."""
    assert importlib.util.find_spec("rfc3987_syntax") is None


def test_a_wanting_lock_is_noticed() -> None:
    lock = read_lock(
        "# via\nnumpy==2.4.0 ; python_full_version < '3.12' \\\n"
        f"    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n    # via scipy\n"
        f"rich==13.0 \\\n    --hash=sha256:{'2' * 64}\n"
    )
    assert [len(pin.hashes) for pin in lock] == [2, 1]
    assert unmet(["numpy", "rich>=12", "rich>=14", "scipy"], lock) == ["numpy", "rich>=14", "scipy"]


@pytest.mark.parametrize(
    "line",
    [
        "numpy==2.4.0",
        "numpy>=2 --hash=sha256:" + "0" * 64,
        "numpy==2.4.0 --hash=md5:" + "0" * 32,
        "numpy @ https://example.org/numpy.whl --hash=sha256:" + "0" * 64,
        "--index-url https://example.org/simple",
        "--find-links wheels",
    ],
)
def test_what_is_no_entry_of_a_lock_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no entry of a lock"):
        read_lock(line)


BROUGHT = {
    "botocore": "boto3",
    "s3transfer": "boto3",
    "mypy_boto3_s3": "boto3-stubs",
    "markupsafe": "jinja2",
    "pydantic_core": "pydantic",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "mlflow": "mlflow-skinny",
    "streaming": "mosaicml-streaming",
    "yaml": "pyyaml",
}
"""Import name → the requirement that brings it, where the two are not called alike."""


def libraries(source: str) -> set[str]:
    """The requirements behind what a source imports, without Python's own and ours."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    ours = {"tlcluster", "jobs", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    foreign = names - sys.stdlib_module_names - ours
    return {canonicalize_name(BROUGHT.get(name, name)) for name in foreign}


@pytest.mark.parametrize(
    ("folder", "requirements"),
    [
        ("tlcluster", DEPENDENCIES),
        ("tlcluster/bench", DEPENDENCIES + BENCH),
        ("tlcluster/tracking", DEPENDENCIES + TRACK),
        ("jobs", DEPENDENCIES),
        ("tests", DEPENDENCIES + DEV),
    ],
)
def test_the_code_imports_only_what_pyproject_asks_for(
    folder: str, requirements: list[str]
) -> None:
    asked = {canonicalize_name(Requirement(requirement).name) for requirement in requirements}
    if folder == "tlcluster":
        asked.add(canonicalize_name("boto3-stubs"))  # under TYPE_CHECKING
    for path in (ROOT / folder).glob("*.py"):
        assert libraries(path.read_text()) <= asked, path.name


def test_an_import_that_nobody_asked_for_is_noticed() -> None:
    source = "import os, PIL.Image\nfrom tlcluster import cli\ndef f():\n    from torch import nn"
    assert libraries(source) == {"pillow", "torch"}


# --- what is kept in git -----------------------------------------------------------------------


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def kept() -> list[Path]:
    """What is in git, or would be by `git add --all`."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


LEAKS = {
    "a path of someone's machine": re.compile(
        r"(?<![\w.~$}-])/(?:(?:work|root|Users)/|home/(?!ray\b)\w|tmp/(?:venv|v|cinic)/)"
    ),
    "the address of a package registry": re.compile(
        r"\b(?:pypi|npmjs|pythonhosted)\.(?:org|com|io)\b"
    ),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a token": re.compile(r"\b(?:ghp_|github_pat_|glpat-|hf_|xox[abp]-)[A-Za-z0-9_-]{20,}"),
    "a JSON web token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\."),
    "a secret written down": re.compile(
        r"(?i)(?:secret|password|passwd|token)\w*[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9/+]{32,}"
    ),
}


def leaks(text: str) -> Iterator[str]:
    for what, pattern in LEAKS.items():
        for found in pattern.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"line {line}: {what}: {found[0]}"


LARGE = {"tlcluster/training/weights_files/vgg16-imagenet-8bit.npz.xz": 13 * MEGABYTE}
"""The files that may be large → bytes at most."""


def too_large(path: Path, root: Path = ROOT) -> bool:
    limit = LARGE.get(path.relative_to(root).as_posix(), 4 * MEGABYTE)
    return path.stat().st_size > limit


def test_no_large_file_is_kept_but_the_shipped_weights(kept: list[Path]) -> None:
    assert [path for path in kept if too_large(path)] == []
    assert set(LARGE) <= {path.relative_to(ROOT).as_posix() for path in kept}


def test_a_large_file_is_noticed(tmp_path: Path) -> None:
    for name, limit in {"other": 4 * MEGABYTE, **LARGE}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(limit))
        assert not too_large(path, tmp_path)
        path.write_bytes(bytes(limit + 1))
        assert too_large(path, tmp_path)


def test_git_keeps_the_shipped_weights_and_no_other() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    assert git("check-ignore", "vgg16.h5").splitlines() == ["vgg16.h5"]
    assert set(git("ls-files", *LARGE).splitlines()) == set(LARGE)


def test_no_secret_and_no_place_of_a_machine_is_kept(kept: list[Path]) -> None:
    found = []
    for path in kept:
        content = path.read_bytes()
        if b"\0" not in content:  # as git tells text from the rest
            found += [f"{path.relative_to(ROOT)}, {leak}" for leak in leaks(content.decode())]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "see /" + "work/main/jobs",
        "HOME=/" + "root/.cache",
        "open('/" + "home/someone/data')",
        "from " + "pypi" + ".org",
        "key = AKIA" + "ABCDEFGHIJKLMNOP",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "ghp_" + "a" * 36,
        "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + ".c",
        "aws_secret_access_key = " + "a1" * 20,
        '"password": "' + "a1" * 20 + '"',
    ],
)
def test_a_leak_is_noticed(text: str) -> None:
    assert len(list(leaks(f"\n{text}\n"))) == 1
    assert next(leaks(f"\n{text}\n")).startswith("line 2: ")


@pytest.mark.parametrize(
    "text",
    ["/home/ray/anaconda3", "$HOME/work/run", "s3://bucket/work/x", "token: str", "~/work/x"],
)
def test_what_is_no_leak_is_left_alone(text: str) -> None:
    assert list(leaks(text)) == []


def test_what_is_made_here_is_not_kept() -> None:
    made = [".venv/bin/python", "runs/quick/manifest.json", "tlcluster.egg-info/PKG-INFO"]
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    assert git("check-ignore", *made).splitlines() == made


def test_the_licence_is_there_and_is_the_one_that_pyproject_names() -> None:
    assert PYPROJECT["project"]["license"] == "MIT"
    first, _, holder = (ROOT / "LICENSE").read_text().splitlines()[:3]
    assert first == "MIT License"
    assert re.fullmatch(r"Copyright \(c\) \d{4} tlcluster contributors", holder)


# --- what travels ------------------------------------------------------------------------------


def packed(folder: Path, target: Path) -> list[str]:
    """What `ray job submit --working-dir FOLDER` sends, packed into `target` as Ray does it."""
    excludes = get_runtime_env_default_excludes()
    create_package(str(folder), target, include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(target) as archive:
        return archive.namelist()


def test_the_folder_that_travels_to_a_cluster_is_small_and_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder.zip"
    names = packed(ROOT, target)
    # The sample has 3 MB and the shipped weights 12. Ray refuses 100 MiB.
    assert target.stat().st_size < 17 * MEGABYTE
    assert {name.partition("/")[0] for name in names if "/" in name} <= {"jobs", "tlcluster"}
    assert {"tlcluster/__init__.py", "tlcluster/report/templates/report.html", *LARGE} <= set(names)


def test_what_no_ignore_file_names_would_travel(tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    for name in ("tests/test_order.py", "runs/quick/manifest.json", ".venv/bin/python", "new/file"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, folder)
    assert sorted(packed(folder, tmp_path / "folder.zip")) == [
        ".gitignore",
        ".rayignore",
        "new/file",
    ]


def test_every_room_is_in_the_package() -> None:
    rooms = sorted(path.parent for path in (ROOT / "tlcluster").rglob("__init__.py"))
    names = [".".join(room.relative_to(ROOT).parts) for room in rooms]
    assert PYPROJECT["tool"]["setuptools"]["packages"] == names


def test_a_wheel_carries_the_sample_and_the_templates(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "tlcluster", source / "tlcluster", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / PYPROJECT["project"]["readme"]).touch()
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("tlcluster-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if name.startswith("tlcluster/")}
    package = [path for path in (source / "tlcluster").rglob("*") if path.is_file()]
    assert carried == {path.relative_to(source).as_posix() for path in package}


# --- the Makefile and CI -----------------------------------------------------------------------


TARGETS = [
    "env", "run", "test", "test-gpu", "drill", "fuzz", "bench", "lint", "lock", "sbom",
    "audit-deps", "clean",
]  # fmt: skip


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_alone_lists_every_target_that_a_user_has() -> None:
    listed = re.findall(r"^  make ([\w-]+) ", make().stdout, re.MULTILINE)
    assert listed == ["help", *TARGETS]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_can_be_made(target: str) -> None:
    assert make("--dry-run", target).returncode == 0


def test_a_target_that_is_missing_is_noticed() -> None:
    assert make("--dry-run", "nonsense").returncode == 2


def test_arguments_are_handed_on() -> None:
    planned = make("--dry-run", "run", "ARGS=--profile paper").stdout
    assert planned.splitlines()[-1] == ".venv/bin/python jobs/run_all.py --profile paper"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose lock asks for nothing."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").touch()
    return folder


def made(folder: Path, *arguments: str) -> bool:
    """True if a call of make made the environment, False if it left it as it was."""
    python = (
        []
        if any(word.startswith("PYTHON=") for word in arguments)
        else [f"PYTHON={sys.executable}"]
    )
    done = make(".venv/.base", f"UV={BIN}/uv", *python, *arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.startswith("Making .venv")


def test_an_environment_is_made_once(checkout: Path) -> None:
    assert made(checkout)
    assert not made(checkout)
    assert not made(checkout, "PYTHON=")


def test_a_half_made_environment_is_made_again(checkout: Path) -> None:
    made(checkout)
    (checkout / ".venv/.base").rename(checkout / ".venv/.unfinished")
    assert made(checkout)
    assert not (checkout / ".venv/.unfinished").exists()


def test_a_changed_lock_makes_the_environment_again(checkout: Path) -> None:
    made(checkout)
    newer = (checkout / ".venv/.base").stat().st_mtime + 1
    os.utime(checkout / "requirements.txt", (newer, newer))
    assert made(checkout)


def test_a_moved_environment_is_made_again(checkout: Path) -> None:
    made(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    assert made(moved)
    assert not made(moved)


def test_an_environment_that_lost_its_interpreter_is_made_again(checkout: Path) -> None:
    made(checkout)
    python = checkout / ".venv/bin/python"
    python.unlink()
    python.symlink_to(checkout / "gone")
    assert made(checkout)


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 13, 0)], ids=["3.10", "3.13"])
def test_another_python_is_refused_and_the_environment_stays(
    checkout: Path, version: tuple[int, int, int]
) -> None:
    made(checkout)
    # This interpreter under a false name: asked as `python -I -c PROGRAM`, it runs PROGRAM.
    disguise = f"import sys; sys.version_info = {version}; sys._base_executable = sys.argv[1]"
    python = checkout / "python"
    python.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "{disguise}; exec(sys.argv[2])" "$0" "$3"\n'
    )
    python.chmod(0o755)
    done = make(".venv/.base", f"UV={BIN}/uv", "PYTHON=./python", folder=checkout)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "tlcluster needs Python 3.11 or 3.12, and ./python is not one: "
        "install one and name it, make env PYTHON=/path/to/python3.12"
    )
    assert not made(checkout)


def test_ci_runs_what_a_user_runs_and_no_more() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line and line[0] != "#"]
    assert commands == [
        "set -euo pipefail",
        'cd "$(dirname "${BASH_SOURCE[0]}")/.."',
        "exec make test",
    ]


# --- style -------------------------------------------------------------------------------------


def run_tool(*arguments: str | Path, source: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / arguments[0], *arguments[1:]],
        cwd=ROOT,
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("ruff", "check", "--quiet", "--output-format=concise"),
        ("ruff", "format", "--check", "--quiet", "--output-format=concise"),
        ("mypy", "--no-error-summary"),
    ],
    ids=["ruff-check", "ruff-format", "mypy"],
)
def test_the_code_passes(arguments: tuple[str, ...]) -> None:
    done = run_tool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "source", "complaint"),
    [
        (("ruff", "check", "--output-format=concise"), "x = 1\n", "D100"),
        (("ruff", "check", "--output-format=concise"), "# TODO\n", "FIX002"),
        (("ruff", "format", "--diff"), "x = {  }\n", "+x = {}"),
    ],
    ids=["docstring", "todo", "format"],
)
def test_what_ruff_would_not_pass_is_noticed(
    arguments: tuple[str, ...], source: str, complaint: str
) -> None:
    done = run_tool(*arguments, "--stdin-filename=tlcluster/new.py", "-", source=source)
    assert done.returncode == 1
    assert complaint in done.stdout


def test_what_mypy_would_not_pass_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "new.py"
    source.write_text('"""New."""\n\n\ndef f(x):\n    return x\n')
    done = run_tool("mypy", source)
    assert done.returncode == 1
    assert "[no-untyped-def]" in done.stdout
