"""Rules for rendered manifests that no schema checks. Each rule returns its complaints."""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from k8s_files import Object, Objects, of_kind

PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
QUEUE = "kueue.x-k8s.io/queue-name"


class Pod(NamedTuple):
    """A pod that the manifests describe, whatever object it is embedded in."""

    where: str
    """`RayJob/tlcluster spec.submitterPodTemplate`."""
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def named(item: Object) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"


def pods(objects: Objects) -> list[Pod]:
    """Every pod template, found by its containers: a kind that is new here is not overlooked."""

    def search(where: str, value: Any) -> Iterator[Pod]:
        if isinstance(value, dict):
            if "containers" in value.get("spec", {}):
                labels = value.get("metadata", {}).get("labels", {})
                yield Pod(where, labels, value["spec"])
            for key, inner in value.items():
                yield from search(f"{where}.{key}", inner)
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                yield from search(f"{where}.{number}", inner)

    return [pod for item in objects for pod in search(f"{named(item)} spec", item.get("spec", {}))]


def as_pods(objects: Objects) -> list[Object]:
    """Every pod template written out as a Pod, for tools that look at nothing else."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod-{number}", "labels": pod.labels},
            "spec": pod.spec,
        }
        for number, pod in enumerate(pods(objects))
    ]


# --- pods --------------------------------------------------------------------------------------

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip


def restricted(objects: Objects) -> Iterator[str]:
    """The Pod Security Standard `restricted`, with all of `baseline` that it builds on.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    for pod in pods(objects):
        shared = pod.spec.get("securityContext", {})
        for host in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(host):
                yield f"{pod.where}: {host}"
        for volume in pod.spec.get("volumes", ()):
            if kinds := set(volume) - {"name"} - _VOLUMES:
                yield f"{pod.where}: volume {volume['name']} is a {', '.join(kinds)}"
        if shared.get("sysctls"):
            yield f"{pod.where}: sysctls"
        for container in pod.containers:
            own = container.get("securityContext", {})
            both = {**shared, **own}
            capabilities = own.get("capabilities", {})
            seccomp = both.get("seccompProfile", {}).get("type")
            ports = container.get("ports", ())
            probes = [container[probe] for probe in container if probe.endswith("Probe")]
            handlers = [*probes, *container.get("lifecycle", {}).values()]
            wrong = {
                "runs as root": both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0,
                "may gain privileges": own.get("allowPrivilegeEscalation") is not False,
                "is privileged": own.get("privileged", False),
                "keeps capabilities": "ALL" not in capabilities.get("drop", ()),
                "adds capabilities": set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"},
                "has no seccomp profile": seccomp not in ("RuntimeDefault", "Localhost"),
                "has a port of the host": any("hostPort" in port for port in ports),
                "has another procMount": own.get("procMount", "Default") != "Default",
                "asks another host": any(
                    "host" in action
                    for handler in handlers
                    for action in handler.values()
                    if isinstance(action, dict)
                ),
            }
            yield from (
                f"{pod.where}: {container['name']} {what}" for what, is_so in wrong.items() if is_so
            )


def sealed(objects: Objects) -> Iterator[str]:
    """Read-only roots with a place for all that is written, a numeric user, no API token."""
    for pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        claimed = {
            template["metadata"]["name"]
            for item in of_kind(objects, "StatefulSet")
            if pod.where.startswith(named(item))
            for template in item["spec"]["volumeClaimTemplates"]
        }
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.where}: gets a token of the Kubernetes API"
        if not isinstance(pod.spec.get("securityContext", {}).get("runAsUser"), int):
            yield f"{pod.where}: its user has no number"
        for name, volume in volumes.items():
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.where}: {name} has no limit"
        mounted = {m["name"] for c in pod.containers for m in c.get("volumeMounts", ())}
        for name in volumes.keys() - mounted:
            yield f"{pod.where}: nobody mounts {name}"
        for container in pod.containers:
            here = f"{pod.where}: {container['name']}"
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{here} can write its root"
            mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts", ())}
            for name in set(mounts.values()) - volumes.keys() - claimed:
                yield f"{here} mounts {name}, which is no volume"
            values = {e["name"]: e.get("value") for e in container.get("env", ())}
            places = {"/tmp", values.get("HOME"), values.get("XDG_CACHE_HOME", "/tmp")}  # noqa: S108
            for place in places:
                if "emptyDir" not in volumes.get(mounts.get(place, ""), {}):
                    yield f"{here} cannot write {place}"


_UNITS = {
    "": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


def quantity(text: str | int) -> Decimal:
    """A Kubernetes quantity as a number: cores, bytes or pieces."""
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{text} is no quantity")
    return Decimal(found[1]) * _UNITS[found[2]]


def resources(objects: Objects) -> Iterator[str]:
    """Every container asks for CPU and memory within a limit; accelerators come whole.

    It asks for local disk, too, unless it waits in a queue of Kueue: few queues have any.
    """
    queued = bool(of_kind(objects, "LocalQueue"))
    for pod in pods(objects):
        for container in pod.containers:
            here = f"{pod.where}: {container['name']}"
            asked = container.get("resources", {}).get("requests", {})
            limit = container.get("resources", {}).get("limits", {})
            for kind in ("cpu", "memory"):
                if kind not in asked or kind not in limit:
                    yield f"{here} has no request and limit of {kind}"
            if ("ephemeral-storage" in asked) is queued:
                what = "asks for local disk in a queue" if queued else "asks for no local disk"
                yield f"{here} {what}"
            for kind in asked.keys() & limit.keys():
                if quantity(asked[kind]) > quantity(limit[kind]):
                    yield f"{here} asks for {asked[kind]} {kind}, limit {limit[kind]}"
            for kind in {*asked, *limit} - {"cpu", "memory", "ephemeral-storage"}:
                if asked.get(kind) != limit.get(kind) or quantity(limit[kind]) % 1:
                    yield f"{here}: {kind} is not whole, or not in both"


# --- the operators' own rules ------------------------------------------------------------------


def clusters(objects: Objects) -> list[tuple[str, Object]]:
    """Every specification of a Ray cluster."""
    return [
        *((named(item), item["spec"]["rayClusterSpec"]) for item in of_kind(objects, "RayJob")),
        *((named(item), item["spec"]) for item in of_kind(objects, "RayCluster")),
    ]


def operator(objects: Objects) -> Iterator[str]:
    """Mistakes that KubeRay's operator refuses, or accepts with another effect than meant."""
    for item in of_kind(objects, "RayJob", "RayCluster"):
        name = item["metadata"]["name"]
        if len(name) > 47 or not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
            yield f"{named(item)}: a name has at most 47 letters, digits and dashes"
    for where, spec in clusters(objects):
        groups = [("head", spec["headGroupSpec"])]
        groups += [(group["groupName"], group) for group in spec.get("workerGroupSpecs", ())]
        if spec.get("authOptions") != {"mode": "token"}:
            yield f"{where}: no token authentication"
        version = str(spec.get("rayVersion", "0.0"))
        if tuple(map(int, version.split(".")[:2])) < (2, 52):
            yield f"{where}: token authentication needs rayVersion 2.52 or later"
        if len({name for name, _ in groups}) < len(groups):
            yield f"{where}: two groups have one name"
        for name, group in groups:
            start = group.get("rayStartParams", {})
            if not group["template"]["spec"].get("containers"):
                yield f"{where}: group {name} has no container"
            if group.get("resources") and start.keys() & {
                "num-cpus",
                "num-gpus",
                "memory",
                "resources",
            }:
                yield f"{where}: group {name} has resources in two places"
            if "labels" in start:
                yield f"{where}: group {name} has labels in rayStartParams"
            if name == "head":
                continue
            sizes = [group.get(key) for key in ("minReplicas", "replicas", "maxReplicas")]
            if None in sizes:
                yield f"{where}: group {name} does not say all of its replicas"
            elif len(set(sizes)) > 1:
                yield f"{where}: group {name} may start with a part of its pods"
        if spec["headGroupSpec"].get("rayStartParams", {}).get("num-cpus") != "0":
            yield f"{where}: workers may start on the head"
    for item in of_kind(objects, "RayJob"):
        yield from (f"{named(item)}: {what}" for what in _job(item["spec"]))


def _job(spec: Object) -> Iterator[str]:
    if not spec.get("shutdownAfterJobFinishes"):
        yield "its cluster stays, and the operator takes neither suspend nor a time to live"
    if spec.get("ttlSecondsAfterFinished", 0) <= 0:
        yield "its cluster goes at once, and what it printed with it"
    for deadline in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(deadline, 0) <= 0:
            yield f"{deadline} does not end it"
    if "clusterSelector" in spec:
        yield "it should have a cluster of its own, and clusterSelector names an old one"
    if spec.get("backoffLimit", 0) > 0:
        yield "a wrong flag would cost another cluster"
    if spec.get("submitterConfig", {}).get("backoffLimit", 2) < 1:
        yield "nobody submits again after the loss of the head"
    if "--run-name" not in spec["entrypoint"]:
        yield "a submission after the loss of the head would be another run: no --run-name"
    if "jobId" in spec:
        yield "a run that Kueue stops and starts again needs another jobId"
    template = spec.get("submitterPodTemplate")
    if spec.get("submissionMode") != "K8sJobMode" or template is None:
        yield "the operator's own submitter pod is not restricted"
    elif template["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
        yield "a Job's pod restarts Never or OnFailure"


def kueue(objects: Objects) -> Iterator[str]:
    """Mistakes that Kueue's webhook refuses, and queues that do not exist."""
    queues = {item["metadata"]["name"] for item in of_kind(objects, "LocalQueue")}
    for item in of_kind(objects, "RayJob", "RayCluster", "Job"):
        queue = item["metadata"].get("labels", {}).get(QUEUE)
        spec = item["spec"]
        if queue is None:
            if queues:
                yield f"{named(item)}: is in no queue"
            continue
        if queue not in queues:
            yield f"{named(item)}: there is no LocalQueue {queue}"
        # Kueue's webhook suspends what has the label when it is created.
        if "suspend" in spec:
            yield f"{named(item)}: applied again, it would stop"
        if item["kind"] == "RayJob" and not spec.get("shutdownAfterJobFinishes"):
            yield f"{named(item)}: keeps its share after its end"
        if "clusterSelector" in spec:
            yield f"{named(item)}: uses a cluster that Kueue does not know"
    for where, spec in clusters(objects) if queues else ():
        groups = [group["groupName"] for group in spec.get("workerGroupSpecs", ())]
        if len(groups) > 7:
            yield f"{where}: more than 7 worker groups"
        if "head" in groups:
            yield f"{where}: `head` is no name for a worker group"
        if spec.get("enableInTreeAutoscaling"):
            yield f"{where}: Kueue gives a fixed size"


# --- what refers to what -----------------------------------------------------------------------


def references(objects: Objects, documented: Sequence[str] = ()) -> list[str]:
    """Names of objects that are neither in the render nor documented as the user's to make."""
    there = {*map(named, objects), *documented}
    missing = {}
    for pod in pods(objects):
        for name in sorted(_named_by(pod.spec) - there):
            missing[name] = pod.where
    for item in of_kind(objects, "ServiceAccount"):
        for secret in item.get("imagePullSecrets", ()):
            if f"Secret/{secret['name']}" not in there:
                missing[f"Secret/{secret['name']}"] = named(item)
    for item in of_kind(objects, "LocalQueue"):
        name = f"ClusterQueue/{item['spec']['clusterQueue']}"
        if name not in there:
            missing[name] = named(item)
    return [f"{where} needs {name}" for name, where in missing.items()]


def _named_by(spec: Object) -> set[str]:
    names = (
        {f"ServiceAccount/{spec['serviceAccountName']}"} if "serviceAccountName" in spec else set()
    )
    names |= {f"Secret/{item['name']}" for item in spec.get("imagePullSecrets", ())}
    for volume in spec.get("volumes", ()):
        projected = volume.get("projected", {}).get("sources", ())
        for source in (volume, *projected):
            if "secret" in source:
                secret = source["secret"]
                names.add(f"Secret/{secret.get('secretName') or secret.get('name')}")
            if "configMap" in source:
                names.add(f"ConfigMap/{source['configMap']['name']}")
        if "persistentVolumeClaim" in volume:
            names.add(f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}")
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        sources = [*container.get("envFrom", ())]
        sources += [item["valueFrom"] for item in container.get("env", ()) if "valueFrom" in item]
        for source in sources:
            for key, reference in source.items():
                if key.startswith(("secret", "configMap")):
                    kind = "Secret" if key.startswith("secret") else "ConfigMap"
                    names.add(f"{kind}/{reference['name']}")
    return names


def unset(objects: Objects) -> Iterator[str]:
    """Variables in commands that the container's ConfigMaps and environment do not set."""
    data = {named(item): set(item["data"]) for item in of_kind(objects, "ConfigMap")}
    entrypoints = {named(item): item["spec"]["entrypoint"] for item in of_kind(objects, "RayJob")}
    for pod in pods(objects):
        for container in pod.containers:
            known = {item["name"] for item in container.get("env", ())}
            for source in container.get("envFrom", ()):
                known |= data.get(f"ConfigMap/{source['configMapRef']['name']}", set())
            words = " ".join([*container.get("command", ()), *container.get("args", ())])
            used = re.findall(r"\$\(([A-Z_]+)\)", words)
            if container["name"] == "submitter":
                used += re.findall(r"\$([A-Z_]+)", entrypoints[pod.where.split()[0]])
            yield from (f"{pod.where}: {name} is not set" for name in used if name not in known)


# --- the network -------------------------------------------------------------------------------


class Peer(NamedTuple):
    """One end of a connection: a pod, or an address outside the cluster."""

    labels: Mapping[str, str] = MappingProxyType({})
    namespace: str = ""
    address: str = ""


def allows(objects: Objects, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether the NetworkPolicies let a connection through, at both ends."""
    policies = of_kind(objects, "NetworkPolicy")
    return _passes(policies, "Egress", source, target, port, protocol) and _passes(
        policies, "Ingress", target, source, port, protocol
    )


def _passes(
    policies: Objects, direction: str, own: Peer, other: Peer, port: int, protocol: str
) -> bool:
    selecting = [
        policy["spec"]
        for policy in policies
        if own.namespace == policy["metadata"]["namespace"]
        and _selects(policy["spec"]["podSelector"], own.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    if not selecting:
        return True
    peers = "to" if direction == "Egress" else "from"
    return any(
        (not rule.get("ports") or {"port": port, "protocol": protocol} in rule["ports"])
        and (not rule.get(peers) or any(_is(peer, own, other) for peer in rule[peers]))
        for spec in selecting
        for rule in spec.get(direction.lower(), ())
    )


def _is(peer: Object, own: Peer, other: Peer) -> bool:
    if "ipBlock" in peer:
        if not other.address:
            return False
        address = ipaddress.ip_address(other.address)
        inside, *outside = (
            ipaddress.ip_network(block)
            for block in (peer["ipBlock"]["cidr"], *peer["ipBlock"].get("except", ()))
        )
        return address in inside and not any(address in block for block in outside)
    if other.address:
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": other.namespace}
        if not _selects(peer["namespaceSelector"], labels):
            return False
    elif other.namespace != own.namespace:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items()
    return wanted <= labels.items() and all(
        labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", ())
        if rule["operator"] == "In"
    )


def closed(objects: Objects) -> Iterator[str]:
    """Pods that no policy closes, and ways in from outside the cluster."""
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"]["podSelector"].get("matchExpressions", ()):
            if rule["operator"] != "In":
                yield f"{named(policy)}: {rule['operator']} is not understood here"
    denying = [
        policy["spec"]
        for policy in of_kind(objects, "NetworkPolicy")
        if set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not policy["spec"].get("ingress")
        and not policy["spec"].get("egress")
    ]
    for pod in pods(objects):
        if not any(_selects(spec["podSelector"], pod.labels) for spec in denying):
            yield f"{pod.where}: no policy denies by default"
    for item in objects:
        if item["kind"] in ("Ingress", "HTTPRoute", "Gateway", "Route"):
            yield f"{named(item)}: a way in from outside"
        if item["kind"] == "Service" and item["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"{named(item)}: a way in from outside"
    for where, spec in clusters(objects):
        head = spec["headGroupSpec"]
        if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
            yield f"{where}: its dashboard has a way in from outside"
