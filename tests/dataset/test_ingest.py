"""CINIC-10 → shards and index: the same bytes from every source, or nothing at all."""

import contextlib
import http.server
import io
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

import tlcluster.dataset.ingest
import tlcluster.dataset.publish
from tlcluster.cinic10 import CLASSES, ORIGINS, SPLITS
from tlcluster.dataset import shards
from tlcluster.dataset.decode import decode
from tlcluster.dataset.ingest import ingest
from tlcluster.dataset.sample import sample
from tlcluster.dataset.shards import INDEX_KEY, check_complete, read_index
from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.storage import patient
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

ROOT = Path(__file__).parents[2]


def contents(store: Store) -> dict[str, bytes]:
    return {item.key: store.get(item.key) for item in store.list()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """The error of `ingest` for a source; checks that nothing was written."""

    def refuse(source: Path | str, into: Store | None = None) -> str:
        store = into or open_store(str(tmp_path / "untouched"), create=True)
        before = contents(store)
        with pytest.raises(UserError) as caught:
            ingest(str(source), store, rows_per_shard=16, processes=1)
        assert contents(store) == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse


def run_job(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/ingest.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def rows_of(store: Store, split: str) -> npt.NDArray[np.void]:
    index, _ = read_index(store)
    return np.concatenate(
        [
            shards.open_shard(
                store.fetch(info.key, sha256=info.sha256, size=info.bytes), info, index
            )
            for info in index.shards(split)
        ]
    )


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> bytes:
    pixels = random.Random(1).randbytes(size[0] * size[1] * 3)  # noqa: S311
    buffer = io.BytesIO()
    PIL.Image.frombytes("RGB", size, pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def test_every_image_is_in_its_split_once_with_label_origin_name_and_pixels(
    tiny_cinic: Path, store: Store
) -> None:
    (tiny_cinic / "valid" / "frog" / "n01639765_1.png").write_bytes(encoded("PNG"))
    (tiny_cinic / "valid" / "frog" / "other.PNG").write_bytes(encoded("PNG", "L"))
    ingest(str(tiny_cinic), store, rows_per_shard=7, processes=1)
    index, _ = read_index(store)
    check_complete(store, index)
    assert (index.dataset, index.classes, index.image_shape) == ("cinic-10", CLASSES, (32, 32, 3))
    assert set(index.splits) == set(SPLITS)
    for split in SPLITS:
        expected = {}
        for path in (tiny_cinic / split).glob("*/*"):
            with PIL.Image.open(path) as image:
                expected[CLASSES.index(path.parent.name), path.name] = (
                    {"c": "cifar", "n": "imagenet", "o": "other"}[path.name[0]],
                    np.asarray(image.convert("RGB")).tobytes(),
                )
        rows = rows_of(store, split)
        found = {
            (row["label"], row["source"].decode()): (ORIGINS[row["origin"]], row["image"].tobytes())
            for row in rows
        }
        assert found == expected
        assert len(rows) == len(expected)
        assert [info.rows for info in index.shards(split)[:-1]] == [7] * (len(rows) // 7)


def test_classes_are_spread_over_the_shards(store: Store) -> None:
    ingest(sample(), store, rows_per_shard=250, processes=1)
    labels = rows_of(store, "train")["label"].reshape(4, 250)
    for shard in labels:
        # 25 are expected; fewer than 10 or more than 45 would be five standard deviations away.
        counts = Counter(shard.tolist())
        assert len(counts) == 10
        assert 10 < min(counts.values()) <= max(counts.values()) < 45
    assert (labels[:, 1:] != labels[:, :-1]).mean() > 0.8


def test_the_bytes_depend_on_images_and_rows_per_shard_only(
    tiny_cinic: Path, pack_tar: Callable[..., Path], tmp_path: Path
) -> None:
    names = sorted(path for path in tiny_cinic.rglob("*") if path.is_file())
    files = {path.relative_to(tiny_cinic).as_posix(): path.read_bytes() for path in names}
    reverse = dict(reversed(files.items()))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in reverse.items():
            archive.writestr(f"CINIC-10/{name}", data)
    sources = {
        tiny_cinic: 1,
        pack_tar("a.tar", reverse): 1,
        pack_tar("a.tar.gz", files, "w:gz"): 3,
        tmp_path / "a.zip": 2,
    }
    written = []
    for number, (source, processes) in enumerate(sources.items()):
        store = open_store(str(tmp_path / f"store{number}"), create=True)
        ingest(str(source), store, rows_per_shard=16, processes=processes)
        written.append(contents(store))
    assert written[1:] == written[:1] * 3
    assert len(written[0]) == 7  # two shards a split, and the index

    other = open_store(str(tmp_path / "other"), create=True)
    ingest(str(tiny_cinic), other, rows_per_shard=15, processes=1)
    assert read_index(other)[1] != read_index(store)[1]


def test_the_order_of_rows_is_the_same_for_ever(store: Store) -> None:
    """A new ingest of CINIC-10 must give the data set of earlier publications."""
    ingest(sample(), store, rows_per_shard=250, processes=1)
    rows = rows_of(store, "train")[:3]
    assert [(CLASSES[row["label"]], row["source"].decode()) for row in rows] == [
        ("automobile", "cifar-10-train-1042.jpg"),
        ("horse", "cifar-10-train-1015.jpg"),
        ("bird", "cifar-10-train-1008.jpg"),
    ]


def test_the_sample_has_100_images_a_class_and_split(sample_folder: Path) -> None:
    counts = Counter(path.parent for path in sample_folder.rglob("*.jpg"))
    assert list(counts.values()) == [100] * 30
    assert Path(sample()).stat().st_size < 1_000_000
    with tarfile.open(sample()) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted(
        (member.name for member in members),
        key=lambda name: (SPLITS.index(name.split("/")[0]), *name.split("/")[1:]),
    )
    assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {
        (0, 0, 0, 0o644)
    }


def test_the_job_tells_what_it_wrote_and_the_second_time_that_nothing_changed(
    tiny_cinic: Path, s3_url: str
) -> None:
    first = run_job("--source", tiny_cinic, "--store", s3_url, "--rows-per-shard", 16)
    assert (first.returncode, first.stderr) == (0, "")
    last = re.fullmatch(
        "cinic-10: 10 classes, images of 32×32 pixels\n"
        rf"90 images in 6 shards, (\d+,\d+) bytes, \d+\.\d s, [\d,]+ images/s: {s3_url}\n",
        first.stdout,
    )
    assert last
    store = open_store(s3_url)
    before = contents(store)
    size = sum(len(data) for key, data in before.items() if key != INDEX_KEY)
    assert last[1] == f"{size:,}"

    second = run_job("--source", tiny_cinic, "--store", s3_url, "--rows-per-shard", 16)
    assert (second.returncode, second.stderr) == (0, "")
    lines = second.stdout.splitlines()
    assert lines[0] == "the store already holds these images; nothing changed"
    assert lines[2].startswith("90 images in 6 shards, ")
    assert contents(store) == before


def test_a_second_ingest_writes_nothing(tiny_cinic: Path, store: Store) -> None:
    ingest(str(tiny_cinic), store, rows_per_shard=16, processes=1)
    stamps = {item.key: (Path(store.url) / item.key).stat().st_mtime_ns for item in store.list()}
    assert ingest(str(tiny_cinic), store, rows_per_shard=16, processes=1).written == 0
    assert {
        item.key: (Path(store.url) / item.key).stat().st_mtime_ns for item in store.list()
    } == stamps


def test_a_shard_that_was_lost_or_cut_short_is_written_again(
    tiny_cinic: Path, store: Store
) -> None:
    outcome = ingest(str(tiny_cinic), store, rows_per_shard=16, processes=1)
    before = contents(store)
    lost, cut = outcome.shards[0], outcome.shards[3]
    store.delete(lost.key)
    store.put(cut.key, before[cut.key][:-1])
    assert ingest(str(tiny_cinic), store, rows_per_shard=16, processes=1).written == 2
    assert contents(store) == before


class _Killed(Exception):
    pass


def test_an_ingest_that_was_interrupted_goes_on_and_keeps_what_is_there(
    tiny_cinic: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_store(str(tmp_path / "whole"), create=True)
    ingest(str(tiny_cinic), whole, rows_per_shard=16, processes=1)
    monkeypatch.setattr(tlcluster.dataset.publish, "_UPLOADS", 1)
    real = store.put
    written: list[str] = []

    def put(key: str, data: bytes | Path) -> None:
        if len(written) == 3:
            raise _Killed
        written.append(key)
        real(key, data)

    monkeypatch.setattr(store, "put", put)
    with pytest.raises(_Killed):
        ingest(str(tiny_cinic), store, rows_per_shard=16, processes=1)
    assert sorted(written) == [item.key for item in store.list()]
    with pytest.raises(UserError, match=r"has no index\.json"):
        read_index(store)

    monkeypatch.setattr(store, "put", real)
    assert ingest(str(tiny_cinic), store, rows_per_shard=16, processes=1).written == 3
    assert contents(store) == contents(whole)


def start_job(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "jobs/ingest.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    found = {int(child) for task in tasks for child in task.read_text().split()}
    return found.union(*(children(child) for child in found)) if found else found


def workers(pid: int) -> set[int]:
    """Processes that decode, without the resource tracker of multiprocessing."""
    return {
        child
        for child in children(pid)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    }


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def staged(cache: Path, split: str) -> bool:
    """Whether a shard is ready for its upload."""
    try:
        return any(cache.glob(f"tlcluster-ingest-*/{split}/*.npy"))
    except FileNotFoundError:  # The folder got its name while we looked.
        return False


@pytest.mark.parametrize("moment", ["decoding", "writing"])
def test_kill_9_in_the_middle_leaves_no_process_and_the_next_ingest_completes_it(
    moment: str, store: Store, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    arguments = ["--source", sample(), "--store", store.url, "--rows-per-shard", 2,
                 "--processes", 2, "--cache", cache]  # fmt: skip
    job = start_job(*arguments)
    reached = {
        "decoding": lambda: staged(cache, "test") or bool(store.list()),
        "writing": lambda: len(store.list("train/")) > 10,
    }[moment]
    until(reached)
    started = children(job.pid)
    job.kill()
    job.wait()
    assert not any(item.key == INDEX_KEY for item in store.list())
    until(lambda: not any(Path(f"/proc/{process}/exe").exists() for process in started))

    left = {item.key: (Path(store.url) / item.key).stat().st_ino for item in store.list()}
    outcome = ingest(sample(), store, rows_per_shard=2, processes=1, cache=cache)
    assert outcome.written == 1500 - len(left)
    check_complete(store, read_index(store)[0])
    assert all((Path(store.url) / key).stat().st_ino == node for key, node in left.items())
    assert not list(cache.glob("tlcluster-ingest-*"))


def away_for(calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """The operation of a store that fails the first times."""
    left = iter(range(calls))

    def call(*arguments: object) -> Any:
        if next(left, None) is not None:
            raise StoreUnavailable("s3://bucket: \x1b[2J cannot be reached")
        return real(*arguments)

    return call


@pytest.mark.parametrize("operation", ["get", "list", "put", "put_if_absent"])
def test_an_ingest_waits_for_storage_and_says_so_once(
    operation: str,
    tiny_cinic: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(patient, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(store, operation, away_for(3, getattr(store, operation)))
    ingest(str(tiny_cinic), store, processes=1, storage_wait=60, show=True)
    check_complete(store, read_index(store)[0])
    said = [line for line in capsys.readouterr().err.splitlines() if "storage" in line]
    assert said == [
        r"storage away: s3://bucket: \x1b[2J cannot be reached",
        "storage is back after 0 s",
    ]


def test_an_ingest_gives_up_when_its_time_is_over_or_it_is_stopped(
    tiny_cinic: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "FIRST_PAUSE_SECONDS", 0.001)
    real = store.put
    monkeypatch.setattr(store, "put", away_for(10**9, real))
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        ingest(str(tiny_cinic), store, processes=1, storage_wait=0.05)

    waiting = away_for(10**9, real)

    def put(key: str, data: bytes | Path) -> None:
        if key.startswith("test/"):
            raise UserError("the disk is full")
        waiting(key, data)

    monkeypatch.setattr(store, "put", put)
    # Uploads that wait for storage end with the first error that waiting does not mend.
    with pytest.raises(UserError, match="the disk is full"):
        ingest(str(tiny_cinic), store, processes=1, storage_wait=1e6)


@pytest.mark.parametrize("moment", ["starting", "decoding"])
def test_ctrl_c_ends_it_without_a_traceback(moment: str, store: Store, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    job = subprocess.Popen(
        [sys.executable, "jobs/ingest.py", "--source", sample(), "--store", store.url,
         "--rows-per-shard", "2", "--processes", "2", "--cache", str(cache)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(
        {
            "starting": lambda: bool(workers(job.pid)),
            "decoding": lambda: staged(cache, "*"),
        }[moment]
    )
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    out, err = job.communicate()
    assert (job.returncode, out, err) == (130, "", "")
    assert not list(cache.glob("tlcluster-ingest-*"))


def test_another_data_set_is_never_mixed_in(
    tiny_cinic: Path, store: Store, refusal: Callable[..., str]
) -> None:
    ingest(str(tiny_cinic), store, rows_per_shard=15, processes=1)
    way_out = (
        "name an empty place with --store, or ingest the same images with the same flags "
        "(--rows-per-shard, --image-size, --valid-fraction, --name)"
    )
    # Other shards of the same images.
    assert refusal(tiny_cinic, store) == (
        f"{store.url} holds another data set, 90 images in 6 shards, and this is one of 90 in 6; "
        f"{way_out}"
    )
    (tiny_cinic / "train" / "cat" / "1.png").write_bytes(encoded("PNG"))
    assert refusal(tiny_cinic, store) == (
        f"{store.url} holds another data set, 90 images in 6 shards, and this is one of 91 images; "
        f"{way_out}"
    )


def test_of_two_data_sets_at_once_one_wins_and_is_whole(
    tiny_cinic: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards of the other one stay under their own keys, and no index names them."""
    real = store.put_if_absent

    def lose(key: str, data: bytes | Path) -> bool:
        monkeypatch.setattr(store, "put_if_absent", real)
        ingest(str(tiny_cinic), store, rows_per_shard=20, processes=1)
        return real(key, data)

    monkeypatch.setattr(store, "put_if_absent", lose)
    with pytest.raises(UserError, match="holds another data set"):
        ingest(str(tiny_cinic), store, rows_per_shard=30, processes=1)
    index, _ = read_index(store)
    assert {info.rows for infos in index.splits.values() for info in infos} == {20, 10}
    for split in SPLITS:
        assert len(rows_of(store, split)) == 30


def test_two_ingests_of_one_source_at_once_both_succeed(
    tiny_cinic: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.put_if_absent

    def second(key: str, data: bytes | Path) -> bool:
        monkeypatch.setattr(store, "put_if_absent", real)
        ingest(str(tiny_cinic), store, rows_per_shard=30, processes=1)
        return real(key, data)

    monkeypatch.setattr(store, "put_if_absent", second)
    ingest(str(tiny_cinic), store, rows_per_shard=30, processes=1)
    check_complete(store, read_index(store)[0])


def test_an_index_that_cannot_be_read_is_told_and_kept(
    tiny_cinic: Path, store: Store, refusal: Callable[..., str]
) -> None:
    store.put(INDEX_KEY, b"{}")
    assert refusal(tiny_cinic, store).startswith(f"index.json of {store.url} cannot be used: ")


def claiming_size(width: int, height: int) -> bytes:
    """A PNG whose header claims another size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = bytearray(encoded("PNG"))
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(data)


BAD_IMAGES = {
    "is far too large": claiming_size(2**31 - 1, 2**31 - 1),
    "is no PNG or JPEG": b"text",
    "is damaged (…)": encoded("JPEG")[:-100],
    "is damaged  (…)": encoded("PNG").replace(b"IDAT", b"IDAT\0", 1),
    "has more than 8 bits a channel": encoded("PNG", "I;16"),
    "has more than 10,485,760 bytes": bytes(10 * 2**20 + 1),
}


@pytest.mark.parametrize("problem", BAD_IMAGES)
def test_an_image_that_cannot_be_used_is_named_before_anything_is_written(
    problem: str, tiny_cinic: Path, refusal: Callable[..., str]
) -> None:
    (tiny_cinic / "valid" / "frog" / "bad.png").write_bytes(BAD_IMAGES[problem])
    text = refusal(tiny_cinic)
    text = re.sub(r"is damaged \(.+\);", "is damaged (…);", text)  # in the words of Pillow
    assert text == (
        f"{tiny_cinic}: 1 of 91 images cannot be used: 'valid/frog/bad.png' "
        f"{problem.replace('  ', ' ')}; "
        "nothing was written, repair or remove them"
    )


def test_many_bad_images_are_counted_and_the_first_are_named(
    tiny_cinic: Path, refusal: Callable[..., str]
) -> None:
    for number in range(5):
        (tiny_cinic / "train" / CLASSES[number] / "bad.jpg").write_bytes(b"")
    assert refusal(tiny_cinic) == (
        f"{tiny_cinic}: 5 of 95 images cannot be used: "
        "'train/airplane/bad.jpg' is no PNG or JPEG; 'train/automobile/bad.jpg' is no PNG or JPEG; "
        "'train/bird/bad.jpg' is no PNG or JPEG; and 2 more; "
        "nothing was written, repair or remove them"
    )


def test_an_image_that_goes_away_in_the_middle_is_named(
    tiny_cinic: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = min((tiny_cinic / "test" / "ship").iterdir())
    real = tlcluster.dataset.ingest.stage

    def stage(*args: object) -> object:
        victim.unlink()
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tlcluster.dataset.ingest, "stage", stage)
    assert refusal(tiny_cinic) == (
        f"{tiny_cinic}: 1 of 90 images cannot be used: 'test/ship/{victim.name}' cannot be read "
        "(No such file or directory); nothing was written, repair or remove them"
    )


def test_a_source_that_is_laid_out_wrong_leaves_the_store_empty(
    tiny_cinic: Path, refusal: Callable[..., str]
) -> None:
    (tiny_cinic / "train" / "cta").mkdir()
    (tiny_cinic / "train" / "cta" / "1.png").write_bytes(encoded("PNG"))
    assert refusal(tiny_cinic) == (
        f"{tiny_cinic}: there is no image in 'valid/cta', but 'train/cta' has some; every split "
        "needs images of every class"
    )


def test_a_store_inside_its_source_is_refused(
    tiny_cinic: Path, refusal: Callable[..., str]
) -> None:
    for place in (tiny_cinic, tiny_cinic / "train"):
        assert refusal(tiny_cinic, open_store(str(place))) == (
            f"--store {place}: lies in the source {tiny_cinic}; name a place outside of it"
        )


def test_a_source_that_is_a_link_to_itself_is_refused(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "loop") == (
        f"{tmp_path}/loop: no such file or folder; check the path"
    )


COLOURS = [
    *(("PNG", mode) for mode in ("RGB", "L", "P", "RGBA", "LA", "1")),
    *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
]


@pytest.mark.parametrize(("kind", "mode"), COLOURS)
def test_all_colours_become_rgb(kind: str, mode: str) -> None:
    data = encoded(kind, mode)
    with PIL.Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    pixels = decode(data, (32, 32))
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert (pixels == expected).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_whatever_is_wrong_with_an_image_is_one_reason(kind: str) -> None:
    data = encoded(kind)
    generator = random.Random(524)  # noqa: S311
    reasons = []
    for _ in range(3000):
        damaged = bytearray(data)
        for _ in range(generator.choice([1, 3, 10])):
            # Most of an image is pixels; what breaks decoders is at the front.
            place = generator.choice([len(damaged), 200, 60])
            damaged[generator.randrange(place)] = generator.randrange(256)
        if generator.random() < 0.2:
            del damaged[generator.randrange(len(damaged)) :]
        try:
            decode(bytes(damaged), (32, 32))
        except ValueError as error:
            reasons.append(str(error))
    assert len(reasons) > 1000
    assert all(reasons)


def test_a_full_disk_is_told_before_decoding(small_disk: Path, store: Store) -> None:
    with pytest.raises(UserError) as caught:
        ingest(sample(), store, rows_per_shard=250, processes=1, cache=small_disk)
    assert re.fullmatch(
        rf"{small_disk}: the images of {sample()} take more than the [\d,]+ bytes that may be used "
        "of this disk; free some space or name another folder with --cache",
        str(caught.value),
    )
    assert store.list() == []


def test_shards_that_will_not_fit_are_refused_before_they_are_made(
    sample_folder: Path, small_disk: Path, store: Store
) -> None:
    with pytest.raises(UserError) as caught:
        ingest(str(sample_folder), store, rows_per_shard=250, processes=1, cache=small_disk)
    assert re.fullmatch(
        rf"{small_disk}: 3,000 images take 9,\d+,\d+ bytes until they are in the store and "
        r"[\d,]+ are free; free some space or name another folder with --cache",
        str(caught.value),
    )


def test_an_archive_is_ingested_from_a_server_that_breaks_off_in_the_middle(
    store: Store, tmp_path: Path
) -> None:
    body = Path(sample()).read_bytes()
    asked: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range"))
            start = int(asked[-1].removeprefix("bytes=")[:-1]) if asked[-1] else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", '"1"')
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body[start : start + 600_000])

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/CINIC-10.tar.xz"
        ingest(url, store, rows_per_shard=250, processes=1, cache=tmp_path / "cache")
        server.shutdown()
    assert [value for value in asked if value] == ["bytes=600000-"]
    local = open_store(str(tmp_path / "local"), create=True)
    ingest(sample(), local, rows_per_shard=250, processes=1)
    assert contents(store) == contents(local)


@pytest.fixture(scope="module")
def large_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """20,000 images under names of their own."""
    path = tmp_path_factory.mktemp("large") / "large.tar"
    data = [encoded("PNG"), encoded("JPEG"), encoded("PNG", "L")]
    with tarfile.open(path, "w") as archive:
        for number in range(20_000):
            split, label = SPLITS[number % 3], CLASSES[number // 3 % 10]
            info = tarfile.TarInfo(f"CINIC-10/{split}/{label}/n01234567_{number}.png")
            image = data[number % 7 % 3]
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
    yield path
    path.unlink()


MEASURE = """
import pathlib, resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
# Not ru_maxrss: that begins with what the process that started this one had, tests and all.
status = pathlib.Path("/proc/self/status").read_text()
own = int(status.partition("VmHWM:")[2].split()[0])
largest_worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(own, largest_worker)
"""


def test_it_takes_less_than_a_gigabyte_of_memory(
    large_archive: Path, store: Store, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "jobs/ingest.py", "--source", large_archive,
         "--store", store.url, "--processes", "2", "--cache", tmp_path / "cache"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    own, worker = map(int, done.stdout.splitlines()[-1].split())
    assert own + 2 * worker < 2**20  # kilobytes
    assert sum(read_index(store)[0].rows(split) for split in SPLITS) == 20_000


def test_the_job_refuses_in_one_line_with_status_2(tmp_path: Path) -> None:
    expected = {
        ("--store", tmp_path): "the following arguments are required: --source; see "
        "python jobs/ingest.py --help",
        ("--source", tmp_path, "--store", "embedded"): "--store embedded: the embedded store ends "
        "with the run that starts it, and is filled by it; give s3://BUCKET/PREFIX or a directory",
        ("--source", tmp_path / "none", "--store", tmp_path / "s"): f"{tmp_path}/none: no such "
        "file or folder; check the path",
        ("--source", "x", "--store", tmp_path / "s", "--rows-per-shard", 0): "--rows-per-shard 0: "
        "input should be greater than 0",
    }
    for arguments, text in expected.items():
        job = run_job(*arguments)
        assert (job.returncode, job.stdout, job.stderr) == (2, "", f"error: {text}\n")


def test_the_job_says_whatever_goes_wrong_with_s3_in_one_line(
    tiny_cinic: Path, s3_url: str
) -> None:
    job = run_job(
        "--source", tiny_cinic, "--store", s3_url,
        AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_ENDPOINT_URL_S3="http://127.0.0.1:1",
    )  # fmt: skip
    assert (job.returncode, job.stdout) == (2, "")
    assert job.stderr == (
        f"error: {s3_url}: http://127.0.0.1:1 cannot be reached (EndpointConnectionError); check "
        "AWS_ENDPOINT_URL, the network and the proxy settings\n"
    )


def test_help_needs_neither_boto3_nor_tensorflow_nor_ray() -> None:
    job = subprocess.run(
        [sys.executable, "-X", "importtime", "jobs/ingest.py", "--help"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in job.stderr.splitlines()}
    assert not imported & {"boto3", "botocore", "tensorflow", "ray"}
    for flag in ("--source", "--store", "--image-size", "--valid-fraction", "--rows-per-shard"):
        assert flag in job.stdout
