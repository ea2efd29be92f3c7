"""A stand-in for a Kubernetes API server, for the real kubectl to talk to.

It keeps objects by kind and name and records every request. Nothing runs behind it: a Job has a pod
as soon as it is created, its container starts when its log is asked for a second time, and the Job
is over when its log was read. A RayJob has a Job of the same name at once.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]

_KINDS = {
    "v1": {
        "namespaces": "Namespace",
        "pods": "Pod",
        "configmaps": "ConfigMap",
        "serviceaccounts": "ServiceAccount",
        "persistentvolumeclaims": "PersistentVolumeClaim",
    },
    "batch/v1": {"jobs": "Job"},
    "kueue.x-k8s.io/v1beta2": {"localqueues": "LocalQueue"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "ray.io/v1": {"rayjobs": "RayJob"},
}
"""API version → plural → kind."""


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, list[str]]
    body: Any


class Api(ThreadingHTTPServer):
    """The server.

    Attributes:
        ends: the condition that a Job gets at its end, `Complete` or `Failed`.
        objects: by `PLURAL/NAME`.
        requests: all of them, in order.
    """

    def __init__(self, ends: str = "Complete") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ends = ends
        self.objects: dict[str, Object] = {}
        self.requests: list[Request] = []
        self.started: set[str] = set()
        """Pods whose container has started."""

    def changes(self) -> list[str]:
        """What was created, changed and deleted, in order, as `METHOD PLURAL/NAME`."""
        found = []
        for request in self.requests:
            *_, plural, name = request.path.split("/")
            if request.method == "POST":
                plural, name = name, request.body["metadata"]["name"]
            if request.method != "GET":
                found.append(f"{request.method} {plural}/{name}")
        return found

    def create(self, plural: str, item: Object) -> None:
        name = item["metadata"]["name"]
        self.objects[f"{plural}/{name}"] = item
        if plural == "rayjobs":
            template = item["spec"]["submitterPodTemplate"]
            job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
            self.create("jobs", job | {"spec": {"template": template}})
        if plural == "jobs":
            labels = {"job-name": name}
            item["spec"]["selector"] = {"matchLabels": labels}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}}
            self.create("pods", pod | {"spec": item["spec"]["template"]["spec"]})

    def delete(self, plural: str, name: str) -> None:
        del self.objects[f"{plural}/{name}"]
        for owned in {"rayjobs": ("jobs",), "jobs": ("pods",)}.get(plural, ()):
            self.delete(owned, name)
        self.started.discard(name)

    def listed(self, plural: str, query: dict[str, list[str]]) -> list[Object]:
        """The objects of a kind that a label or the name selects."""
        asked = [*query.get("labelSelector", ()), *query.get("fieldSelector", ())]
        names = [selector.partition("=")[2] for selector in asked]
        return [
            found
            for key, found in self.objects.items()
            if key.startswith(f"{plural}/") and (not names or key.partition("/")[2] in names)
        ]

    def log(self, pod: str) -> str | None:
        """The log of a pod, or None while its container has not started."""
        if pod not in self.started:
            self.started.add(pod)
            return None
        self.objects[f"jobs/{pod}"]["status"] = {
            "conditions": [{"type": self.ends, "status": "True"}]
        }
        return f"all that {pod} prints\n"

    def config(self, folder: Path) -> Path:
        """A kubeconfig for this server."""
        path = folder / "config"
        server = f"http://127.0.0.1:{self.server_port}"
        cluster = {"name": "c", "cluster": {"server": server}}
        context = {"name": "c", "context": {"cluster": "c"}}
        content = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
        path.write_text(json.dumps(content | {"clusters": [cluster], "contexts": [context]}))
        return path


class _Handler(BaseHTTPRequestHandler):
    server: Api
    protocol_version = "HTTP/1.1"
    # Head and body in one packet; otherwise each answer takes 40 ms.
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        request = Request(self.command, parts.path, parse_qs(parts.query), body)
        self.server.requests.append(request)
        status, answer = self._found(request)
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(answer, str) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _found(self, request: Request) -> tuple[int, Any]:
        steps = request.path.strip("/").split("/")
        if steps == ["api"]:
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if steps == ["apis"]:
            groups = [_group(version) for version in _KINDS if "/" in version]
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if steps == ["openapi", "v3"]:
            urls = {_path(v): {"serverRelativeURL": f"/openapi/v3/{_path(v)}"} for v in _KINDS}
            return 200, {"paths": urls}
        if steps[0] == "openapi":
            return 200, _validates("/".join(steps[3:]))
        version = "/".join(steps[1:])
        if version in _KINDS:
            return 200, _resources(version)
        if steps[-1] == "log":
            said = self.server.log(steps[-2])
            waiting = "container is waiting to start: ContainerCreating"
            return (200, said) if said else (400, _refused(400, "BadRequest", waiting))
        if "watch" in request.query:
            return 400, _refused(400, "BadRequest", "nothing is watched here")
        *_, kind, name = steps
        if request.method == "POST":
            self.server.create(name, request.body)
            return 201, request.body
        for version, kinds in _KINDS.items():
            if name in kinds:
                items = self.server.listed(name, request.query)
                listed = {"kind": f"{kinds[name]}List", "apiVersion": version, "items": items}
                return 200, listed | {"metadata": {"resourceVersion": "1"}}
        found = self.server.objects.get(f"{kind}/{name}")
        if found is None:
            return 404, _refused(404, "NotFound", f"{name} not found")
        if request.method == "DELETE":
            self.server.delete(kind, name)
        return 200, found


def _group(version: str) -> Object:
    one = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [one], "preferredVersion": one}


def _resources(version: str) -> Object:
    verbs = ["get", "list", "watch", "delete", "create", "patch"]
    kinds = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "namespaced": kind != "Namespace",
            "kind": kind,
            "verbs": verbs,
        }
        for plural, kind in _KINDS[version].items()
    ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": kinds,
    }


def _path(version: str) -> str:
    return f"apis/{version}" if "/" in version else f"api/{version}"


def _validates(version: str) -> Object:
    """Says of every kind that the server itself checks its fields; kubectl then does not."""
    group, _, name = version.rpartition("/")
    paths = {
        f"/{plural}": {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "x-kubernetes-group-version-kind": {"group": group, "version": name, "kind": kind},
            }
        }
        for plural, kind in _KINDS[version].items()
    }
    return {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": paths}


def _refused(status: int, reason: str, message: str) -> Object:
    facts = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}}
    return facts | {"code": status, "reason": reason, "message": message}


@contextlib.contextmanager
def api(ends: str = "Complete") -> Iterator[Api]:
    """A server for as long as the block."""
    with Api(ends) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
