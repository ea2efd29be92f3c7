"""Fixtures that several test files share: a real S3 server, and small data sets of real images."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from browsing import chromium
from fault_table import TABLE, markdown
from selenium import webdriver

from tlcluster.dataset.ingest import ingest
from tlcluster.dataset.sample import SAMPLE_ROWS_PER_SHARD, sample
from tlcluster.dataset.shards import open_shard, read_index
from tlcluster.orchestration.environment import tensorflow_environment
from tlcluster.paths import SHARED
from tlcluster.storage.embedded import EmbeddedStore, embedded_store
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.training.shipped_weights import shipped_weights
from tlcluster.training.weights import find_weights

# What tests compute themselves has the workers' kernels. By default TensorFlow chooses others on
# AMD's processors than on Intel's, and sums are rounded in another order.
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
os.environ[ONEDNN] = tensorflow_environment()[ONEDNN]

# On a busy machine, a first call may take long.
hypothesis.settings.register_profile("tlcluster", deadline=None)
hypothesis.settings.load_profile("tlcluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with real clusters come first.

    `make test` deals the files out to two processes. These take longest and wait a lot; at the end
    one of them would run alone.
    """
    clusters = {item.path for item in items if item.get_closest_marker("cluster")}
    items.sort(key=lambda item: item.path not in clusters)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After drills, print what they have found out."""
    if TABLE:
        terminalreporter.section("faults")
        for line in markdown(TABLE):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """What is started in the background ignores SIGINT, and with `nohup` SIGHUP, and so would all
    that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps what tests cache apart from what the account caches."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def untracked() -> Iterator[None]:
    """No run of a test goes to the account's trackers."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def s3() -> Iterator[EmbeddedStore]:
    """A real S3 server, SeaweedFS; this process's environment points at it until the end."""
    with embedded_store() as server:
        yield server


@pytest.fixture
def s3_url(s3: EmbeddedStore) -> str:
    """The address of an empty place on that server."""
    return f"{s3.url}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample of the package, unpacked: 100 images a class and split. Not to be changed."""
    folder = tmp_path_factory.mktemp("sample")
    with tarfile.open(sample()) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def tiny_cinic(sample_folder: Path, tmp_path: Path) -> Path:
    """A CINIC-10 of its own for a test to change: 3 images a class and split, 90 in all."""
    return first_images(sample_folder, tmp_path / "tiny", 3)


@pytest.fixture(scope="session")
def small_cinic(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CINIC-10 for real trainings: 20 images a class and split, 600 in all. Not to be changed."""
    return first_images(sample_folder, tmp_path_factory.mktemp("small"), 20)


def first_images(source: Path, folder: Path, count: int) -> Path:
    """Copy the first images of each class and split; returns `folder`."""
    for class_folder in sorted(source.glob("*/*")):
        target = folder / class_folder.relative_to(source)
        target.mkdir(parents=True)
        for image in sorted(class_folder.iterdir())[:count]:
            shutil.copyfile(image, target / image.name)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs '{folder}' 2>/dev/null"):  # noqa: S605
        pytest.skip("only root may mount a small file system")
    yield folder
    os.system(f"umount '{folder}'")  # noqa: S605


@pytest.fixture
def pack_tar(tmp_path: Path) -> Callable[..., Path]:
    """`pack_tar(name, {path: bytes, …}, mode="w")` makes a tar archive with these files."""

    def pack(name: str, files: dict[str, bytes], mode: str = "w") -> Path:
        path = tmp_path / name
        with tarfile.open(path, mode) as archive:
            for member, data in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    return pack


@pytest.fixture(scope="session")
def sample_store(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The sample, ingested into a directory: 4 shards of 250 images a split. Not to be changed."""
    store = open_store(str(tmp_path_factory.mktemp("sample-store")))
    ingest(str(sample_folder), store, rows_per_shard=SAMPLE_ROWS_PER_SHARD, processes=1)
    return store


@pytest.fixture(scope="session")
def sample_images(sample_store: Store) -> np.ndarray:
    """The train images of the sample, uint8 (1000, 32, 32, 3), in index order."""
    index, _ = read_index(sample_store)
    paths = [
        (sample_store.fetch(info.key, sha256=info.sha256, size=info.bytes), info)
        for info in index.shards("train")
    ]
    return np.concatenate([open_shard(path, info, index)["image"] for path, info in paths])


@pytest.fixture(scope="session")
def imagenet_weights() -> bytes:
    """VGG16's ImageNet weights: the published ones if they are on this machine, else our copy."""
    content = find_weights(["vgg16"], download=False)["vgg16"].content
    return content or shipped_weights()


@pytest.fixture(scope="session")
def published_weights() -> bytes:
    """VGG16's weights file as it is published, from a place on this machine."""
    content = find_weights(["vgg16"], download=False)["vgg16"].content
    if content is None:
        reason = "VGG16's published weights are not here; put them into ../shared/weights"
        # Beside a checkout that is to be tested in full, a missing file is a mistake.
        in_full = os.environ.get("CI") == "true" and SHARED.exists()
        (pytest.fail if in_full else pytest.skip)(reason)
    return content


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium, without a window."""
    chrome = chromium()
    yield chrome
    chrome.quit()


Wave = list[list[dict[str, Any]]]


@pytest.fixture(scope="session")
def run_wave(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Wave], list[Any]]]:
    """`run_wave(groups)` runs groups of workers at the same time; see `run_worker.py`.

    A group of answers is as its group of jobs: `[[{…}, {…}], [{…}]]`. A worker that died has
    None, and its last words are in the file that is told.
    """
    folder = tmp_path_factory.mktemp("workers")
    script, stderr = Path(__file__).with_name("run_worker.py"), folder / "stderr"
    with stderr.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, script, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(script.parents[1])},
        )
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def run(wave: Wave) -> list[Any]:
            stdin.write(json.dumps(wave) + "\n")
            stdin.flush()
            line = stdout.readline()
            assert line, stderr.read_text()[-3000:]
            answers = json.loads(line)
            if any(answer is None for group in answers for answer in group):
                print(f"a worker died, see {stderr}")
            return answers

        yield run
        stdin.close()
        process.wait(60)
