"""Clients of deprecated APIs are warned in upstream's words, and their use is remembered."""

from __future__ import annotations

from typing import Any

import pytest

from haven.api import scheme
from haven.api.lifecycle import DEPRECATED
from haven.apiserver.deprecations import DeprecatedUse
from haven.apiserver.metrics import make_registry
from haven.apiserver.request import Request, RequestInfo
from haven.metrics.exposition import expose


def a_request(group: str, version: str, resource: str, *, local: bool = False) -> Request:
    info = RequestInfo(verb="list", path="/x", is_resource=True, group=group, version=version, resource=resource)
    return Request(method="GET", path="/x", query={}, headers={}, info=info, local=local)


def of(group: str, version: str, plural: str) -> Any:
    return scheme.table()[scheme.GroupVersionResource(group, version, plural)]


@pytest.mark.parametrize(
    ("group", "version", "plural", "warning"),
    [
        ("", "v1", "componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
        (
            "", "v1", "endpoints",
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ),
        (
            "resource.k8s.io", "v1beta2", "resourceclaims",
            "resource.k8s.io/v1beta2 ResourceClaim is deprecated in v1.36+, unavailable in v1.39+",
        ),
        (
            "storage.k8s.io", "v1beta1", "volumeattributesclasses",
            "storage.k8s.io/v1beta1 VolumeAttributesClass is deprecated in v1.34+, unavailable in v1.37+; "
            "use storage.k8s.io/v1 VolumeAttributesClass",
        ),
    ],
)  # fmt: skip
def test_a_client_is_told_since_when_until_when_and_what_to_use(
    group: str, version: str, plural: str, warning: str
) -> None:
    request = a_request(group, version, plural)

    DeprecatedUse().note_built_in(request, of(group, version, plural))

    assert request.warnings == [warning]


def test_who_takes_nothing_that_there_is_has_not_reached_the_kind() -> None:
    request = a_request("", "v1", "endpoints")
    request.headers["accept"] = "text/plain"

    DeprecatedUse().note_built_in(request, of("", "v1", "endpoints"))

    assert (request.warnings, request.audit_annotations) == ([], {})


def test_use_is_in_the_audit_log_and_in_the_metrics() -> None:
    use = DeprecatedUse()
    registry = make_registry()
    use.show(registry)
    request = a_request("resource.k8s.io", "v1beta1", "deviceclasses")

    use.note_built_in(request, of("resource.k8s.io", "v1beta1", "deviceclasses"))

    assert request.audit_annotations == {"k8s.io/deprecated": "true", "k8s.io/removed-release": "1.38"}
    labels = 'group="resource.k8s.io",removed_release="1.38",resource="deviceclasses",subresource="",version="v1beta1"'
    assert f"apiserver_requested_deprecated_apis{{{labels}}} 1\n" in expose(registry.families(), "")[1].decode()


def test_what_stays_and_what_the_cluster_asks_itself_is_no_use_of_note() -> None:
    use = DeprecatedUse()
    registry = make_registry()
    use.show(registry)
    outside, inside = a_request("", "v1", "pods"), a_request("", "v1", "endpoints", local=True)

    use.note_built_in(outside, of("", "v1", "pods"))
    use.note_built_in(inside, of("", "v1", "endpoints"))

    assert outside.warnings == inside.warnings == []
    assert b"apiserver_requested_deprecated_apis{" not in expose(registry.families(), "")[1]


def test_every_deprecated_kind_is_one_that_can_be_served() -> None:
    served = {(resource.api_version, resource.kind) for resource in scheme.table().values()}

    assert {(version, kind) for version, kinds in DEPRECATED.items() for kind in kinds} <= served
