"""In the processes of a drill: every call of training steps is written down, and may go wrong.

Python imports this by itself where its folder is in PYTHONPATH. `drill.py` reads what it writes.
"""

import importlib.abc
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

MODULE = "tlcluster.training.loop"
FOLDER = os.environ.get("TLCLUSTER_DRILL", "")


class _Hook(importlib.abc.MetaPathFinder):
    """Changes one module when it is imported: TensorFlow comes with it, so not before."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            _watch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _watch(module: Any) -> None:
    after_steps, task = module.after_steps, json.loads(os.environ.get("TF_CONFIG", "{}"))
    rank = task.get("task", {}).get("index", 0)
    log = Path(FOLDER) / f"steps-{rank}-{os.getpid()}"

    def watched(state: Any, steps: int, *rest: Any, **more: Any) -> Any:
        with log.open("a") as lines:
            print(state.epoch, state.step, steps, file=lines)
        # Each happens once: the worker that comes after this one finds no such file.
        if _take(f"raise-{rank}"):
            raise RuntimeError("the drill's own exception")
        if _take(f"never-enter-{rank}"):
            time.sleep(100_000)
        return after_steps(state, steps, *rest, **more)

    module.after_steps = watched


def _take(name: str) -> bool:
    try:
        (Path(FOLDER) / name).unlink()
    except FileNotFoundError:
        return False
    return True


if FOLDER:
    sys.meta_path.insert(0, _Hook())
