"""A cluster calls programs of its users through a Service: the service proxy, TLS and trust are the real ones."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.extension import GROUP, PATH
from tests.e2e.machine import Cluster, a_machine

from haven.cluster.certificates import new_authority, serving_pair

pytestmark = pytest.mark.e2e
ADDRESS, PORT = "192.0.2.10", 8443  # The machine's own: Services may not lead to loopback.
MAPS = "/api/v1/namespaces/default/configmaps"
SERVICE = {"metadata": {"name": "extension"}, "spec": {"ports": [{"port": 443, "targetPort": PORT}]}}
SLICE = {
    "metadata": {"name": "extension-1", "labels": {"kubernetes.io/service-name": "extension"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": [ADDRESS]}],
    "ports": [{"name": "", "port": PORT}],
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with a_machine() as machine:
        cluster = machine.cluster("extended")
        cluster.haven("up")
        cluster.request("POST", "/api/v1/namespaces/default/services", SERVICE)
        cluster.request("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", SLICE)
        yield cluster
        cluster.try_haven("reset", "--yes")


@pytest.fixture(scope="module")
def authority(cluster: Cluster) -> Iterator[str]:
    """Run the program in the machine; yield its authority in base64."""
    now, life = time.time(), timedelta(hours=1)
    ca = new_authority("extension-authority", now=now, life=life)
    pair = serving_pair(ca, "extension", ("extension.default.svc",), now=now, life=life)
    certificate, key = cluster.machine.scratch / "extension.crt", cluster.machine.scratch / "extension.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    proxies = cluster.data / "pki" / "front-proxy-ca.crt"
    program = Path(__file__).with_name("extension.py")
    process = cluster.machine.spawn(
        sys.executable, program, certificate, key, proxies, ADDRESS, str(PORT), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield base64.b64encode(ca.certificate).decode()
    process.kill()
    process.wait()
    process.stdout.close()


def a_webhook(authority: str, path: str) -> dict[str, Any]:
    return {
        "name": "extension.example.com",
        "clientConfig": {
            "service": {"namespace": "default", "name": "extension", "path": path},
            "caBundle": authority,
        },
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }


def test_webhooks_behind_a_service_change_and_refuse_objects(cluster: Cluster, authority: str) -> None:
    group = "/apis/admissionregistration.k8s.io/v1"
    for kind, path in (("mutating", "/mutate"), ("validating", "/validate")):
        body = {"metadata": {"name": "extension"}, "webhooks": [a_webhook(authority, path)]}
        status, answer = cluster.request("POST", f"{group}/{kind}webhookconfigurations", body)
        assert status == 201, answer

    def is_reached() -> bool:  # Once the service proxy knows the Service.
        status, _ = cluster.request("POST", MAPS, {"metadata": {"name": "probe"}})
        return status in (201, 409)

    cluster.wait_until(is_reached, "a webhook that answers")
    status, made = cluster.request("POST", MAPS, {"metadata": {"name": "good"}})
    refused, because = cluster.request("POST", MAPS, {"metadata": {"name": "bad"}, "data": {"deny": "1"}})

    assert status == 201
    assert made["metadata"]["labels"] == {"touched": "yes"}
    assert refused == 403
    assert because["message"] == 'admission webhook "extension.example.com" denied the request: as it asks for it'


def test_an_extension_server_learns_who_asks_from_the_clusters_own_proxy(cluster: Cluster, authority: str) -> None:
    spec = {
        "group": GROUP,
        "version": "v1alpha1",
        "service": {"namespace": "default", "name": "extension"},
        "caBundle": authority,
        "groupPriorityMinimum": 2000,
        "versionPriority": 200,
    }
    body = {"metadata": {"name": f"v1alpha1.{GROUP}"}, "spec": spec}
    status, answer = cluster.request("POST", "/apis/apiregistration.k8s.io/v1/apiservices", body)
    assert status == 201, answer

    cluster.wait_until(lambda: cluster.request("GET", PATH)[0] == 200, "an API that is available")
    status, flunder = cluster.request("GET", f"{PATH}/namespaces/default/flunders/f")

    assert status == 200
    assert flunder["metadata"]["annotations"] == {"user": "kubernetes-admin", "commonName": "front-proxy-client"}
    trust = cluster.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
    assert "BEGIN CERTIFICATE" in trust["data"]["requestheader-client-ca-file"]
    assert trust["data"]["requestheader-allowed-names"] == '["front-proxy-client"]'
