"""The official Python client."""

from __future__ import annotations

from collections.abc import Iterator

import kubernetes
import pytest
from tests.e2e.clients.conftest import Cluster

pytestmark = pytest.mark.e2e


@pytest.fixture
def inside(cluster: Cluster) -> Iterator[None]:
    """Let this process speak to the cluster's network."""
    with cluster.machine.network():
        yield


def test_objects_are_made_watched_and_deleted(cluster: Cluster, namespace: str, inside: None) -> None:
    api_client = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
    core = kubernetes.client.CoreV1Api(api_client)
    made = core.create_namespaced_config_map(
        namespace, {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}}
    )
    watch = kubernetes.watch.Watch()
    events = watch.stream(
        core.list_namespaced_config_map, namespace, resource_version=made.metadata.resource_version, timeout_seconds=240
    )

    core.patch_namespaced_config_map("a", namespace, {"data": {"k": "w"}})
    core.delete_namespaced_config_map("a", namespace)
    seen = []
    for event in events:
        seen.append((event["type"], event["object"].data))
        if event["type"] == "DELETED":
            break
    watch.stop()

    assert seen == [("MODIFIED", {"k": "w"}), ("DELETED", {"k": "w"})]
    with pytest.raises(kubernetes.client.exceptions.ApiException) as caught:
        core.read_namespaced_config_map("a", namespace)
    assert caught.value.status == 404
