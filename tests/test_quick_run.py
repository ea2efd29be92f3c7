"""The whole of it, as an unlucky stranger runs it: the quick profile on the embedded store, killed.

The output is on a file system without locks and hard links, if there is a C compiler for that. The
home cannot be written, few files may be open, and other programs have left their settings.
"""

import json
import signal
import sys
from pathlib import Path

import pytest
from poor_file_system import COMPILER, poor_file_system
from real_run import Command, epochs, gone, result

from tlcluster.experiments import EXPERIMENTS

pytestmark = pytest.mark.cluster

NAME = "whole"


LEFT_BEHIND = {
    "TF_CONFIG": '{"cluster": {"worker": ["10.1.1.1:1", "10.1.1.2:2"]}, "task": {"index": 1}}',
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "TF_USE_LEGACY_KERAS": "0",
    "KERAS_BACKEND": "torch",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "localhost",
    "FORCE_COLOR": "1",
    "MLFLOW_TRACKING_URI": "http://account:secret@localhost:9",
}
"""Of notebooks, other jobs and the site."""


SHORTER = (
    "--set", "augmented.epochs=3", "--set", "regularized.epochs=3", "--set", "finetuned.epochs=2",
)  # fmt: skip
"""A quarter of the work of the whole profile; a drill on Slurm trains all of it."""


def run(folder: Path, output: Path, *more: object) -> Command:
    nowhere = folder / "file"
    nowhere.touch()
    home = {"HOME": str(nowhere), "XDG_CACHE_HOME": str(nowhere)}
    poor = poor_file_system(folder, output) if COMPILER else {}
    return Command(
        folder, "jobs/run_all.py", "--output", output, "--run-name", NAME,
        "--checkpoint-seconds", "5", *SHORTER, *more,
        program=("bash", "-c", 'ulimit -n 256; exec "$@"', "bash", sys.executable),
        environment={**LEFT_BEHIND, **home, **poor},
    )  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, imagenet_weights: bytes) -> Path:
    """The output folder of a quick run whose driver was killed in the middle and started again."""
    assert imagenet_weights  # or the test is skipped, saying so
    folder = tmp_path_factory.mktemp("quick")
    output = folder / "runs"
    with run(folder, output) as command:
        command.until(lambda: result(output / NAME, "frozen").status == "finished")
        command.until(lambda: len(epochs(output / NAME, "finetuned")) >= 1)
        # Ray's own agents notice later that their raylet is gone; what trains ends at once.
        workers = set(command.workers())
        command.send(signal.SIGKILL)
        assert gone(workers)
    before = {name: epochs(output / NAME, name) for name in EXPERIMENTS}
    with run(folder, output) as command:
        assert command.ended() == 0, command.said()
        *_, tracker, last = command.stdout.read_text().splitlines()
    assert last == str(output / NAME / "report" / "index.html")
    # Nobody listens there; the run has said so, and how to send the rest.
    assert tracker.startswith("MLflow: not everything was sent (")
    assert "secret" not in command.said()
    for name, records in before.items():
        now = epochs(output / NAME, name)
        assert [record.epoch for record in now] == list(range(1, len(now) + 1))
        # What was recorded before and is trained again gives the same, but for the time it takes.
        for old, new in zip(records, now, strict=False):
            assert (old.loss, old.val_accuracy) == (new.loss, new.val_accuracy)
    return output


def test_all_four_finish_after_a_kill_and_the_finished_one_is_not_repeated(output: Path) -> None:
    attempts = {}
    for name in EXPERIMENTS:
        ended = result(output / NAME, name)
        assert ended.status == "finished"
        attempts[name] = ended.attempts
    assert attempts["frozen"] == 1
    assert attempts["finetuned"] == 2


def test_heads_classify_more_than_three_in_ten_of_the_sample_and_two_epochs_more_than_chance(
    output: Path,
) -> None:
    results = json.loads((output / NAME / "report" / "results.json").read_text())
    assert results["run"]["status"] == "finished"
    accuracies = {e["name"]: e["test"]["accuracy"] for e in results["experiments"]}
    assert list(accuracies) == list(EXPERIMENTS)
    assert accuracies.pop("finetuned") > 0.15
    assert min(accuracies.values()) > 0.30, accuracies


def test_a_run_leaves_what_the_readme_says(output: Path) -> None:
    run_folder = output / NAME
    for name in EXPERIMENTS:
        left = {path.name for path in (run_folder / name).iterdir()}
        assert left >= {
            "config.json", "epochs.jsonl", "result.json", "predictions.npz", "model.weights.h5",
            "tensorboard",
        }  # fmt: skip
    report = {path.name for path in (run_folder / "report").iterdir()}
    assert report >= {"index.html", "summary.csv", "results.json"}
    assert {path.suffix for path in (run_folder / "report").iterdir()} >= {".svg", ".png"}
    assert json.loads((run_folder / "pictures.json").read_text())["lacking"] is None
    assert "<img" in (run_folder / "report" / "index.html").read_text()


def test_augmented_views_are_removed_when_all_have_passed_them(output: Path) -> None:
    views = {path.name for path in output.glob("features/*/train/*") if any(path.iterdir())}
    assert views == {"00000"}


def test_the_report_is_rebuilt_from_the_records_to_the_byte(output: Path, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (output / NAME / "report").iterdir()}

    before = files()
    for path in (output / NAME / "report").iterdir():
        path.unlink()
    with Command(tmp_path, "jobs/report.py", "--run", output / NAME) as command:
        assert command.ended() == 0, command.said()
    assert files() == before


def test_every_number_and_every_hash_of_the_report_is_confirmed(
    output: Path, tmp_path: Path
) -> None:
    with Command(tmp_path, "jobs/verify.py", "--run", output / NAME) as command:
        assert command.ended() == 0, command.said()
        lines = command.stdout.read_text().splitlines()
    claims = [line for line in lines[:-1] if not line.startswith(" ")]
    unchecked = [line for line in claims if not line.startswith("holds  ")]
    # The embedded store ended with the run.
    assert unchecked == [
        "not checked  the predictions are for the test images of the data set",
        "not checked  pictures.json has images of the data set",
    ]
    for name in EXPERIMENTS:
        for file in ("result.json", "predictions.npz", "model.weights.h5"):
            assert f"holds        {name}/{file} is what the run wrote" in claims


def test_a_finished_run_is_not_trained_again(output: Path, tmp_path: Path) -> None:
    before = {name: result(output / NAME, name) for name in EXPERIMENTS}
    with run(tmp_path, output) as command:
        assert command.ended() == 0, command.said()
        lines = command.stdout.read_text().splitlines()
    # Without the published file, one line says which weights are used.
    lines = [line for line in lines if not line.startswith(("weights: ", "MLflow: "))]
    # Between them is what it has cost.
    assert [(*line.split()[:2], line.split()[-1]) for line in lines[:-1]] == [
        (name, "finished", "earlier") for name in EXPERIMENTS
    ]
    assert {name: result(output / NAME, name) for name in EXPERIMENTS} == before


def test_a_run_goes_on_with_its_own_settings_only(output: Path, tmp_path: Path) -> None:
    with run(tmp_path, output, "--set", "frozen.epochs=3") as command:
        assert command.ended() == 2, command.said()
    assert command.stderr.read_text() == (
        f"error: --run-name {NAME}: that run exists with other settings: frozen.epochs was 12, is "
        "3; use the same settings to go on with it, or another name\n"
    )
