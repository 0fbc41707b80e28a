"""What kinds complain of when their objects are made and changed, each rule by an object that breaks it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from haven.api import scheme
from haven.api.strategies import create_errors, strategy_for, update_errors
from haven.api.strategy import Strategy
from haven.api.webhookclients import validate_ca_bundle, validate_webhook_url
from haven.apimachinery import serialization
from haven.apimachinery.fielderrors import Path

Tree = dict[str, Any]


def _read(api_version: str, plural: str, tree: Tree) -> tuple[scheme.Resource[Any], Strategy[Any], Any]:
    group, _, version = api_version.rpartition("/")
    resource = scheme.find(group, version, plural)
    assert resource is not None
    whole = {"apiVersion": api_version, "kind": resource.kind, "metadata": {"name": "a"}, **tree}
    strategy = strategy_for(resource)
    obj = serialization.convert(whole, resource.type)
    strategy.default(obj)
    return resource, strategy, obj


def create(api_version: str, plural: str, tree: Tree) -> list[str]:
    resource, strategy, new = _read(api_version, plural, tree)
    strategy.prepare_for_create(new)
    return [str(error) for error in create_errors(strategy, new, namespaced=resource.namespaced)]


def update(api_version: str, plural: str, old: Tree, new: Tree, part: str = "") -> list[str]:
    resource, strategy, before = _read(api_version, plural, {"metadata": {"name": "a", "resourceVersion": "1"}, **old})
    after = _read(api_version, plural, {"metadata": {"name": "a", "resourceVersion": "1"}, **new})[2]
    used = strategy.subresources[part] if part else strategy
    used.prepare_for_update(after, before)
    return [str(error) for error in update_errors(used, after, before, namespaced=resource.namespaced)]


STORAGE, NODE, NET = "storage.k8s.io/v1", "node.k8s.io/v1", "networking.k8s.io/v1"


def test_a_storage_class_that_loses_its_parameters_is_told_so() -> None:
    with_some, without = {"provisioner": "a.b/c", "parameters": {"a": "b"}}, {"provisioner": "a.b/c"}

    assert update(STORAGE, "storageclasses", with_some, without) == [
        "parameters: Invalid value: null: field is immutable"
    ]
    assert update(STORAGE, "storageclasses", without, {**without, "parameters": {}}) == []


def test_a_volume_inside_an_attachment_gets_its_defaults_and_is_checked_as_one() -> None:
    disk = {"diskName": "d", "diskURI": "x"}
    source = {
        "inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "azureDisk": disk, "volumeAttributesClassName": ""}
    }
    spec = {"attacher": "a.b", "nodeName": "n", "source": source}

    assert [line.partition(": ")[0] for line in create(STORAGE, "volumeattachments", {"spec": spec})] == [
        "spec.source.inlineVolumeSpec.csi",
        "spec.source.inlineVolumeSpec.azureDisk.diskURI",
    ]


def test_a_runtime_class_is_checked_as_a_whole_when_it_changes() -> None:
    found = update(NODE, "runtimeclasses", {"handler": "a"}, {"handler": ""})

    assert found == ["handler: Required value", 'handler: Invalid value: "": field is immutable']


def test_more_ranges_than_two_are_not_looked_at() -> None:
    found = create(NET, "servicecidrs", {"spec": {"cidrs": ["10.0.0.0/8", "x", "y"]}})

    assert found == ['spec.cidrs: Invalid value: {"CIDRs":["10.0.0.0/8","x","y"]}: may only hold up to 2 values']


def test_an_extra_of_a_certificate_request_may_be_null() -> None:
    _, _, request = _read("certificates.k8s.io/v1", "certificatesigningrequests", {"spec": {"extra": {"a": None}}})

    assert request.spec.extra == {"a": None}


@pytest.mark.parametrize(
    ("name", "complaints"),
    [
        ("apps.deployments", []),
        (
            "deployments",
            ['metadata.name: Invalid value: "deployments": name must be in the form of <group>.<resource>'],
        ),
        ("-.a", ['metadata.name: Invalid value: "-.a": the group segment a lowercase RFC 1123 subdomain']),
        ("apps.A", ['metadata.name: Invalid value: "apps.A": the resource segment a DNS-1035 label']),
    ],
)
def test_a_storage_version_is_named_after_its_resource(name: str, complaints: list[str]) -> None:
    found = create("internal.apiserver.k8s.io/v1alpha1", "storageversions", {"metadata": {"name": name}})

    assert [line[: len(want)] for line, want in zip(found, complaints, strict=True)] == complaints


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        (
            {"storageVersions": [{"encodingVersion": "v1"}]},
            "status.commonEncodingVersion: Invalid value: null: the common",
        ),
        ({"commonEncodingVersion": "v1"}, 'status.commonEncodingVersion: Invalid value: "v1": should be nil if'),
        (
            {"storageVersions": [{"encodingVersion": "a/b/c"}]},
            'encodingVersion: Invalid value: "a/b/c": an apiVersion is a',
        ),
        (
            {"storageVersions": [{"encodingVersion": "/v1"}]},
            'encodingVersion: Invalid value: "/v1": group part: must be',
        ),
        (
            {"storageVersions": [{"servedVersions": ["v1"]}]},
            "individual served version : v1 must be included in decodableV",
        ),
        (
            {"storageVersions": [{"apiServerID": "a"}, {"apiServerID": "a"}]},
            "storageVersions[1].apiServerID: Duplicate value",
        ),
        ({"conditions": [{"type": "A", "status": "True"}]}, "status[0].reason: Required value"),
        ({"conditions": [{"type": "A"}, {"type": "A"}]}, "is not unique, it also appears in conditions[0]"),
    ],
)
def test_the_status_of_a_storage_version_fits_together(status: Tree, complaint: str) -> None:
    found = update("internal.apiserver.k8s.io/v1alpha1", "storageversions", {}, {"status": status}, "status")

    assert any(complaint in line for line in found), found


def test_expressions_without_variables_know_none() -> None:
    rules = [{"apiGroups": ["a"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["b"]}]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "variables.a"}]}

    found = create("admissionregistration.k8s.io/v1", "validatingadmissionpolicies", {"spec": spec})

    assert len(found) == 1
    assert "undeclared reference to 'variables'" in found[0]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("https://host/path", ""),
        ("https://[::1]:80/", ""),
        ("https://ü.de/%41", ""),
        ("http://host", "Invalid value: \"http\": 'https' is the only allowed URL scheme"),
        ("https:host", 'Invalid value: "": host must be specified'),
        ("https://u@host", 'Invalid value: "u": user information is not permitted'),
        (":x", 'parse ":x": missing protocol scheme'),
        ("a:b/:c", "'https' is the only allowed URL scheme"),
        ("1a:b", 'parse "1a:b": first path segment in URL cannot contain colon'),
        ("https://h\n", 'parse "https://h\\n": net/url: invalid control character in URL'),
        ("https://[::1", "missing ']' in host"),
        ("https://h:port/", 'invalid port ":port" after host'),
        ("https://a b/", 'invalid character " " in host name'),
        ("https://h/%zz", 'invalid URL escape "%zz"'),
        ("https://%41/", 'invalid URL escape "%41"'),
        ("https://u p@h/", "net/url: invalid userinfo"),
        ("https://h/#%zz", 'parse "https://h/#%zz": invalid URL escape "%zz"'),
    ],
)
def test_the_url_of_a_webhook_is_read_as_go_reads_it(url: str, complaint: str) -> None:
    found = [str(error) for error in validate_webhook_url(url, Path("url"))]

    assert (complaint in found[0]) if complaint else not found, found


def test_authorities_of_a_webhook_have_to_be_readable() -> None:
    nothing = validate_ca_bundle(b"x", Path("ca"))
    broken = validate_ca_bundle(b"-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n", Path("ca"))

    shown = base64.b64encode(b"x").decode()
    words = "unable to load root certificates: unable to parse bytes as PEM block"
    assert [str(error) for error in nothing] == [f'ca: Invalid value: "{shown}": {words}']
    assert "unable to load root certificates: failed to parse certificate" in str(broken[0])
