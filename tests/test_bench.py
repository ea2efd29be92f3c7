"""What the benchmark promises: honest arithmetic, one line of JSON a program, tables to copy."""

import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tlcluster.bench import machine, program
from tlcluster.bench.clock import time_epochs
from tlcluster.bench.datasets import prepared
from tlcluster.bench.input import PNG, RAW
from tlcluster.bench.machine import peer_versions
from tlcluster.bench.measures import Comparison, Machine, Part, Timing, fastest, ratio
from tlcluster.bench.memory import ours, peak_bytes, watched_workers
from tlcluster.bench.parts import PARTS, writable
from tlcluster.bench.pngs import png_files
from tlcluster.bench.program import package_alone
from tlcluster.bench.show import number, show_machine, show_part
from tlcluster.dataset.sample import sample
from tlcluster.errors import UserError
from tlcluster.settings import BENCH_PARTS, BenchSettings
from tlcluster.storage.protocol import Store

ROOT = Path(__file__).parent.parent


def rate(name: str, *values: float, note: str = "") -> Timing:
    return Timing(name=name, unit="images/s", values=values, note=note)


# --- numbers -----------------------------------------------------------------------------------


def test_medians_are_compared_not_the_best_of_each() -> None:
    ours, theirs = rate("ours", 90, 100, 1000), rate("theirs", 10, 1, 500)
    assert ratio("ours ÷ theirs", ours, theirs, goal=10).value == 10
    assert ours.spread == 9.1
    assert fastest([theirs, ours]) is ours


def test_a_goal_is_reached_from_its_own_side() -> None:
    def reached(value: float, better: str) -> bool | None:
        row = {"name": "", "value": value, "goal": 2, "better": better}
        return Comparison.model_validate(row).reached

    assert [reached(v, "more") for v in (1.9, 2, 3)] == [False, True, True]
    assert [reached(v, "less") for v in (1.9, 2, 3)] == [True, True, False]
    assert Comparison(name="", value=1).reached is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (184_321, "184,000"),
        (1_234, "1,230"),
        (999.4, "999"),
        (45.26, "45.3"),
        (0.9142, "0.914"),
        (0, "0"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


# --- tables ------------------------------------------------------------------------------------

GOLDEN = """\
machine    A processor, 2 cores, 24 GiB, Linux 6, Python 3.11.7
versions   tlcluster 0.1.0, torch 2.14.1
data       3,000 images of the sample

input: images, on one core
┏━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━┳━━━━━━━┓
┃ measured ┃  median ┃          ┃   least ┃    most ┃ times ┃
┡━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━╇━━━━━━━┩
│ ours     │ 300,000 │ images/s │ 299,000 │ 305,000 │     3 │
│ theirs   │  10,000 │ images/s │  10,000 │  10,000 │     1 │
└──────────┴─────────┴──────────┴─────────┴─────────┴───────┘
┏━━━━━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━┳━━━━━━━━━┓
┃ compared      ┃  value ┃   goal ┃ reached ┃
┡━━━━━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━╇━━━━━━━━━┩
│ ours ÷ theirs │ 30.0 × │ ≥ 25 × │     yes │
│ good to know  │ 30.0 × │        │         │
└───────────────┴────────┴────────┴─────────┘
  theirs: as its users write it
  $ python -m tlcluster.bench.read_stream s3://…
"""


def test_a_table_has_the_machine_the_peer_beside_us_and_the_commands() -> None:
    ours = rate("ours", 300_000, 299_000, 305_000)
    theirs = rate("theirs", 10_000, note="as its users write it")
    part = Part(
        name="input",
        about="images, on one core",
        timings=(ours, theirs),
        comparisons=(
            ratio("ours ÷ theirs", ours, theirs, 25),
            ratio("good to know", ours, theirs),
        ),
        commands=("python -m tlcluster.bench.read_stream s3://…",),
    )
    here = Machine(
        processor="A processor",
        cores=2,
        memory_gib=23.6,
        system="Linux 6, Python 3.11.7",
        versions={"tlcluster": "0.1.0", "torch": "2.14.1"},
    )
    text = io.StringIO()
    console = Console(file=text, width=80)
    show_machine(console, here, "3,000 images of the sample")
    show_part(console, part)
    assert text.getvalue() == GOLDEN
    assert json.loads(part.model_dump_json())["comparisons"][0]["reached"] is True


# --- images ------------------------------------------------------------------------------------


def test_images_are_made_once_in_both_forms(tmp_path: Path) -> None:
    images = prepared(sample(), tmp_path, per_class=2)
    assert images.rows == {"train": 20, "valid": 20, "test": 20}
    assert len(list(images.folder.rglob("*.png"))) == images.total == 60
    before = (images.store / "index.json").stat().st_mtime_ns
    assert prepared(sample(), tmp_path, per_class=2) == images
    assert (images.store / "index.json").stat().st_mtime_ns == before


def test_images_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data nowhere: no such file"):
        prepared("nowhere", tmp_path)


def test_peers_are_given_every_file_once_with_its_label_and_classes_mixed(
    sample_folder: Path,
) -> None:
    labels = [label for _, label in png_files(sample_folder / "train")]
    assert Counter(labels) == dict.fromkeys(range(10), 100)
    assert len(set(labels[:100])) == 10


# --- programs ----------------------------------------------------------------------------------


def test_a_reader_tells_its_seconds_and_images(capsys: pytest.CaptureFixture[str]) -> None:
    batch = (np.zeros((3, 32, 32, 3), np.uint8), np.zeros(3))
    time_epochs(lambda: [batch, batch], epochs=2)
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == [6, 6]
    assert all(seconds > 0 for seconds in told["seconds"])


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (np.zeros((3, 32, 32, 3), np.float32), np.zeros(3)),
        (np.zeros((3, 3, 32, 32), np.uint8), np.zeros(3)),
        (np.zeros((3, 32, 32, 3), np.uint8), np.zeros(2)),
    ],
    ids=["float", "channels-first", "labels"],
)
def test_a_reader_of_something_else_is_not_compared(inputs: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(TypeError):
        time_epochs(lambda: [(inputs, labels)], epochs=1)


@pytest.mark.parametrize("options", [(), ("--verify-only",)], ids=["batches", "verify-only"])
def test_our_reader_reads_every_image_in_every_epoch(
    options: tuple[str, ...], sample_store: Store, tmp_path: Path
) -> None:
    arguments = ("--cache", tmp_path, "--epochs", 2, *options)
    answer = program.ask("read_stream", sample_store.url, *arguments)
    assert answer.said["images"] == [1000, 1000]
    assert answer.seconds > sum(answer.said["seconds"])


def test_an_order_takes_no_more_memory_for_twenty_times_the_images() -> None:
    few, many = (program.ask("read_order", rows) for rows in (60_000, 1_300_000))
    assert many.said["rows"] == 1_300_000
    assert many.peak_bytes - few.peak_bytes < 16 * 2**20


def test_a_program_that_fails_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"read_order many ended with status 2: .*'many'"):
        program.ask("read_order", "many")


def test_peers_find_this_package_and_nothing_that_is_installed_beside_it() -> None:
    with package_alone() as folder:
        assert [path.name for path in folder.iterdir()] == ["tlcluster"]
        # -S: without the site-packages of this interpreter.
        done = subprocess.run(
            [
                sys.executable,
                "-S",
                "-P",
                "-c",
                "import tlcluster.bench.clock, tlcluster.bench.pngs",
            ],
            env={"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert not folder.exists()


def test_an_installed_package_names_what_peers_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "IN_CHECKOUT", False)
    with pytest.raises(UserError, match="install mosaicml-streaming, webdataset, litdata, torch"):
        peer_versions(tmp_path / "python")


def test_a_program_has_the_cores_that_it_is_given() -> None:
    assert program.shown("matmul", cores=[1]) == "taskset -c 1 python -m tlcluster.bench.matmul"


def test_the_most_that_was_resident_is_read() -> None:
    assert peak_bytes("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t1024 kB\n") == 2 * 2**20
    assert peak_bytes("Name:\tzombie\n") == 0


def test_training_processes_of_our_own_are_watched() -> None:
    command = ["bash", "-c", "exec -a ray::RayTrainWorker sleep 60"]
    with watched_workers() as peaks, subprocess.Popen(command) as worker:
        deadline = time.monotonic() + 30
        while not peaks.get(worker.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        worker.kill()
    assert set(peaks) == {worker.pid}
    assert peaks[worker.pid] > 0
    assert not ours(os.getppid())


@pytest.mark.cluster
@pytest.mark.parametrize("form", ["png", "raw"])
def test_tfrecords_are_read_as_they_were_written(
    form: str, sample_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "records"
    program.ask(
        "peer_tfrecord", "make", folder, "--form", form, "--source", sample_folder / "train"
    )
    answer = program.ask("peer_tfrecord", "read", folder, "--form", form, "--epochs", 1)
    assert answer.said["images"] == [1000]


# --- the command -------------------------------------------------------------------------------


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "jobs/bench.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_part_that_can_be_asked_for_is_there() -> None:
    assert tuple(PARTS) == BenchSettings().tables()
    assert set(PARTS) == {table for tables in BENCH_PARTS.values() for table in tables}


def test_a_part_is_asked_for_as_a_whole_or_by_its_tables() -> None:
    assert BenchSettings(only="input, suite-frozen,input").tables() == ("input", "suite-frozen")
    assert BenchSettings(only="suite").tables() == BENCH_PARTS["suite"]


def test_every_reader_is_a_program_and_has_records_of_its_own() -> None:
    readers = [*PNG, *RAW]
    assert len({reader.place for reader in readers}) == len(readers)
    for reader in readers:
        assert (ROOT / "tlcluster" / "bench" / f"{reader.module}.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "inptu"), "error: --only inptu: no part 'inptu'; did you mean input?"),
        (("--only", "input", "--peers", "nowhere"), "the peers' environment is missing; make it"),
        (("--only", "input", "--peers", sys.executable), "not all peers are installed there"),
        (("--only", "memory", "--json", "."), "error: --json .: is a directory; name a file"),
        (("--only", "input", "--peers", "9" * 400), "file name too long; make it with"),
        (("--only", "startup", "--work", "/dev/null/x"), "error: --work /dev/null/x: not a dir"),
        (("--only", "startup", "--data", "https://u:SECRET@h"), "error: --data https://…@h: no"),
        (("--repeats", "0"), "error: --repeats 0: input should be greater than 0"),
    ],
    ids=["part", "no-peers", "some-peers", "json", "long-peers", "work", "secret", "repeats"],
)
def test_what_cannot_be_measured_is_told_in_one_line(
    arguments: tuple[str, ...], words: str
) -> None:
    done = bench(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_findings_can_be_written_where_nothing_was(tmp_path: Path) -> None:
    assert writable(str(tmp_path / "new.json")).read_text() == ""


def test_peers_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make bench"):
        peer_versions(tmp_path / "python")
