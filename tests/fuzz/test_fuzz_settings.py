"""Recipes, search spaces and searches of strangers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mangle import DEEP, changed, damaged, json_files
from promise import fuzzed, kept

from tlcluster.experiments import EXPERIMENTS
from tlcluster.recipe_files import Profile, load_profile
from tlcluster.records import NodeRecord
from tlcluster.storage.directory import DirectoryStore
from tlcluster.terminal import one_line
from tlcluster.tuning.folder import read_manifest, read_trials
from tlcluster.tuning.records import TRIALS, TUNING, SearchRecord, TrialRecord, TuningManifest
from tlcluster.tuning.space import Space, load_space
from tlcluster.tuning.trials import scores

RECIPE = {
    "profile": "quick",
    "view_seed": 524,
    "every": {"epochs": 20, "schedule": "cosine", "warmup": 1.5},
    "experiments": {
        "finetuned": {"learning_rate": 3e-4, "trainable_from": "block4"},
        "wide": {"like": "frozen", "dense_units": 2048, "title": "Wide", "taps": "block3,block5"},
        "wider": {"like": "wide", "summary": "Wider", "dropout": 0.2, "batch_norm": True},
    },
}
SPACE = {
    "every": {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "dropout": [0.1, 0.2]},
    "experiments": {"frozen": {"dense_units": {"low": 64, "high": 1024, "log": False}}},
}


def toml(value: Any) -> str:
    """A value of JSON as TOML writes it, as far as TOML knows it."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(name)} = {toml(inner)}" for name, inner in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(
            json.dumps(value), json.dumps(value)
        )
    return "2026-04-12T07:15:00Z" if value is None else json.dumps(value, ensure_ascii=False)


def lines(table: dict[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        yield f"{json.dumps(name)} = {toml(value)}\n"


@st.composite
def toml_files(draw: st.DrawFn, table: dict[str, Any]) -> bytes:
    match draw(st.integers(0, 9)):
        case 0:
            return draw(st.sampled_from((*DEEP, b"a = " + b"[" * 5000, b"a." * 5000 + b"b = 1")))
        case 1 | 2:
            return draw(damaged("".join(lines(table)).encode()))
        case _:
            value = draw(changed(table))
            return "".join(lines(value)).encode("utf-8", "surrogatepass")


@fuzzed
@given(content=toml_files(RECIPE))
def test_a_recipe(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)

    def read() -> Profile:
        return load_profile(str(path))

    profile = kept("recipe", read, says=one_line)
    if profile is not None:
        assert profile.experiments.keys() >= EXPERIMENTS.keys()
        assert all("/" not in name and name.isprintable() for name in profile.experiments)


@fuzzed
@given(content=toml_files(SPACE))
def test_a_search_space(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_bytes(content)

    def read() -> Space:
        return load_space(str(path), EXPERIMENTS["frozen"], EXPERIMENTS)

    kept("search space", read, says=one_line)


MANIFEST = TuningManifest(
    name="search", command="tune", profile="quick", seed=1, trials=3, budget_hours=1.0,
    finalists=1, seeds=2, workers=1,
    searches=(SearchRecord(experiment=EXPERIMENTS["frozen"], space={"dropout": "0.1 or 0.2"}),),
    index_sha256="0" * 64, dataset="any", rows={"train": 10}, weights={"vgg16": "here"},
    versions={"python": "3.11"}, started="2026-04-12T07:15:00Z",
    hardware=(NodeRecord(host="a", cpus=2, gpus=0, memory_bytes=2**30),),
)  # fmt: skip
TRIAL = TrialRecord(
    number=1, role="search", candidate=1, seed=1, fields={"dropout": 0.1}, status="finished",
    val_accuracy=(0.4, 0.5), best_epoch=2, worker_seconds=3.0,
)  # fmt: skip


@fuzzed
@given(
    manifest=json_files(MANIFEST.model_dump_json().encode()),
    trial=json_files(TRIAL.model_dump_json().encode()),
)
def test_a_search(manifest: bytes, trial: bytes, tmp_path: Path) -> None:
    folder = DirectoryStore(tmp_path)
    folder.put(TUNING, manifest)
    folder.put(f"{TRIALS}/frozen/00001.json", trial)
    kept("tuning.json", lambda: read_manifest(folder))
    kept("trial", lambda: scores(read_trials(folder, "frozen")))
