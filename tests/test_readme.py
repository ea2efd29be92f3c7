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
from k8s_files import BIN, DOCKERFILE, K8S, ROOT, instructions, kustomize, loaded, of_kind, only
from k8s_rules import pods
from readme import recipe

MANUAL = (K8S / "README.md").read_text()
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
    return [part for line in recipe("Kubernetes", REGISTRY=REGISTRY) for part in line.split(" && ")]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the overlay that k8s/README.md shows, for this registry."""
    shutil.copytree(K8S, tmp_path / "k8s")
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", MANUAL, re.MULTILINE | re.DOTALL)
    mine = tmp_path / "k8s/overlays/mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(shown.replace("REGISTRY", REGISTRY))
    return tmp_path


def test_both_readmes_give_the_same_commands_for_kubernetes() -> None:
    (block,) = re.findall(
        r"^\*\*Three commands\.\*\*\n\n```\n(.*?)^```$", MANUAL, re.MULTILINE | re.DOTALL
    )
    assert recipe("Kubernetes") == block.splitlines()


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


def test_the_job_whose_log_is_followed_is_the_one_that_the_operator_makes(
    commands: list[str], checkout: Path
) -> None:
    items = loaded(kustomize(checkout / "k8s/overlays/mine"))
    run = only(items, "RayJob")["metadata"]
    # KubeRay calls the submitter's Job as the RayJob; no other Job may have the name.
    assert run["name"] not in {job["metadata"]["name"] for job in of_kind(items, "Job")}
    for command in commands:
        words = shlex.split(command)
        if words[:2] in (["kubectl", "wait"], ["kubectl", "logs"]):
            assert words[-1] == f"job/{run['name']}"
            assert words[words.index("--namespace") + 1] == run["namespace"]


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
    assert len(asking) == 4
    for command in asking:
        assert "connection refused" in said(command), command
    # What it does not get that far with: a wrong place, and a wrong flag.
    assert "connection refused" not in said(asking[1].replace("mine", "nobodys"))
    assert "connection refused" not in said(f"{asking[2]} --unheard-of")
