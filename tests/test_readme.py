"""README.md: its recipes are found word for word, and those for Kubernetes fit what is in k8s/.

The recipe for Ray is run by `test_ray_jobs.py`, that for Slurm by `test_slurm.py`.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from k8s_files import (
    BIN,
    DOCKERFILE,
    K8S,
    MANUAL,
    ROOT,
    instructions,
    kustomize,
    loaded,
    of_kind,
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


def test_to_run_again_what_cannot_be_changed_is_deleted_and_nothing_else(checkout: Path) -> None:
    (line,) = block_after("Again\\.")
    delete, apply = simple([line])
    items = loaded(kustomize(checkout / "k8s/overlays/mine"))
    named = [word for word in delete.split() if "/" in word]
    fixed = of_kind(items, "RayJob", "Job")
    assert named == [f"{item['kind'].lower()}/{item['metadata']['name']}" for item in fixed]
    # Or the new run would find the old one's submitter; and the first time there is nothing.
    assert {"--cascade=foreground", "--ignore-not-found"} <= set(delete.split())
    assert apply == recipe("Kubernetes")[3].partition(" && ")[2]


def test_every_command_for_kubernetes_gets_as_far_as_asking_the_cluster(
    commands: list[str], checkout: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    config = checkout / "config"
    config.write_text(
        "{apiVersion: v1, kind: Config, current-context: none, "
        "contexts: [{name: none, context: {cluster: none}}], "
        f"clusters: [{{name: none, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]}}"
    )
    environment = {**os.environ, "KUBECONFIG": str(config), "PATH": f"{BIN}:{os.environ['PATH']}"}

    def said(command: str) -> str:
        return subprocess.run(
            shlex.split(command),
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        ).stderr

    asking = [command for command in commands if command.startswith("kubectl ")]
    assert len(asking) == 6
    delete, _ = simple(block_after("Again\\."))
    for command in (*asking, delete):
        assert "connection refused" in said(command), command
    # With a wrong folder or a wrong flag it does not get that far.
    assert "connection refused" not in said(asking[1].replace("mine", "nobodys"))
    assert "connection refused" not in said(f"{asking[2]} --unheard-of")


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
    ]
    for section in sections:
        assert re.search("not\\s+tried", section, re.IGNORECASE), section.split("\n")[0]
