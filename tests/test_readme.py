"""README.md: its recipes are found word for word, and those for Kubernetes fit what is in k8s/.

The recipe for Ray is run by `test_ray_jobs.py`, that for Slurm by `test_slurm.py`.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from k8s_api import Api, api
from k8s_files import (
    BIN,
    DOCKERFILE,
    K8S,
    MANUAL,
    ROOT,
    instructions,
    kustomize,
    loaded,
    only,
    shown_overlay,
)
from k8s_rules import COMPONENT, pods
from readme import recipe

REGISTRY = "registry.example/team"


def test_a_recipe_is_read_with_its_lines_joined_and_its_words_filled_in() -> None:
    (command,) = recipe("Ray", HEAD="head.example", BUCKET="mine")
    words = shlex.split(command)
    assert words[:5] == ["ray", "job", "submit", "--address", "http://head.example:8265"]
    assert words[words.index("--store") + 1] == "s3://mine/cinic10"
    assert not re.search(r"\\$|\b(HEAD|BUCKET)\b", command)


@pytest.mark.parametrize(
    ("cluster", "values", "said"),
    [
        ("Abacus", {}, "README.md has no recipe for Abacus"),
        ("Ray", {"TAIL": "x"}, "the recipe for Ray has no TAIL"),
    ],
)
def test_what_the_readme_does_not_have_is_told(
    cluster: str, values: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        recipe(cluster, **values)


@pytest.fixture
def commands() -> list[str]:
    """The simple commands of the recipe for Kubernetes."""
    return simple(recipe("Kubernetes", REGISTRY=REGISTRY))


def simple(lines: list[str]) -> list[str]:
    """The commands in lines that have several, or repeat one until it succeeds."""
    parts = [part for line in lines for part in line.split(" && ")]
    return [re.sub(r"^until (.*); do sleep 10; done$", r"\1", part) for part in parts]


def block_after(title: str) -> list[str]:
    """The commands that k8s/README.md shows after a title in bold."""
    (block,) = re.findall(
        rf"^\*\*{title}\*\*.*\n(?:.+\n)*\n```\n((?:.*\n)*?)```$",
        MANUAL.read_text(),
        re.MULTILINE,
    )
    return block.splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the overlay that k8s/README.md shows, for this registry."""
    shutil.copytree(K8S, tmp_path / "k8s")
    shown, _ = shown_overlay()
    mine = tmp_path / "k8s/overlays/mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(shown.replace("REGISTRY", REGISTRY))
    return tmp_path


def test_both_readmes_give_the_same_commands_for_kubernetes() -> None:
    assert recipe("Kubernetes") == block_after("Commands\\.")


def test_the_image_that_is_built_is_the_one_that_the_overlay_runs(
    commands: list[str], checkout: Path
) -> None:
    build, push = (shlex.split(command) for command in commands if command.startswith("docker "))
    given = dict(zip(build[2:-1:2], build[3:-1:2], strict=True))
    assert build[:2] + build[-1:] == ["docker", "build", "."]
    assert ROOT / given["-f"] == DOCKERFILE
    argument, _, _ = given["--build-arg"].partition("=")
    asked = {
        i.text.partition("=")[0] for i in instructions(DOCKERFILE.read_text()) if i.name == "ARG"
    }
    assert argument in asked
    assert push == ["docker", "push", given["-t"]]
    items = loaded(kustomize(checkout / "k8s/overlays/mine"))
    assert {c["image"] for pod in pods(items) for c in pod.containers} == {given["-t"]}


def test_the_run_is_applied_when_the_ingest_is_over(commands: list[str], checkout: Path) -> None:
    _, _, namespace, ingest, log, wait, run, logs = commands
    assert namespace == "kubectl apply -f k8s/namespace.yaml"
    # A run that waits would hold its GPUs meanwhile.
    assert ingest == f"{run} -l app.kubernetes.io/component!=run"
    items = loaded(kustomize(checkout / "k8s/overlays/mine"))
    labels = {item["kind"]: item["metadata"]["labels"] for item in items}
    assert labels["RayJob"][COMPONENT] == "run"
    assert "run" not in {found.get(COMPONENT) for kind, found in labels.items() if kind != "RayJob"}
    assert all(labels.values())
    job = only(items, "Job")["metadata"]
    assert "--for=condition=complete" in wait.split()
    for command in (log, wait):
        assert command.split()[-1] == f"job/{job['name']}"
    # KubeRay names the submitter's Job like the RayJob; no other Job may have that name.
    name = only(items, "RayJob")["metadata"]["name"]
    assert logs.split()[-1] == f"job/{name}"
    assert name != job["name"]
    for command in (log, wait, logs):
        assert f"--namespace {job['namespace']}" in command


def said(line: str, server: Api, checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of a recipe with the real kubectl, which talks to the server."""
    environment = {
        **os.environ,
        "KUBECONFIG": str(server.config(checkout)),
        "HOME": str(checkout),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["bash", "-c", line],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_recipe_for_kubernetes_ingests_first_and_then_runs_word_for_word(
    checkout: Path,
) -> None:
    _, *lines = recipe("Kubernetes")
    items = loaded(kustomize(checkout / "k8s/overlays/mine"))
    with api() as server:
        done = [said(line, server, checkout) for line in lines]
        assert [d.returncode for d in done] == [0, 0, 0, 0], [d.stderr for d in done]
        # Not even a pod that has not started yet stops it.
        assert "waiting to start" in done[1].stderr
        assert done[1].stdout == "all that tlcluster-ingest prints\n"
        assert done[3].stdout == "all that tlcluster prints\n"
        changes = server.changes()
        assert changes[0] == "POST namespaces/tlcluster"
        assert changes[-1] == "POST rayjobs/tlcluster"
        assert len(changes) == len(items) + 1
        asked = [request.path.rpartition("/")[2] for request in server.requests]
        assert asked.index("log") < asked.index("rayjobs")


def test_an_ingest_that_failed_starts_no_run(checkout: Path) -> None:
    _, *lines = recipe("Kubernetes")
    with api(ends="Failed") as server:
        for line in lines[:2]:
            assert said(line, server, checkout).returncode == 0
        done = said(lines[2].replace("--timeout 1m", "--timeout 1s"), server, checkout)
        assert done.returncode == 1
        assert "POST rayjobs/tlcluster" not in server.changes()


def test_the_command_to_run_again_replaces_run_and_ingest_and_keeps_the_data(
    checkout: Path,
) -> None:
    (again,) = block_after("Again\\.")
    with api() as server:
        # The first time, there is nothing to delete.
        assert said(again, server, checkout).returncode == 0
        assert "persistentvolumeclaims/tlcluster" in server.objects
        server.requests.clear()
        done = said(again, server, checkout)
        assert done.returncode == 0, done.stderr
        deleted = [request for request in server.requests if request.method == "DELETE"]
        # Or the new run would find the submitter of the old one.
        assert {request.body["propagationPolicy"] for request in deleted} == {"Foreground"}
        fixed = ["jobs/tlcluster-ingest", "rayjobs/tlcluster"]
        assert server.changes() == [
            f"{verb} {name}" for verb in ("DELETE", "POST") for name in fixed
        ]


def test_a_second_apply_changes_nothing_that_kueue_has_started(checkout: Path) -> None:
    apply = recipe("Kubernetes")[3].partition(" && ")[2].replace("mine", "kueue")
    with api() as server:
        assert said(apply, server, checkout).returncode == 0
        # Kueue suspends what is created, and starts it later.
        for name in ("jobs/tlcluster-ingest", "rayjobs/tlcluster"):
            server.objects[name]["spec"]["suspend"] = False
        server.requests.clear()
        assert said(apply, server, checkout).returncode == 0
        assert server.changes() == []


# --- docs/clusters.md --------------------------------------------------------------------------

CLUSTERS = (ROOT / "docs/clusters.md").read_text()


def test_what_the_page_on_clusters_names_is_there() -> None:
    named = set(re.findall(r"`((?:slurm|base|components|tests)/[\w./-]+)`", CLUSTERS))
    assert len(named) >= 5
    for path in named:
        assert (ROOT / path).exists() or (K8S / path).exists(), path
    site = (ROOT / "slurm/site.sh").read_text()
    for name in re.findall(r"`slurm/site.sh`, `(\w+)`", CLUSTERS):
        assert re.search(rf"^{name}=", site, re.MULTILINE), name
    for overlay in re.findall(r"[Oo]verlay `([\w-]+)`", CLUSTERS):
        assert (K8S / "overlays" / overlay).is_dir(), overlay


@pytest.mark.parametrize(
    "name", ["gmp-system", "gke-gmp-system", "openshift-dns", "redhat-ods-applications"]
)
def test_namespaces_on_the_page_on_clusters_are_in_the_policies(name: str) -> None:
    assert f"`{name}`" in CLUSTERS
    assert re.search(rf"\b{name}$", (K8S / "base/network.yaml").read_text(), re.MULTILINE)


def test_every_kind_of_cluster_says_what_was_not_tried() -> None:
    sections = CLUSTERS.split("\n## ")[1:-1]
    assert [section.split("\n")[0] for section in sections] == [
        "Any Kubernetes",
        "GKE",
        "EKS",
        "AKS",
        "OpenShift",
        "Slurm of your own, with Lustre, NFS or BeeGFS",
        "Cloud machines with Ray",
        "GPUs, on every kind of cluster",
    ]
    for section in sections:
        assert re.search("not\\s+tried", section, re.IGNORECASE), section.split("\n")[0]
