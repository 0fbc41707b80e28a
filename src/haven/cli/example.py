"""examples/hello, applied and shown answering: through its ClusterIP, its NodePort and its DNS name."""

from __future__ import annotations

import http.client
import time
from pathlib import Path
from typing import Any

import click
import yaml

from haven.cli.api import Api
from haven.cli.failure import Failure
from haven.cli.progress import step
from haven.cli.settings import ClusterSettings

__all__ = ["run"]

MANIFEST = Path(__file__).parents[3] / "examples" / "hello" / "hello.yaml"
AVAILABLE_SECONDS_MAX = 180.0
ANSWER_SECONDS_MAX = 60.0
PLURALS = {"ConfigMap": "configmaps", "Deployment": "deployments", "Service": "services"}


def run(settings: ClusterSettings) -> None:
    """Apply the example, wait for it, ask it in three ways and print the answers."""
    from haven.cli.image import make_example

    if not MANIFEST.exists():
        raise Failure("the example lies in the source tree: clone it and run make up there")
    api = Api(settings)
    if Path("/bin/busybox").exists():  # Then no registry is needed: the image is made from this machine's own program.
        with step("making the example's image"):
            make_example(settings)
    with step("applying examples/hello"):
        for document in yaml.safe_load_all(MANIFEST.read_text()):
            group = "/apis/apps/v1" if "/" in document["apiVersion"] else "/api/v1"
            path = f"{group}/namespaces/default/{PLURALS[document['kind']]}/{document['metadata']['name']}"
            api.apply(document, path, "haven-example")
    with step("waiting for three replicas"):
        _wait_available(api)
    _, service = api.get_json("/api/v1/namespaces/default/services/hello")
    _, node = api.get_json(f"/api/v1/nodes/{settings.node_name}")
    cluster_ip = service["spec"]["clusterIP"]
    node_ip = next(item["address"] for item in node["status"]["addresses"] if item["type"] == "InternalIP")
    name = f"hello.default.svc.{settings.cluster_domain}"
    with step("asking it"):
        answers = [
            ("ClusterIP", f"http://{cluster_ip}", _ask(cluster_ip, 80)),
            ("NodePort", f"http://{node_ip}:30080", _ask(node_ip, 30080)),
            ("DNS", f"http://{name}", _ask(_resolve(name, settings), 80)),
        ]
    _show_pods(api)
    for how, where, answer in answers:
        click.echo(f"{how:10} {where:42} {answer}")


def _wait_available(api: Api) -> None:
    deadline = time.monotonic() + AVAILABLE_SECONDS_MAX
    status: dict[str, Any] = {}
    while time.monotonic() < deadline:
        code, deployment = api.get_json("/apis/apps/v1/namespaces/default/deployments/hello")
        if code == 200:
            status = deployment["status"]
            current = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
            if current and status.get("availableReplicas", 0) >= 3 and status.get("updatedReplicas", 0) >= 3:
                return
        time.sleep(0.1)
    raise Failure(
        f"only {status.get('availableReplicas', 0)} of 3 replicas are available after {AVAILABLE_SECONDS_MAX:.0f} s: "
        "haven kubectl describe pods -l app=hello tells why"
    )


def _ask(host: str, port: int) -> str:
    """Return the page's first line; endpoints may be a moment behind their Pods."""
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while True:
        try:
            connection = http.client.HTTPConnection(host, port, timeout=3)
            connection.request("GET", "/")
            return connection.getresponse().read().decode().strip().splitlines()[0]
        except (OSError, http.client.HTTPException, IndexError) as error:
            if time.monotonic() > deadline:
                raise Failure(f"http://{host}:{port} does not answer: {error}") from error
            time.sleep(0.1)


def _resolve(name: str, settings: ClusterSettings) -> str:
    import dns.exception
    import dns.message
    import dns.query

    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while True:
        try:
            reply = dns.query.udp(dns.message.make_query(name, "A"), settings.dns_address, timeout=2)
            if reply.answer:
                return str(reply.answer[0][0])
        except (OSError, dns.exception.DNSException):
            pass
        if time.monotonic() > deadline:
            raise Failure(f"{name} does not resolve at {settings.dns_address}: haven logs agent tells more")
        time.sleep(0.1)


def _show_pods(api: Api) -> None:
    _, pods = api.get_json("/api/v1/namespaces/default/pods?labelSelector=app%3Dhello")
    click.echo(f"{'POD':26} {'READY':6} {'STATUS':9} {'IP':15} NODE")
    for pod in pods["items"]:
        ready = sum(item.get("ready", False) for item in pod["status"].get("containerStatuses", []))
        total = len(pod["spec"]["containers"])
        status = "Leaving" if pod["metadata"].get("deletionTimestamp") else pod["status"].get("phase", "")
        where = pod["status"].get("podIP", "")
        click.echo(
            f"{pod['metadata']['name']:26} {ready}/{total:<4} {status:9} {where:15} {pod['spec'].get('nodeName', '')}"
        )
