"""The containers of k8s/, run here with their files, user, environment and commands."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from k8s_container import ADDRESS, ASSIGNED, Container, Volumes, network, why_not
from k8s_files import K8S, Object, objects, of_kind, only
from k8s_rules import COMPONENT, pods, quantity
from ray._private.ray_constants import (
    DEFAULT_DASHBOARD_AGENT_LISTEN_PORT,
    DEFAULT_DASHBOARD_PORT,
    DEFAULT_PORT,
)

from tlcluster.backbones import BACKBONES
from tlcluster.dataset.sample import sample
from tlcluster.dataset.shards import read_index
from tlcluster.storage.open import open_store

WHY_NOT = why_not()
# In CI, the tests fail instead.
pytestmark = pytest.mark.skipif(
    WHY_NOT is not None and os.environ.get("CI") != "true", reason=str(WHY_NOT)
)

CLAIM = "tlcluster"
SOURCE = "/data/cinic10.tar.xz"
WEIGHTS = K8S.parents[1] / "shared/weights" / BACKBONES["vgg16"].weights_file


def with_settings(items: list[Object], **settings: str) -> list[Object]:
    """A render with other values in its ConfigMaps, as an overlay of a user's own has them."""
    for item in of_kind(items, "ConfigMap"):
        item["data"] |= {k: v for k, v in settings.items() if k in item["data"]}
    return items


def container(items: list[Object], component: str, folder: Path, volumes: Volumes) -> Container:
    """The first container of a component's pod."""
    pod = next(pod.spec for pod in pods(items) if pod.labels[COMPONENT] == component)
    return Container(items, pod, pod["containers"][0]["name"], folder, volumes)


@pytest.fixture(scope="module")
def claim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared volume with the sample, which the ingest of the manifests has put into the store."""
    folder = tmp_path_factory.mktemp("claim")
    shutil.copy(sample(), folder / Path(SOURCE).name)
    items = with_settings(objects("cpu"), SOURCE=SOURCE)
    run = container(items, "ingest", folder.with_name("ingest"), Volumes({CLAIM: folder})).run()
    assert run.returncode == 0, run.stdout
    assert "3,000 images" in run.stdout
    return folder


def test_the_ingest_fills_the_store(claim: Path) -> None:
    store = open_store(str(claim / "cinic10"))
    index, _ = read_index(store)
    assert index.rows("train") == index.rows("valid") == index.rows("test") == 1000
    written = {path.stat().st_uid for path in (claim / "cinic10").rglob("*")}
    assert written == {1000}


@pytest.mark.parametrize(
    ("overlay", "component", "user", "group"),
    [
        *(("cpu", name, 1000, 1000) for name in ("head", "worker", "ingest", "submitter")),
        ("openshift", "worker", ASSIGNED["runAsUser"], ASSIGNED["runAsGroup"]),
    ],
)
def test_a_container_writes_nothing_but_its_volumes_and_may_do_nothing_else(
    overlay: str, component: str, user: int, group: int, claim: Path, tmp_path: Path
) -> None:
    there = container(objects(overlay), component, tmp_path, Volumes({CLAIM: claim}))
    look = """
        id -u; id -g; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
        for place in / /app /app/jobs /etc /usr /opt /var /var/home /cache /tmp /dev/shm /data; do
          touch $place/x 2>/dev/null && echo wrote $place
        done
    """
    assert there.run(["sh", "-c", look]).stdout.split("\n") == [
        str(user),
        str(group),
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        *(f"wrote {place}" for place in ("/var/home", "/cache", "/tmp", "/dev/shm", "/data")),  # noqa: S108
        "",
    ]
    (claim / "x").unlink()


def test_without_its_cache_the_ingest_would_have_no_place_to_write(
    claim: Path, tmp_path: Path
) -> None:
    items = with_settings(objects("cpu"), SOURCE=SOURCE)
    there = container(items, "ingest", tmp_path, Volumes({CLAIM: claim}))
    mounts = there.spec["volumeMounts"]
    mounts[:] = [mount for mount in mounts if mount["name"] != "cache"]
    run = there.run()
    assert run.returncode == 2
    assert "read-only file system" in run.stdout


def test_the_submitter_waits_for_the_data_and_no_longer(claim: Path, tmp_path: Path) -> None:
    for folder, expected in ((tmp_path, "waiting for the data: "), (claim, "")):
        waiting = container(objects("cpu"), "submitter", tmp_path / "c", Volumes({CLAIM: folder}))
        assert waiting.name == "submitter"
        with waiting._replace(name="wait-for-data").running() as process:
            assert process.stdout
            assert process.stdout.readline().startswith(expected)
            if not expected:
                assert process.wait(30) == 0


def test_a_run_without_data_is_submitted_after_a_time_and_ends_with_one_line(
    tmp_path: Path,
) -> None:
    volumes = Volumes({CLAIM: tmp_path / "claim"})
    (tmp_path / "claim").mkdir()
    items = with_settings(objects("cpu"), DATA_WAIT="0")
    waiting = container(items, "submitter", tmp_path / "w", volumes)._replace(name="wait-for-data")
    waited = waiting.run(timeout=60)
    # With another status, the next pod of the submitter would wait again.
    assert waited.returncode == 0
    assert waited.stdout.startswith("no data after 0 minutes: ")

    line = entrypoint(items, tmp_path / "s", volumes)
    run = container(items, "head", tmp_path / "h", volumes).run(["sh", "-c", line])
    assert run.returncode == 2
    assert run.stdout.startswith("error: ")
    assert "/data/cinic10" in run.stdout
    assert run.stdout.count("\n") == 1


def entrypoint(items: list[Object], folder: Path, volumes: Volumes) -> str:
    """The entrypoint after the submitter's shell has expanded it."""
    line = only(items, "RayJob")["spec"]["entrypoint"]
    echo = container(items, "submitter", folder, volumes).run(["bash", "-ce", f"echo {line}"])
    assert echo.returncode == 0, echo.stdout
    return echo.stdout.strip()


def test_the_entrypoint_plans_the_run(claim: Path, tmp_path: Path) -> None:
    items, volumes = objects("cpu"), Volumes({CLAIM: claim})
    line = f"{entrypoint(items, tmp_path / 's', volumes)} --dry-run"
    if not WEIGHTS.is_file():
        line += " --weights none"
    run = container(items, "head", tmp_path / "h", volumes).run(["sh", "-c", line])
    assert run.returncode == 0, run.stdout
    facts = dict(line.split(maxsplit=1) for line in run.stdout.splitlines()[:5])
    assert facts["run"] == "tlcluster, profile quick, seed 524"
    assert facts["data"].startswith("/data/cinic10: 1,000 train")
    assert facts["output"] == "/data/runs/tlcluster"
    if WEIGHTS.is_file():
        assert facts["weights"] == "/opt/tlcluster/vgg16.h5"


DRIVER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("asked", flush=True), time.sleep(1), sys.exit(143)))
print("up", flush=True)
time.sleep(int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("seconds", "said"), [("60", ["up", "asked"]), ("3", ["up"])], ids=["drained", "told-before"]
)
def test_the_end_of_the_heads_pod_asks_a_driver_that_stays_and_waits_for_it(
    seconds: str, said: list[str], claim: Path, tmp_path: Path
) -> None:
    head = container(objects("cpu"), "head", tmp_path, Volumes({CLAIM: claim}))
    *_, stop = head.spec["lifecycle"]["preStop"]["exec"]["command"]
    script = """
        python -c "$1" "jobs/$2" "$3" & sleep 60 & sleep 1
        sh -c "$4"; echo stopped; jobs -r | grep -c sleep; kill %2
    """
    run = head.run(["bash", "-c", script, "bash", DRIVER, "run_all.py", seconds, stop])
    assert run.stdout.split() == [*said, "stopped", "1"]


def test_the_end_of_the_heads_pod_fits_into_what_kubernetes_gives_it() -> None:
    pod = next(pod for pod in pods(objects("cpu")) if pod.labels[COMPONENT] == "head")
    *_, stop = pod.containers[0]["lifecycle"]["preStop"]["exec"]["command"]
    (most,) = re.findall(r"seq (\d+)", stop)
    assert int(most) < pod.spec.get("terminationGracePeriodSeconds", 30)


def test_the_end_of_a_pod_without_a_driver_takes_no_time(claim: Path, tmp_path: Path) -> None:
    head = container(objects("cpu"), "head", tmp_path, Volumes({CLAIM: claim}))
    run = head.run(head.spec["lifecycle"]["preStop"]["exec"]["command"], timeout=10)
    assert run.stdout == ""


# --- the store in the cluster ------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Container]]:
    """The store in the cluster with new keys; a function that makes containers beside it."""
    folder = tmp_path_factory.mktemp("server")
    made = subprocess.run(
        [K8S / "components/s3-in-cluster/new-keys"], capture_output=True, text=True, check=True
    )
    secret = yaml.safe_load(made.stdout)
    keys = {secret["metadata"]["name"]: secret["stringData"]}
    items = objects("s3-in-cluster")
    (folder / "data").mkdir()
    shutil.copy(sample(), folder)
    with network() as net:

        def beside(component: str, **changes: str) -> Container:
            there = container(
                with_settings(items, **changes),
                component,
                folder / secrets.token_hex(4),
                Volumes({"data": folder / "data"}, keys),
            )
            return there._replace(network=net, services=["tlcluster-s3"])

        with beside("s3").running():
            yield beside


def test_the_ingest_fills_the_store_in_the_cluster(server: Callable[..., Container]) -> None:
    source = f"/app/tlcluster/dataset/sample_files/{Path(sample()).name}"
    # A Job tries again while the server starts.
    for _ in range(10):
        run = server("ingest", SOURCE=source).run()
        if run.returncode == 0:
            break
        time.sleep(1)
    assert run.returncode == 0, run.stdout
    assert "s3://tlcluster/cinic10" in run.stdout
    waiting = server("submitter")._replace(name="wait-for-data").run(timeout=30)
    assert (waiting.returncode, waiting.stdout) == (0, "")


def test_the_store_in_the_cluster_refuses_other_keys(server: Callable[..., Container]) -> None:
    there = server("ingest")
    stranger = {"credentials": "[default]\naws_access_key_id = a\naws_secret_access_key = b\n"}
    other = there.volumes._replace(secrets={"tlcluster-s3": stranger})
    run = there._replace(volumes=other).run()
    assert run.returncode == 2
    assert "http://tlcluster-s3:8333 refuses the credentials" in run.stdout


# --- a run -------------------------------------------------------------------------------------

TOKEN = {"RAY_AUTH_TOKEN": secrets.token_hex(16)}
DASHBOARD = f"http://{ADDRESS}:{DEFAULT_DASHBOARD_PORT}"
WORKERS_AGENT = DEFAULT_DASHBOARD_AGENT_LISTEN_PORT + 1
"""Both pods have one address here, so one of them moves."""


def ray_start(group: Object, **more: object) -> list[str]:
    """The command that KubeRay's operator gives a Ray container."""
    (limits,) = (c["resources"]["limits"] for c in group["template"]["spec"]["containers"])
    flags = {
        "num-cpus": limits["cpu"],
        "memory": int(quantity(limits["memory"])),
        **{name.replace("_", "-"): value for name, value in more.items()},
        **group["rayStartParams"],
    }
    words = " ".join(f"--{name}={value}" for name, value in flags.items())
    head = "" if "address" in more else "--head "
    return ["/bin/bash", "-c", "--", f"ulimit -n 65536; ray start {head}--block {words}"]


def submit(entrypoint: str) -> list[str]:
    """The command that KubeRay's operator gives the submitter."""
    to = f"--address {DASHBOARD}"
    steps = (
        f"if ! ray job status {to} run >/dev/null 2>&1",
        f"then ray job submit {to} --no-wait --submission-id run -- {entrypoint}",
        "fi",
        f"ray job logs {to} --follow run",
    )
    return ["/bin/bash", "-ce", "--", " ; ".join(steps)]


def status(net: int, port: int, path: str) -> int:
    """The HTTP status of a request without a token; 0 if nothing answers."""
    script = (
        "import sys, urllib.error, urllib.request\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=5).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
        "except OSError: print(0)\n"
    )
    enter, url = f"--net=/proc/{net}/ns/net", f"http://{ADDRESS}:{port}{path}"
    asked = subprocess.run(
        ["nsenter", enter, sys.executable, "-c", script, url],
        capture_output=True,
        text=True,
        check=True,
        env={"no_proxy": "*"},
    )
    return int(asked.stdout)


def wait_for(net: int, port: int, path: str) -> None:
    """Wait as a readiness probe does."""
    deadline = time.monotonic() + 300
    while status(net, port, path) != 200:
        assert time.monotonic() < deadline, f"{path} of port {port} does not answer"
        time.sleep(1)


@pytest.mark.drill  # its commands are run one by one below
@pytest.mark.cluster
def test_a_run_from_the_operators_commands_to_the_report(claim: Path, tmp_path: Path) -> None:
    flags = "--profile quick --experiments frozen --epochs 1 --weights none"
    items = with_settings(objects("cpu"), RUN_NAME="first", FLAGS=flags)
    for there in pods(items):
        # A user that no file knows, as on OpenShift, is the harder case.
        for key in ASSIGNED:
            del there.spec["securityContext"][key]
    spec = only(items, "RayJob")["spec"]
    cluster = spec["rayClusterSpec"]
    with network() as net:

        def pod(component: str, **environment: str) -> Container:
            there = container(items, component, tmp_path / component, Volumes({CLAIM: claim}))
            return there._replace(network=net, environment={**TOKEN, **environment})

        head = ray_start(
            cluster["headGroupSpec"],
            dashboard_host="0.0.0.0",  # noqa: S104
            dashboard_agent_listen_port=DEFAULT_DASHBOARD_AGENT_LISTEN_PORT,
            metrics_export_port=8080,
        )
        worker = ray_start(
            cluster["workerGroupSpecs"][0],
            address=f"{ADDRESS}:{DEFAULT_PORT}",
            dashboard_agent_listen_port=WORKERS_AGENT,
            metrics_export_port=8081,
        )
        with pod("head", RAY_ADDRESS=f"127.0.0.1:{DEFAULT_PORT}").running(head):
            wait_for(net, DEFAULT_DASHBOARD_AGENT_LISTEN_PORT, "/api/healthz")
            wait_for(net, DEFAULT_DASHBOARD_PORT, "/api/gcs_healthz")
            with pod("worker").running(worker):
                wait_for(net, WORKERS_AGENT, "/api/healthz")
                assert status(net, DEFAULT_DASHBOARD_PORT, "/api/jobs/") == 401
                run = pod("submitter").run(submit(spec["entrypoint"]), timeout=500)
    assert run.returncode == 0, run.stdout
    assert "/data/runs/first/report/index.html" in run.stdout
    results = json.loads((claim / "runs/first/report/results.json").read_text())
    assert results["run"]["status"] == "finished"
    assert [experiment["status"] for experiment in results["experiments"]] == ["finished"]
    hosts = {node["host"]: node["cpus"] for node in results["run"]["hardware"]}
    assert hosts == {"ray-head": 0, "ray-worker": 4}
