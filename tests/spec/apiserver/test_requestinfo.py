"""What a request is about follows from its method, path and query."""

from __future__ import annotations

import pytest

from haven.apiserver.requestinfo import MalformedPath, resolve


@pytest.mark.parametrize(
    ("method", "path", "query", "verb", "namespace", "resource", "name", "subresource"),
    [
        ("GET", "/api/v1/namespaces", {}, "list", "", "namespaces", "", ""),
        ("GET", "/api/v1/namespaces/other", {}, "get", "other", "namespaces", "other", ""),
        ("PUT", "/api/v1/namespaces/other/finalize", {}, "update", "other", "namespaces", "other", "finalize"),
        ("GET", "/api/v1/namespaces/other/pods", {}, "list", "other", "pods", "", ""),
        ("GET", "/api/v1/pods", {"watch": ["true"]}, "watch", "", "pods", "", ""),
        ("GET", "/api/v1/pods", {"watch": ["false"]}, "list", "", "pods", "", ""),
        ("GET", "/api/v1/watch/namespaces/other/pods", {}, "watch", "other", "pods", "", ""),
        ("GET", "/api/v1/watch/namespaces/other/pods/p", {}, "watch", "other", "pods", "p", ""),
        ("GET", "/apis/apps/v1/namespaces/n/deployments/d/scale", {}, "get", "n", "deployments", "d", "scale"),
        ("DELETE", "/api/v1/namespaces/n/pods", {}, "deletecollection", "n", "pods", "", ""),
        ("DELETE", "/api/v1/namespaces/n/pods/p", {}, "delete", "n", "pods", "p", ""),
        ("POST", "/api/v1/namespaces/n/pods", {}, "create", "n", "pods", "", ""),
        ("PATCH", "/api/v1/nodes/a/status", {}, "patch", "", "nodes", "a", "status"),
    ],
)
def test_paths_of_resources_are_understood(
    method: str, path: str, query: dict[str, list[str]], verb: str, namespace: str, resource: str, name: str,
    subresource: str,
) -> None:  # fmt: skip
    info = resolve(method, path, query)

    assert info.is_resource
    assert (info.verb, info.namespace, info.resource, info.name, info.subresource) == (
        verb, namespace, resource, name, subresource,
    )  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/version"]
)
def test_other_paths_are_no_resources_and_keep_the_method_as_their_verb(path: str) -> None:
    info = resolve("GET", path, {})

    assert not info.is_resource
    assert info.verb == "get"


def test_a_list_by_name_counts_as_a_request_for_that_name() -> None:
    info = resolve("GET", "/api/v1/namespaces/n/pods", {"fieldSelector": ["metadata.name=p"]})

    assert (info.verb, info.name, info.field_selector) == ("list", "p", "metadata.name=p")


def test_a_watch_prefix_without_a_resource_is_malformed() -> None:
    with pytest.raises(MalformedPath):
        resolve("GET", "/api/v1/watch", {})
