"""k8s/: every overlay is rendered, and the render is held against schemas, rules and the code."""

import copy
import os
import re
import shlex
import shutil
import string
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import ray
import yaml
from docker.utils.build import exclude_paths
from k8s_files import (
    DOCKERFILE,
    K8S,
    MANUAL,
    ROOT,
    Object,
    Objects,
    image_environment,
    instructions,
    kustomize,
    loaded,
    objects,
    of_kind,
    only,
    rendered,
    shown_overlay,
    substituted,
    tool,
    values_of,
)
from k8s_rules import (
    COMPONENT,
    PART_OF,
    Peer,
    allows,
    as_pods,
    closed,
    clusters,
    kueue,
    named,
    operator,
    pods,
    quantity,
    references,
    resources,
    restricted,
    sealed,
    unset,
)
from packaging.specifiers import SpecifierSet
from ray._private.ray_constants import DEFAULT_DASHBOARD_PORT, DEFAULT_PORT

import tlcluster
from tlcluster.backbones import BACKBONES
from tlcluster.cinic10 import ARCHIVE_URL
from tlcluster.cli import USAGE, parse
from tlcluster.settings import IngestSettings, RunSettings
from tlcluster.training import weights

SHARED = ROOT.parent / "shared" / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
RUNS = [name for name in OVERLAYS if name != "cluster"]
README = MANUAL.read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

DOCUMENTED = [
    f"{kind}/{name}"
    for kind, name in re.findall(r"^\| ([A-Z]\w+) `([\w-]+)` \|", README, re.MULTILINE)
]
"""Objects that users make, as the README lists them."""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of k8s/ for a test to change."""
    return Path(shutil.copytree(K8S, tmp_path / "k8s"))


# --- files and schemas -------------------------------------------------------------------------


def test_every_file_passes_yamllint() -> None:
    done = tool("yamllint", "--strict", "--config-file", K8S / ".yamllint", K8S)
    assert done.returncode == 0, done.stdout


def test_a_key_that_is_there_twice_is_noticed_by_yamllint() -> None:
    done = tool("yamllint", "--config-file", K8S / ".yamllint", "-", input="a: 1\na: 2\n")
    assert done.returncode == 1
    assert 'duplication of key "a"' in done.stdout


def checked(*files: Path) -> subprocess.CompletedProcess[str]:
    """The check of the CustomResourceDefinitions that lie beside the checkout."""
    script = SHARED / "crd_check.py"
    if not script.is_file():
        # Beside a checkout that is to be tested in full, missing files are a mistake.
        in_full = os.environ.get("CI") == "true" and SHARED.parent.exists()
        (pytest.fail if in_full else pytest.skip)(
            "the CRDs of KubeRay and Kueue are not in ../shared/k8s beside the checkout"
        )
    return tool("python", script, *files)


def test_every_render_fits_the_schemas_of_kubernetes_kuberay_and_kueue(
    copied: Path, tmp_path: Path
) -> None:
    renders = {overlay: objects(overlay) for overlay in OVERLAYS}
    renders["shown"] = with_own(copied, "".join(shown_overlay()))
    files = [tmp_path / f"{name}.yaml" for name in renders]
    for file in files:
        items = renders[file.stem]
        file.write_text(yaml.safe_dump_all([*items, *as_pods(items)]))
    done = checked(*files, K8S / "namespace.yaml")
    assert done.returncode == 0, done.stdout


def test_what_does_not_fit_a_schema_is_noticed(tmp_path: Path) -> None:
    items = objects("kueue")
    only(items, "RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["gpus"] = 1
    only(items, "LocalQueue")["spec"]["clusterQueue"] = "Not A Name"
    only(items, "Job")["spec"]["template"]["spec"]["containers"][0]["image"] = 1
    items.append({"apiVersion": "v1", "kind": "Unheard", "metadata": {"name": "of"}})
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump_all(items))
    done = checked(file)
    assert done.returncode == 1
    for kind in ("RayJob", "LocalQueue", "Job", "Unheard"):
        assert f"{kind}/" in done.stdout


# --- rules -------------------------------------------------------------------------------------

RULES = {
    "restricted": restricted,
    "sealed": sealed,
    "resources": resources,
    "operator": operator,
    "kueue": kueue,
    "references": lambda items: references(items, DOCUMENTED),
    "unset": unset,
    "closed": closed,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_keeps_a_rule(overlay: str, rule: str) -> None:
    found = list(RULES[rule](objects(overlay)))
    if overlay == "openshift":
        found = [what for what in found if not what.endswith("its user has no number")]
    assert found == []


def test_on_openshift_no_pod_names_a_user_or_a_group() -> None:
    for pod in pods(objects("openshift")):
        asked = [pod.spec["securityContext"], *(c["securityContext"] for c in pod.containers)]
        named_by_us = {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"}
        assert not [context for context in asked if named_by_us & context.keys()], pod.where


def test_a_container_that_asks_for_no_local_disk_is_noticed() -> None:
    items = objects("gpu")
    (container,) = only(items, "Job")["spec"]["template"]["spec"]["containers"]
    del container["resources"]["requests"]["ephemeral-storage"]
    assert any("ingest asks for no local disk" in found for found in resources(items))


def test_an_ingest_that_a_person_must_mend_is_not_tried_again() -> None:
    spec = only(objects("gpu"), "Job")["spec"]
    first, second = spec["podFailurePolicy"]["rules"]
    (container,) = spec["template"]["spec"]["containers"]
    assert first["action"] == "FailJob"
    assert first["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [USAGE],
    }
    # A pod that is drained does not count as a failure.
    assert (second["action"], second["onPodConditions"][0]["type"]) == (
        "Ignore",
        "DisruptionTarget",
    )


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("cpu", ["ingest", "head", "worker", "submitter"]),
        ("s3-in-cluster", ["s3", "ingest", "head", "worker", "submitter"]),
        ("cluster", ["ingest", "head", "worker"]),
    ],
)
def test_the_rules_see_every_pod(overlay: str, expected: list[str]) -> None:
    assert sorted(pod.labels[COMPONENT] for pod in pods(objects(overlay))) == sorted(expected)


CLUSTER = "spec/rayClusterSpec"
HEAD = f"{CLUSTER}/headGroupSpec/template/spec"
GROUP = f"{CLUSTER}/workerGroupSpecs/0"
WORKER = f"{GROUP}/template/spec"
SUBMITTER = "spec/submitterPodTemplate/spec"

MUTATIONS = [
    ("restricted", f"{HEAD}/hostNetwork", True, "hostNetwork"),
    ("restricted", f"{HEAD}/volumes/0", {"name": "tmp", "hostPath": {}}, "is a hostPath"),
    ("restricted", f"{WORKER}/securityContext/runAsUser", 0, "ray-worker runs as root"),
    ("restricted", f"{WORKER}/securityContext/seccompProfile", None, "no seccomp profile"),
    ("restricted", f"{WORKER}/securityContext/sysctls", [{"name": "a"}], "sysctls"),
    ("restricted", f"{SUBMITTER}/initContainers/0/securityContext", {}, "keeps capabilities"),
    (
        "restricted",
        f"{HEAD}/containers/0/securityContext/allowPrivilegeEscalation",
        None,
        "ray-head may gain privileges",
    ),
    ("restricted", f"{HEAD}/containers/0/securityContext/privileged", True, "is privileged"),
    (
        "restricted",
        f"{HEAD}/containers/0/securityContext/capabilities/add",
        ["SYS_PTRACE"],
        "adds capabilities",
    ),
    ("restricted", f"{HEAD}/containers/0/securityContext/procMount", "Unmasked", "procMount"),
    ("restricted", f"{HEAD}/containers/0/ports/0/hostPort", 6379, "has a port of the host"),
    (
        "restricted",
        f"{HEAD}/containers/0/lifecycle/preStop/httpGet",
        {"host": "elsewhere"},
        "asks another host",
    ),
    ("sealed", f"{HEAD}/automountServiceAccountToken", None, "a token of the Kubernetes API"),
    ("sealed", f"{HEAD}/securityContext/runAsUser", "ray", "its user has no number"),
    ("sealed", f"{HEAD}/volumes/0/emptyDir", {}, "tmp has no limit"),
    ("sealed", f"{HEAD}/volumes/0/name", "other", "ray-head mounts tmp, which is no volume"),
    ("sealed", f"{HEAD}/containers/0/volumeMounts/2", None, "nobody mounts cache"),
    ("sealed", f"{HEAD}/containers/0/volumeMounts/1", None, "ray-head cannot write /var/home"),
    (
        "sealed",
        f"{SUBMITTER}/containers/0/securityContext/readOnlyRootFilesystem",
        False,
        "submitter can write its root",
    ),
    ("resources", f"{WORKER}/containers/0/resources/limits/memory", None, "limit of memory"),
    ("resources", f"{WORKER}/containers/0/resources/limits/cpu", "500m", "asks for 8 cpu"),
    (
        "resources",
        f"{WORKER}/containers/0/resources",
        {kind: {"cpu": 1, "memory": 1, "nvidia.com/gpu": "0.5"} for kind in ("requests", "limits")},
        "nvidia.com/gpu is not whole",
    ),
    ("resources", f"{WORKER}/containers/0/resources/requests/nvidia.com~gpu", None, "in both"),
    (
        "resources",
        f"{WORKER}/containers/0/resources/requests/ephemeral-storage",
        "1Gi",
        "asks for local disk in a queue",
    ),
    ("operator", "metadata/name", "a" * 48, "at most 47"),
    ("operator", "metadata/name", "1st", "at most 47"),
    ("operator", f"{CLUSTER}/authOptions", None, "no token authentication"),
    ("operator", f"{CLUSTER}/rayVersion", None, "needs rayVersion"),
    ("operator", f"{CLUSTER}/rayVersion", "2.51.1", "needs rayVersion"),
    ("operator", f"{CLUSTER}/headGroupSpec/rayStartParams", {}, "may start on the head"),
    ("operator", f"{CLUSTER}/headGroupSpec/resources", {"CPU": "1"}, "resources in two places"),
    ("operator", f"{GROUP}/rayStartParams/labels", "a=b", "labels in rayStartParams"),
    ("operator", f"{GROUP}/groupName", "head", "two groups have one name"),
    ("operator", f"{GROUP}/template/spec/containers", [], "has no container"),
    ("operator", f"{GROUP}/minReplicas", None, "does not say all of its replicas"),
    ("operator", f"{GROUP}/minReplicas", 1, "may start with a part of its pods"),
    ("operator", "spec/shutdownAfterJobFinishes", False, "its cluster stays"),
    ("operator", "spec/ttlSecondsAfterFinished", None, "goes at once"),
    ("operator", "spec/activeDeadlineSeconds", None, "activeDeadlineSeconds does not end it"),
    ("operator", "spec/preRunningDeadlineSeconds", 0, "preRunningDeadlineSeconds does not"),
    ("operator", "spec/clusterSelector", {"ray.io/cluster": "old"}, "names an old one"),
    ("operator", "spec/backoffLimit", 3, "a wrong flag would cost another cluster"),
    ("operator", "spec/submitterConfig", {"backoffLimit": 0}, "nobody submits again"),
    ("operator", "spec/entrypoint", "python /app/jobs/run_all.py", "no --run-name"),
    ("operator", "spec/jobId", "mine", "needs another jobId"),
    ("operator", "spec/submitterPodTemplate", None, "submitter pod is not restricted"),
    ("operator", f"{SUBMITTER}/restartPolicy", None, "restarts Never or OnFailure"),
    ("kueue", "metadata/labels/kueue.x-k8s.io~queue-name", None, "is in no queue"),
    ("kueue", "metadata/labels/kueue.x-k8s.io~queue-name", "other", "no LocalQueue other"),
    ("kueue", "spec/suspend", True, "applied again, it would stop"),
    ("kueue", "spec/shutdownAfterJobFinishes", None, "keeps its share"),
    ("kueue", "spec/clusterSelector", {"ray.io/cluster": "old"}, "that Kueue does not know"),
    ("kueue", f"{GROUP}/groupName", "head", "no name for a worker group"),
    ("kueue", f"{CLUSTER}/workerGroupSpecs", [{"groupName": f"g{n}"} for n in range(8)], "7"),
    ("kueue", f"{CLUSTER}/enableInTreeAutoscaling", True, "a fixed size"),
    ("references", f"{HEAD}/serviceAccountName", "root", "needs ServiceAccount/root"),
    (
        "references",
        f"{SUBMITTER}/containers/0/envFrom/1/configMapRef/name",
        "tlcluster-run",
        "needs ConfigMap/tlcluster-run",
    ),
    ("references", f"{HEAD}/imagePullSecrets", [{"name": "pull"}], "needs Secret/pull"),
    (
        "references",
        f"{WORKER}/containers/0/env",
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "a"}}}],
        "needs Secret/keys",
    ),
    (
        "references",
        f"{WORKER}/volumes/0",
        {"name": "tmp", "projected": {"sources": [{"secret": {"name": "inner"}}]}},
        "needs Secret/inner",
    ),
    (
        "references",
        f"{WORKER}/volumes/4/persistentVolumeClaim/claimName",
        "other",
        "needs PersistentVolumeClaim/other",
    ),
    ("unset", "spec/entrypoint", "python /app/jobs/run_all.py --store $BUCKET", "BUCKET is not"),
    ("unset", f"{SUBMITTER}/initContainers/0/args/0", "$(BUCKET)", "BUCKET is not set"),
    ("closed", f"{HEAD}/../metadata/labels", {"a": "b"}, "no policy denies by default"),
    ("closed", f"{CLUSTER}/headGroupSpec/serviceType", "NodePort", "a way in from outside"),
    ("closed", f"{CLUSTER}/headGroupSpec/enableIngress", True, "a way in from outside"),
]


@pytest.mark.parametrize(
    ("rule", "path", "value", "complaint"),
    MUTATIONS,
    ids=[f"{rule}-{path.rpartition('/')[2]}-{n}" for n, (rule, path, *_) in enumerate(MUTATIONS)],
)
def test_a_rule_that_is_broken_is_noticed(rule: str, path: str, value: Any, complaint: str) -> None:
    items = objects("kueue")
    path = re.sub(r"[^/]+/\.\./", "", path)
    keys = [key.replace("~", "/") for key in path.split("/")]
    place: Any = only(items, "RayJob")
    for key in keys[:-1]:
        place = place[int(key) if isinstance(place, list) else key]
    last: Any = int(keys[-1]) if isinstance(place, list) else keys[-1]
    if value is None:
        del place[last]
    else:
        place[last] = copy.deepcopy(value)
    found = list(RULES[rule](items))
    assert any(complaint in what for what in found), found


def test_other_ways_in_and_unknown_selectors_are_noticed() -> None:
    items = objects("s3-in-cluster")
    only(items, "Service")["spec"]["type"] = "LoadBalancer"
    items.append({"kind": "Ingress", "metadata": {"name": "open"}, "spec": {}})
    policy = of_kind(items, "NetworkPolicy")[0]
    rule = {"key": "a", "operator": "Exists"}
    policy["spec"]["podSelector"]["matchExpressions"] = [rule]
    found = list(closed(items))
    assert "Service/tlcluster-s3: a way in from outside" in found
    assert "Ingress/open: a way in from outside" in found
    assert f"{named(policy)}: Exists is not understood here" in found


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("4", 4), (1, 1), ("8Gi", 8 * 2**30), ("1.5k", 1500)]
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str | int, value: float) -> None:
    assert quantity(text) == value


def test_what_is_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="4 cores is no quantity"):
        quantity("4 cores")


def test_in_one_apply_the_ingest_is_queued_before_the_run_that_waits_for_it() -> None:
    kinds = [item["kind"] for item in objects("kueue")]
    assert kinds.index("Job") < kinds.index("RayJob")


# --- network policies --------------------------------------------------------------------------


def ours(component: str) -> Peer:
    return Peer({PART_OF: "tlcluster", COMPONENT: component}, "tlcluster")


OPERATOR = Peer({COMPONENT: "kuberay-operator"}, "kuberay-system")
IMPOSTOR = Peer({COMPONENT: "kuberay-operator"}, "someone")
NEIGHBOUR = Peer({"app": "web"}, "tlcluster")
OUTSIDER = Peer({PART_OF: "tlcluster", COMPONENT: "submitter"}, "someone")
DNS = Peer({"k8s-app": "kube-dns"}, "kube-system")
OPENSHIFT_DNS = Peer({"dns.operator.openshift.io/daemonset-dns": "default"}, "openshift-dns")
PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, "monitoring")
LOCAL_RESOLVERS = ("169.254.20.10", "169.254.169.254", "169.254.10.11")
"""NodeLocal DNSCache, Cloud DNS of GKE, LocalDNS of AKS."""
INTERNET = Peer(address="198.51.100.7")
METADATA = Peer(address="169.254.169.254")


@pytest.mark.parametrize(
    ("overlay", "source", "target", "port", "allowed"),
    [
        ("gpu", ours("worker"), ours("head"), 6379, True),
        ("gpu", ours("head"), ours("worker"), 40_000, True),
        ("gpu", ours("worker"), ours("worker"), 40_000, True),
        ("gpu", ours("submitter"), ours("head"), 8265, True),
        ("gpu", ours("submitter"), ours("head"), 6379, False),
        ("gpu", ours("submitter"), ours("worker"), 40_000, False),
        ("gpu", ours("ingest"), ours("head"), 8265, False),
        ("gpu", OPERATOR, ours("head"), 8265, True),
        ("gpu", OPERATOR, ours("head"), 6379, False),
        ("gpu", IMPOSTOR, ours("head"), 8265, False),
        ("gpu", OUTSIDER, ours("head"), 8265, False),
        ("gpu", NEIGHBOUR, ours("head"), 8265, False),
        ("gpu", INTERNET, ours("head"), 8265, False),
        ("gpu", PROMETHEUS, ours("head"), 8080, True),
        ("gpu", PROMETHEUS, ours("worker"), 8080, True),
        ("gpu", PROMETHEUS, ours("head"), 8265, False),
        ("gpu", PROMETHEUS, ours("ingest"), 8080, False),
        ("gpu", NEIGHBOUR, ours("worker"), 8080, False),
        ("gpu", ours("worker"), METADATA, 80, False),
        ("gpu", ours("worker"), INTERNET, 443, False),
        ("gpu", ours("ingest"), INTERNET, 443, True),
        ("gpu", ours("ingest"), INTERNET, 80, False),
        ("gpu", ours("ingest"), METADATA, 443, False),
        ("gpu", ours("worker"), NEIGHBOUR, 443, False),
        ("s3-secret", ours("worker"), INTERNET, 443, True),
        ("s3-secret", ours("submitter"), INTERNET, 443, True),
        ("s3-identity", ours("head"), INTERNET, 443, True),
        ("s3-identity", ours("head"), METADATA, 443, False),
        ("s3-in-cluster", ours("worker"), ours("s3"), 8333, True),
        ("s3-in-cluster", ours("submitter"), ours("s3"), 8333, True),
        ("s3-in-cluster", ours("worker"), ours("s3"), 8888, False),
        ("s3-in-cluster", NEIGHBOUR, ours("s3"), 8333, False),
        ("s3-in-cluster", ours("s3"), INTERNET, 443, False),
        ("s3-in-cluster", ours("worker"), INTERNET, 443, False),
    ],
)
def test_the_network_lets_through_what_is_needed_and_nothing_else(
    overlay: str, source: Peer, target: Peer, port: int, allowed: bool
) -> None:
    assert allows(objects(overlay), source, target, port) is allowed


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_every_pod_can_ask_for_names(overlay: str, protocol: str) -> None:
    items = objects(overlay)
    for pod in pods(items):
        source = Peer(pod.labels, "tlcluster")
        assert allows(items, source, DNS, 53, protocol)
        assert allows(items, source, OPENSHIFT_DNS, 5353, protocol)
        for address in LOCAL_RESOLVERS:
            assert allows(items, source, Peer(address=address), 53, protocol)
        assert not allows(items, source, INTERNET, 53, protocol)


# --- kustomize does not say when nothing happens -----------------------------------------------


def entries(folder: Path) -> Iterator[tuple[str, Path, Callable[[Any], None]]]:
    """Everything in the components that changes something: (name, file, how to remove it)."""
    for kustomization in sorted((folder / "components").glob("*/kustomization.yaml")):
        name = kustomization.parent.name
        content = yaml.safe_load(kustomization.read_text())
        for number, patch in enumerate(content.get("patches", ())):
            file = kustomization.parent / patch["path"] if "path" in patch else kustomization
            operations = yaml.safe_load(file.read_text() if "path" in patch else patch["patch"])
            for step in range(len(operations)):
                yield f"{name} patch {number}.{step}", file, _without_operation(number, step)
        for number, replacement in enumerate(content.get("replacements", ())):
            for target, selected in enumerate(replacement["targets"]):
                for path in range(len(selected["fieldPaths"])):
                    yield (
                        f"{name} replacement {number}.{target}.{path}",
                        kustomization,
                        _without_path(number, target, path),
                    )


def _without_operation(number: int, step: int) -> Callable[[Any], None]:
    def remove(content: Any) -> None:
        if isinstance(content, list):
            del content[step]
            return
        operations = yaml.safe_load(content["patches"][number]["patch"])
        del operations[step]
        content["patches"][number]["patch"] = yaml.safe_dump(operations)

    return remove


def _without_path(number: int, target: int, path: int) -> Callable[[Any], None]:
    def remove(content: Any) -> None:
        del content["replacements"][number]["targets"][target]["fieldPaths"][path]

    return remove


def users_of(component: str) -> list[str]:
    """The overlays that a component is part of."""
    found = []
    for overlay in OVERLAYS:
        text = (K8S / "overlays" / overlay / "kustomization.yaml").read_text()
        inner = [
            (K8S / "components" / name / "kustomization.yaml").read_text()
            for name in re.findall(r"components/([\w-]+)", text)
        ]
        if f"components/{component}\n" in text or any(f"../{component}\n" in t for t in inner):
            found.append(overlay)
    return found


def test_every_patch_and_replacement_changes_a_render(copied: Path) -> None:
    idle = []
    for name, file, remove in list(entries(copied)):
        before = file.read_text()
        content = yaml.safe_load(before)
        remove(content)
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        overlay = users_of(name.split()[0])[0]
        done = tool("kubectl", "kustomize", copied / "overlays" / overlay)
        if done.returncode == 0 and done.stdout == rendered(overlay):
            idle.append(name)
        file.write_text(before)
    assert idle == []


def test_a_patch_that_matches_nothing_is_noticed(copied: Path) -> None:
    file = copied / "components/gpu/kustomization.yaml"
    file.write_text(file.read_text().replace("kind: RayCluster", "kind: RayClusters"))
    without = kustomize(copied / "overlays/gpu")
    assert without != rendered("gpu")
    file = copied / "components/gpu/worker.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text())[1:]))
    assert kustomize(copied / "overlays/gpu") == without


def test_the_gpu_patch_leaves_the_rest_of_the_worker_group_alone() -> None:
    cpu, gpu = (
        only(objects(name), "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
        for name in ("cpu", "gpu")
    )
    container = gpu["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    del gpu["template"]["spec"]["tolerations"]
    container["image"] = container["image"].replace("-gpu", "-cpu")
    container["resources"] = cpu["template"]["spec"]["containers"][0]["resources"]
    for key in ("replicas", "minReplicas", "maxReplicas"):
        assert gpu.pop(key) == 4
        assert cpu.pop(key) == 2
    assert gpu == cpu


def with_suffix(folder: Path, overlay: str) -> list[Object]:
    """An overlay as a second run in the same namespace would have it."""
    return with_own(folder, f"resources: [../{overlay}]\nnameSuffix: -two\n")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_configmap_has_the_hash_of_its_content_wherever_it_is_named(overlay: str) -> None:
    for item in of_kind(objects(overlay), "ConfigMap"):
        assert re.fullmatch(r"tlcluster-(data|run)-[a-z0-9]{10}", item["metadata"]["name"])
        assert rendered(overlay).count(item["metadata"]["name"]) > 1


@pytest.mark.parametrize("overlay", ["gpu", "cluster"])
def test_a_suffix_reaches_every_name(copied: Path, overlay: str) -> None:
    items = with_suffix(copied, overlay)
    assert references(items) == []
    assert all("-two" in item["metadata"]["name"] for item in items)


@pytest.mark.parametrize("overlay", ["gpu", "cluster"])
def test_a_name_that_kustomize_is_not_told_of_is_noticed(copied: Path, overlay: str) -> None:
    names = copied / "base/names.yaml"
    whole = yaml.safe_load(names.read_text())
    kind = {"gpu": "RayJob", "cluster": "RayCluster"}[overlay]
    for referent in whole["nameReference"]:
        left = copy.deepcopy(whole)
        (entry,) = (e for e in left["nameReference"] if e["kind"] == referent["kind"])
        entry["fieldSpecs"] = [f for f in entry["fieldSpecs"] if f["kind"] != kind]
        names.write_text(yaml.safe_dump(left))
        items = with_suffix(copied, overlay)
        shutil.rmtree(copied / "overlays/own")
        assert any(f"{kind}/" in found and referent["kind"] in found for found in references(items))


# --- the README --------------------------------------------------------------------------------


def test_what_the_readme_says_that_users_make_is_needed_somewhere(copied: Path) -> None:
    renders = [
        *(objects(overlay) for overlay in OVERLAYS),
        with_own(copied, "".join(shown_overlay())),
    ]
    needed = {found.rpartition(" ")[2] for items in renders for found in references(items)}
    assert needed == set(DOCUMENTED)


def test_the_readme_names_every_overlay_and_component() -> None:
    for folder in (*(K8S / "overlays").iterdir(), *(K8S / "components").iterdir()):
        assert f"`{folder.name}`" in README, folder.name


def with_own(folder: Path, text: str) -> list[Object]:
    """A render of an overlay of a user's own."""
    own = folder / "overlays/own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(text)
    return loaded(kustomize(own))


def test_the_overlay_that_the_readme_shows_can_be_used_word_for_word(copied: Path) -> None:
    shown, _ = shown_overlay()
    items = with_own(copied, shown)
    changed_by = yaml.safe_load(shown)
    (image,) = changed_by["images"]
    assert {c["image"].rpartition(":")[0] for p in pods(items) for c in p.containers} == {
        image["newName"]
    }
    settings = {k: v for m in of_kind(items, "ConfigMap") for k, v in m["data"].items()}
    for generator in changed_by["configMapGenerator"]:
        for literal in generator["literals"]:
            key, _, value = literal.partition("=")
            assert settings[key] == value
    assert only(items, "PersistentVolumeClaim")["spec"]["storageClassName"] == "CLASS"
    for rule in RULES.values():
        assert list(rule(items)) == []
    assert_entrypoint_parses(items)


def test_what_the_readme_shows_for_some_clusters_fits_below_it(copied: Path) -> None:
    items = with_own(copied, "".join(shown_overlay()))
    for rule in RULES.values():
        assert list(rule(items)) == []
    assert only(items, "ServiceAccount")["imagePullSecrets"] == [{"name": "registry"}]
    by_component = {pod.labels[COMPONENT]: pod.spec for pod in pods(items)}
    assert {spec["serviceAccountName"] for spec in by_component.values()} == {"tlcluster"}
    worker = by_component["worker"]
    assert worker["runtimeClassName"] == "nvidia"
    assert len(worker["tolerations"]) == 2
    for component in ("head", "submitter"):
        affinity = by_component[component]["affinity"]["nodeAffinity"]
        ((rule,),) = (
            term["matchExpressions"]
            for term in affinity["requiredDuringSchedulingIgnoredDuringExecution"][
                "nodeSelectorTerms"
            ]
        )
        assert rule["operator"] == "NotIn"
    assert "affinity" not in worker


def test_the_namespace_is_the_overlays_and_refuses_pods_that_are_not_restricted() -> None:
    namespace = yaml.safe_load((K8S / "namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for overlay in OVERLAYS:
        for item in objects(overlay):
            assert item["metadata"]["namespace"] == namespace["metadata"]["name"], named(item)


# --- commands ----------------------------------------------------------------------------------


def assert_entrypoint_parses(items: Objects) -> RunSettings:
    """Check that the entrypoint is a command line of jobs/run_all.py; returns its settings."""
    spec = only(items, "RayJob")["spec"]
    (submitter,) = spec["submitterPodTemplate"]["spec"]["containers"]
    line = string.Template(spec["entrypoint"]).substitute(values_of(items, submitter))
    python, script, *flags = shlex.split(line)
    assert (python, script) == ("python", "/app/jobs/run_all.py")
    settings = parse(RunSettings, script, "", flags)
    assert settings.run_name == values_of(items, submitter)["RUN_NAME"]
    assert settings.store != settings.output
    assert settings.recipe().chosen
    return settings


@pytest.mark.parametrize("overlay", RUNS)
def test_the_entrypoint_is_a_command_line_of_run_all(overlay: str) -> None:
    settings = assert_entrypoint_parses(objects(overlay))
    assert settings.profile == ("paper" if "nvidia.com/gpu" in rendered(overlay) else "quick")


def test_an_entrypoint_with_an_unknown_flag_is_noticed() -> None:
    items = objects("cpu")
    only(items, "RayJob")["spec"]["entrypoint"] += " --gpus 4"
    with pytest.raises(tlcluster.errors.UserError, match="--gpus"):
        assert_entrypoint_parses(items)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ingest_is_a_command_line_of_ingest_and_fills_the_store_of_the_run(
    overlay: str,
) -> None:
    items = objects(overlay)
    (container,) = only(items, "Job")["spec"]["template"]["spec"]["containers"]
    python, script, *flags = substituted(container, values_of(items, container))
    assert (python, script) == ("python", "/app/jobs/ingest.py")
    settings = parse(IngestSettings, "ingest.py", "", flags)
    assert settings.source == ARCHIVE_URL
    assert str(settings.processes) == container["resources"]["limits"]["cpu"]
    if overlay in RUNS:
        assert settings.store == assert_entrypoint_parses(items).store


def test_the_scripts_that_commands_name_are_in_the_image() -> None:
    for overlay in OVERLAYS:
        for script in re.findall(r"/app/(\S+\.py)", rendered(overlay)):
            assert (ROOT / script).is_file()


# --- facts that stand in more than one place ---------------------------------------------------


def locked(package: str) -> str:
    (found,) = re.findall(
        rf"^{package}(?:\[.*\])?==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE
    )
    return str(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_of_this_version_and_of_the_kind_of_node(overlay: str) -> None:
    items = objects(overlay)
    kind = "gpu" if "nvidia.com/gpu" in rendered(overlay) else "cpu"
    images = {container["image"] for pod in pods(items) for container in pod.containers}
    assert images == {f"tlcluster:{tlcluster.__version__}-{kind}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_is_the_one_of_the_lock(overlay: str) -> None:
    for _, spec in clusters(objects(overlay)):
        assert spec["rayVersion"] == locked("ray") == ray.__version__


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_are_the_ones_that_ray_and_the_policies_use(overlay: str) -> None:
    items = objects(overlay)
    for _, spec in clusters(items):
        (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in head["ports"]}
        assert ports == {"gcs-server": DEFAULT_PORT, "dashboard": DEFAULT_DASHBOARD_PORT}
        assert allows(items, OPERATOR, ours("head"), ports["dashboard"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_volumes_hold_what_the_program_may_put_there(overlay: str) -> None:
    cache = RunSettings.model_fields["cache_gib"].default
    for pod in pods(objects(overlay)):
        for volume in pod.spec["volumes"]:
            if volume["name"] == "cache":
                assert quantity(volume["emptyDir"]["sizeLimit"]) > cache * 2**30
    for _, spec in clusters(objects(overlay)):
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            (shm,) = (v for v in group["template"]["spec"]["volumes"] if v["name"] == "shm")
            objects_bytes = int(group["rayStartParams"]["object-store-memory"])
            assert quantity(shm["emptyDir"]["sizeLimit"]) > objects_bytes


def test_there_are_as_many_gpu_workers_as_experiments() -> None:
    spec = only(objects("gpu"), "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert spec["replicas"] == len(RunSettings().recipe().chosen)


def test_the_store_in_the_cluster_is_where_its_clients_look() -> None:
    items = objects("s3-in-cluster")
    data = next(m["data"] for m in of_kind(items, "ConfigMap") if "STORE" in m["data"])
    (server,) = only(items, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    flags = dict(flag.removeprefix("-").split("=", 1) for flag in server["args"])
    (port,) = only(items, "Service")["spec"]["ports"]
    assert data["AWS_ENDPOINT_URL"] == f"http://{only(items, 'Service')['metadata']['name']}:8333"
    assert str(port["port"]) == flags["s3.port"] == str(server["ports"][0]["containerPort"])
    for key in ("STORE", "OUTPUT"):
        assert data[key].startswith(f"s3://{flags['bucket']}/")
    known = tool("weed", "mini", "-h")
    names = set(re.findall(r"^  -(\S+)", known.stdout + known.stderr, re.MULTILINE))
    assert names >= flags.keys()


# --- credentials -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlay", "method"),
    [
        ("s3-secret", "shared-credentials-file"),
        ("s3-in-cluster", "shared-credentials-file"),
        ("s3-identity", "assume-role-with-web-identity"),
    ],
)
@pytest.mark.parametrize("component", ["head", "worker", "ingest", "submitter"])
def test_a_pod_finds_its_credentials_where_they_are_mounted(
    overlay: str, method: str, component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = objects(overlay)
    pod = next(pod for pod in pods(items) if pod.labels[COMPONENT] == component)
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = b\n"
    )
    (tmp_path / "token").write_text("token")
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    container = pod.containers[0]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts["/run/s3"] in {volume["name"] for volume in pod.spec["volumes"]}
    for name, value in values_of(items, container).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value.replace("/run/s3", str(tmp_path)))
    assert botocore.session.Session().get_credentials().method == method


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_render_holds_a_credential(overlay: str) -> None:
    assert of_kind(objects(overlay), "Secret") == []
    assert not re.search(r"(?i)AWS_(ACCESS|SECRET|SESSION)|auth_token", rendered(overlay))


def new_keys() -> Object:
    script = K8S / "components/s3-in-cluster/new-keys"
    done = subprocess.run([script], capture_output=True, text=True, check=True)
    secret = yaml.safe_load(done.stdout)
    assert isinstance(secret, dict)
    return secret


def test_new_keys_are_a_secret_with_all_that_pods_mount_and_never_the_same() -> None:
    one, other = new_keys(), new_keys()
    mounted = {
        item["key"]
        for pod in pods(objects("s3-in-cluster"))
        for volume in pod.spec["volumes"]
        if "secret" in volume
        for item in volume["secret"]["items"]
    }
    assert one["stringData"].keys() == mounted
    assert f"Secret/{one['metadata']['name']}" in DOCUMENTED
    words = [
        set(re.findall(r"\b[0-9a-f]{40}\b", " ".join(secret["stringData"].values())))
        for secret in (one, other)
    ]
    assert [len(found) for found in words] == [6, 6]
    assert not words[0] & words[1]
    tomllib.loads(one["stringData"]["security.toml"])


# --- the image ---------------------------------------------------------------------------------

STEPS = instructions(DOCKERFILE.read_text())


def test_the_dockerfile_passes_hadolint() -> None:
    done = tool("hadolint", DOCKERFILE)
    assert done.returncode == 0, done.stdout


def test_what_hadolint_would_not_pass_is_noticed() -> None:
    done = tool("hadolint", "-", input="FROM python:latest\nRUN cd /app\n")
    assert done.returncode == 1
    assert "DL3007" in done.stdout


def test_the_base_is_an_exact_version_of_a_python_that_the_project_supports() -> None:
    (base,) = (step.text for step in STEPS if step.text.startswith("BASE="))
    found = re.fullmatch(r"BASE=python:(\d+\.\d+\.\d+)-slim-\w+", base)
    assert found
    assert found[1] in SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert [step.text for step in STEPS if step.name == "FROM"] == ["${BASE}"]


def test_all_packages_come_from_the_locks_and_are_checked() -> None:
    installs = [step.text for step in STEPS if "pip install" in step.text]
    locks = ("requirements.txt", "requirements-gpu.txt", "requirements-track.txt")
    for install, lock in zip(installs, locks, strict=True):
        assert "--require-hashes --only-binary :all:" in install
        assert f"--requirement /opt/tlcluster/{lock}" in install
    assert installs[1].startswith('if [ -n "${GPU}" ]')
    assert installs[2].startswith('if [ -n "${TRACK}" ]')


def test_a_changed_line_of_code_rebuilds_no_package() -> None:
    order = [step.text for step in STEPS]
    code = next(n for n, text in enumerate(order) if text.startswith("LICENSE"))
    assert max(n for n, text in enumerate(order) if "pip install" in text) < code
    assert order.index("GPU=") > next(n for n, text in enumerate(order) if "pip install" in text)


def test_the_image_runs_as_the_user_of_the_pods() -> None:
    (user,) = (step.text for step in STEPS if step.name == "USER")
    (made,) = (step.text for step in STEPS if step.text.startswith("useradd"))
    for pod in pods(objects("cpu")):
        context = pod.spec["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
        assert f"--uid {context['runAsUser']} " in made
    (head,) = (pod for pod in pods(objects("cpu")) if pod.labels[COMPONENT] == "head")
    home = next(item["value"] for item in head.containers[0]["env"] if item["name"] == "HOME")
    assert f"--home-dir {home} " in made


def test_the_image_has_the_weights_that_the_program_accepts() -> None:
    (add,) = (step.text for step in STEPS if step.name == "ADD")
    assert f"WEIGHTS={BACKBONES['vgg16'].weights_url}" in [step.text for step in STEPS]
    assert add.endswith(f" {image_environment()[weights.VARIABLE]}")


def test_the_image_finds_the_driver_where_gke_mounts_it() -> None:
    assert image_environment()["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64"


def copies(steps: Sequence[Any]) -> list[str]:
    return [word for s in steps if s.name == "COPY" for word in s.text.split()[:-1]]


def test_what_is_sent_to_the_builder_is_what_the_dockerfile_copies_and_small() -> None:
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    sent = {path for path in exclude_paths(str(ROOT), patterns) if (ROOT / path).is_file()} - {
        ".dockerignore",  # Docker reads these two and leaves them out
        "k8s/Dockerfile",
    }
    tops = {Path(path).parts[0] for path in sent}
    assert tops == set(copies(STEPS))
    assert {"jobs/run_all.py", "tlcluster/__init__.py"} <= sent
    assert not [path for path in sent if "__pycache__" in path]
    sizes = {path: (ROOT / path).stat().st_size for path in sent}
    weights_copy = sizes.pop("tlcluster/training/weights_files/vgg16-imagenet-8bit.npz.xz")
    assert weights_copy < 13_000_000
    assert sum(sizes.values()) < 5_000_000
    kept = subprocess.run(
        ["git", "ls-files", "jobs", "tlcluster"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if kept.returncode == 0:
        assert sent >= set(kept.stdout.split())


def test_tags_in_comments_are_the_ones_that_the_manifests_ask_for() -> None:
    shown = set(re.findall(r"\btlcluster:(\S+?)[\s`]", DOCKERFILE.read_text() + README))
    assert shown == {f"{tlcluster.__version__}-cpu", f"{tlcluster.__version__}-gpu"}
