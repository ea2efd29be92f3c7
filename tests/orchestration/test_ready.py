"""All that a run is given is checked before anything is started or written."""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tlcluster.backbones import BACKBONES
from tlcluster.cinic10 import CLASSES
from tlcluster.dataset.sample import fill_with_sample
from tlcluster.errors import UserError
from tlcluster.orchestration import ready
from tlcluster.orchestration.ready import Ready, made_ready
from tlcluster.records import NodeRecord
from tlcluster.settings import RunSettings
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.embedded import EmbeddedStore
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.training import weights
from tlcluster.training.fetch import NotFetched
from tlcluster.training.shipped_weights import shipped_weights
from tlcluster.training.weights import VARIABLE


def nodes(count: int = 1, cpus: int = 2) -> tuple[NodeRecord, ...]:
    return tuple(
        NodeRecord(host=f"node{number}", cpus=cpus, gpus=0, memory_bytes=1)
        for number in range(count)
    )


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray must not be started where something that was given cannot be used."""

    def start(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ready, "ray_cluster", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def pretended_cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`pretended_cluster(n)` makes runs believe that they joined a Ray cluster of n nodes."""

    def pretend(count: int) -> None:
        @contextlib.contextmanager
        def joined(_: str | None) -> Iterator[tuple[NodeRecord, ...]]:
            yield nodes(count)

        monkeypatch.setattr(ready, "ray_cluster", joined)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)

    return pretend


@pytest.fixture
def copied_store(sample_store: Store, tmp_path: Path) -> Path:
    """The sample's store, for a test to change."""
    return Path(shutil.copytree(sample_store.url, tmp_path / "store"))


def prepare(**flags: Any) -> Ready:
    with contextlib.ExitStack() as stack:
        return made_ready(
            RunSettings(**{"run_name": "first", "weights": ("none",), **flags}), stack
        )


def refusal(**flags: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepare(**flags)
    message = str(caught.value)
    assert "\n" not in message
    return message


INGEST = "python jobs/ingest.py --source"


def change_index(store: Path, **changes: object) -> None:
    path = store / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key_of(s3: EmbeddedStore) -> str:
    lines = s3.credentials_file.read_text().splitlines()
    return next(line.partition(" = ")[2] for line in lines if "access_key_id" in line)


def credentials(monkeypatch: pytest.MonkeyPatch, key: str, secret: str) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)


def test_a_store_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert refusal(store=str(tmp_path / "none")) == (
        f"{tmp_path}/none: no such directory; check the path, or fill a store there: "
        f"{INGEST} … --store {tmp_path}/none"
    )


def test_a_store_that_is_of_no_known_kind_is_refused() -> None:
    assert refusal(store="gs://bucket") == (
        "gs://…: no such kind of store; give s3://BUCKET/PREFIX or a directory"
    )


def test_a_store_that_has_no_index_is_refused(tmp_path: Path) -> None:
    assert refusal(store=str(tmp_path)) == (
        f"{tmp_path} has no index.json, so no data set was ingested there completely; "
        f"run: {INGEST} PATH --store {tmp_path}"
    )


def test_a_store_whose_index_is_damaged_is_refused(copied_store: Path) -> None:
    (copied_store / "index.json").write_text("{")
    assert refusal(store=str(copied_store)).startswith(
        f"index.json of {copied_store} cannot be used: "
    )


def test_a_store_that_lacks_a_shard_is_refused(copied_store: Path) -> None:
    gone = sorted(copied_store.glob("valid/*.npy"))[1]
    gone.unlink()
    assert refusal(store=str(copied_store)) == (
        f"{copied_store} lacks the shard valid/{gone.name}; "
        f"run: {INGEST} PATH --store {copied_store}"
    )


def test_a_store_with_a_shard_that_was_cut_short_is_refused(copied_store: Path) -> None:
    cut = min(copied_store.glob("test/*.npy"))
    size = cut.stat().st_size
    os.truncate(cut, size - 1)
    assert refusal(store=str(copied_store)) == (
        f"{copied_store} has {size - 1} bytes of the shard test/{cut.name}, the index says "
        f"{size}; run: {INGEST} PATH --store {copied_store}"
    )


def test_a_store_of_any_classes_and_larger_images_is_taken(
    copied_store: Path, pretended_cluster: Callable[[int], None]
) -> None:
    pretended_cluster(1)
    classes = ["кот", *CLASSES[1:]]
    change_index(copied_store, dataset="pets", classes=classes, image_shape=[40, 48, 3])
    made = prepare(store=str(copied_store))
    assert (made.index.classes, made.index.image_shape) == (tuple(classes), (40, 48, 3))


def test_a_store_of_images_too_small_for_a_base_is_refused(copied_store: Path) -> None:
    change_index(copied_store, image_shape=[64, 28, 3])
    assert refusal(store=str(copied_store)) == (
        f"{copied_store}: its images are 28×64, and the base vgg16 takes 32 pixels a side and "
        "more; set input_size to 32 or more, ingest them again with --image-size 32 into another "
        "place, or choose experiments with another base"
    )


def test_images_are_made_larger_for_a_base_and_never_smaller(
    copied_store: Path, pretended_cluster: Callable[[int], None]
) -> None:
    pretended_cluster(1)
    change_index(copied_store, image_shape=[64, 28, 3])
    prepare(store=str(copied_store), set=("*.input_size=32",))
    assert refusal(store=str(copied_store), set=("*.input_size=30",)) == (
        "frozen.input_size 30: the base vgg16 takes 32 pixels a side and more; give 32 or more"
    )
    assert refusal(store=str(copied_store), set=("*.input_size=20",)) == (
        f"frozen.input_size 20: the images of {copied_store} are 28×64, and they are only made "
        "larger; give 28 or more, or 0 to leave them"
    )


def test_a_store_of_grey_images_is_refused(copied_store: Path) -> None:
    change_index(copied_store, image_shape=[32, 32, 1])
    assert refusal(store=str(copied_store)) == (
        f"{copied_store}: its images have 1 channels, and the bases take 3 (RGB); ingest the "
        "images again with this version into another place"
    )


def test_a_store_of_one_class_is_refused(copied_store: Path) -> None:
    change_index(copied_store, classes=["cat"])
    assert refusal(store=str(copied_store)) == (
        f"{copied_store}: its only class is cat; ingest a data set of at least 2 classes into "
        "another place"
    )


def test_a_store_without_a_split_is_refused(copied_store: Path) -> None:
    index = json.loads((copied_store / "index.json").read_text())
    del index["splits"]["valid"]
    change_index(copied_store, splits=index["splits"])
    assert refusal(store=str(copied_store)) == (
        "the data set cinic-10 has no split 'valid'; it has: test, train; "
        "ingest one that has it into an empty place"
    )


def test_a_store_that_nobody_answers_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, endpoint)
    credentials(monkeypatch, "key", "secret")
    assert refusal(store="s3://bucket/data") == (
        f"s3://bucket/data: {endpoint} cannot be reached (EndpointConnectionError); "
        "check AWS_ENDPOINT_URL, the network and the proxy settings"
    )


def test_a_store_whose_secret_key_is_another_is_refused(
    s3: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials(monkeypatch, key_of(s3), "wrong")
    assert refusal(store=s3.url) == (
        f"{s3.url}: {s3.endpoint} refuses the credentials (SignatureDoesNotMatch); check "
        "AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they belong to "
        "this endpoint"
    )


def test_a_store_without_a_bucket_is_refused(s3: EmbeddedStore) -> None:
    assert refusal(store="s3://another-bucket") == (
        f"s3://another-bucket: no bucket 'another-bucket' at {s3.endpoint}; check the name and "
        "AWS_ENDPOINT_URL, or make it: aws s3 mb s3://another-bucket"
    )


def test_a_store_that_is_embedded_beside_an_output_in_s3_is_refused() -> None:
    assert refusal(output="s3://bucket/runs") == (
        "--output s3://bucket/runs: with the embedded store the output is a directory, since "
        "both would ask one endpoint; name a directory, or a store in S3 as well"
    )


@pytest.mark.parametrize("output", ["runs", "../_ray_pkg_1/runs"])
def test_an_output_that_would_be_deleted_with_the_job_is_refused(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_0"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert refusal(output=output) == (
        f"--output {output}: a job's working directory is deleted when the job is over; name "
        "s3://BUCKET/PREFIX, or a directory that all nodes reach by its absolute path"
    )


def test_weights_that_are_not_there_are_refused_before_ray_starts(
    sample_store: Store, tmp_path: Path
) -> None:
    assert refusal(store=sample_store.url, weights=(str(tmp_path / "w.h5"),)) == (
        f"--weights {tmp_path}/w.h5: no such file or directory; give a file that Keras publishes "
        "or a folder of such files, leave it out to have the usual places searched, or say "
        "--weights none"
    )


def test_weights_with_another_checksum_are_refused_before_ray_starts(
    sample_store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "w.h5"
    file.write_bytes(b"")
    assert refusal(store=sample_store.url, weights=(str(file),)) == (
        f"weights {file}: md5 is d41d8cd98f00b204e9800998ecf8427e, expected "
        f"{BACKBONES['vgg16'].weights_md5} (VGG16); replace the file by the one that Keras "
        "publishes or name another with --weights"
    )


@pytest.fixture
def no_published_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without the published files, and without a route to Keras' server."""

    def out_of_reach(_: str) -> bytes:
        raise NotFetched("no answer")

    monkeypatch.setattr(weights, "SHARED", tmp_path / "shared")
    monkeypatch.setattr(weights, "fetch", out_of_reach)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.usefixtures("no_published_weights")
def test_paper_refuses_the_8_bit_copy_unless_it_is_named(
    sample_store: Store, pretended_cluster: Callable[[int], None]
) -> None:
    pretended_cluster(1)
    message = refusal(store=sample_store.url, profile="paper", weights=())
    assert message.startswith("VGG16's weights were not found and could not be downloaded from ")
    assert message.endswith("or take the 8-bit copy that tlcluster ships with --weights shipped")
    named = prepare(store=sample_store.url, profile="paper", weights=("shipped",))
    assert named.weights["vgg16"].record.kind == "imagenet-8bit"


@pytest.mark.usefixtures("no_published_weights")
def test_quick_takes_the_8_bit_copy_and_says_so_in_one_line(
    sample_store: Store, pretended_cluster: Callable[[int], None]
) -> None:
    pretended_cluster(1)
    found = prepare(store=sample_store.url, weights=()).weights["vgg16"]
    assert found.record.kind == "imagenet-8bit"
    assert found.notice is not None
    assert "\n" not in found.notice
    assert "8-bit copy" in found.notice
    assert "no answer" in found.notice
    assert "--weights FILE" in found.notice


def test_a_run_holds_the_weights_of_each_of_its_bases(
    sample_store: Store, pretended_cluster: Callable[[int], None]
) -> None:
    pretended_cluster(1)
    made = prepare(store=sample_store.url, set=("augmented.base=vgg19",))
    assert list(made.weights) == ["vgg16", "vgg19"]


def test_a_set_that_is_not_allowed_is_refused_before_anything_else() -> None:
    assert refusal(store="/none", set=("frozen.epochs=0",)) == (
        "--set frozen.epochs=0: input should be greater than 0"
    )


def test_an_address_without_a_cluster_is_refused(sample_store: Store) -> None:
    port = closed_port()
    assert refusal(store=sample_store.url, address=f"127.0.0.1:{port}") == (
        f"--address 127.0.0.1:{port}: no Ray cluster answers ([errno 111] connection refused); "
        "check the address, or leave it out to start Ray on this machine"
    )


def test_more_workers_than_the_cluster_can_hold_are_refused(
    sample_store: Store, pretended_cluster: Callable[[int], None]
) -> None:
    pretended_cluster(2)
    assert refusal(store=sample_store.url, workers="9").startswith(
        "--workers 9: a worker reserves 0.5 CPUs and 0 GPUs, of which this cluster of 4 CPUs and "
        "0 GPUs on 2 nodes can hold 8;"
    )


def test_the_embedded_store_is_refused_on_a_cluster_of_several_nodes(
    pretended_cluster: Callable[[int], None],
) -> None:
    pretended_cluster(2)
    assert refusal() == (
        "--store embedded: this cluster has 2 nodes, and the embedded store is on one; fill a "
        "store that all nodes reach with python jobs/ingest.py and name it"
    )


def test_what_is_made_ready_is_all_that_a_run_needs(
    sample_store: Store, pretended_cluster: Callable[[int], None]
) -> None:
    pretended_cluster(1)
    made = prepare(store=sample_store.url, experiments="finetuned,frozen", weights=("shipped",))
    assert [experiment.name for experiment in made.experiments] == ["frozen", "finetuned"]
    assert made.index.rows("train") == 1000
    assert made.weights["vgg16"].content == shipped_weights()
    assert made.admission.at_once == 2
    assert made.shown_store == sample_store.url


def test_a_home_that_cannot_be_written_does_not_stop_a_run_on_one_machine(
    s3: EmbeddedStore,
    pretended_cluster: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pretended_cluster(1)
    (tmp_path / "home").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    fill_with_sample(open_store(f"{s3.url}/no-home"))
    with contextlib.ExitStack() as stack:
        settings = RunSettings(run_name="first", weights=("none",), store=f"{s3.url}/no-home")
        cache = made_ready(settings, stack).settings.cache
        assert cache is not None
        NodeCache(Path(cache)).check()
    assert not Path(cache).exists()
    named = str(tmp_path / "home")
    assert refusal(store=f"{s3.url}/no-home", cache=named) == (
        f"cache folder {named}: file exists; name a folder that can be written with --cache"
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
    assert prepare(store=f"{s3.url}/no-home").settings.cache is None


def test_the_embedded_store_is_shown_by_its_name(
    pretended_cluster: Callable[[int], None],
) -> None:
    pretended_cluster(1)
    made = prepare()
    assert made.store.url.startswith("s3://")
    assert made.shown_store == "embedded"
