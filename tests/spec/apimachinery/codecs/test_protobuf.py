"""Objects travel as protobuf and back without loss; what kubectl sends is understood."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haven.apimachinery import facts, times
from haven.apimachinery.codecs import protobuf
from haven.apimachinery.schema import Schema, schema_named

# Sent by kubectl 1.36.3: create deployment web --image=nginx --replicas=2 --port=80
KUBECTL_DEPLOYMENT = bytes.fromhex(
    "6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b8010a1f0a0377656212001a0022002a003200380042"
    "005a0a0a0361707012037765621286010802120c0a0a0a0361707012037765621a6c0a1c0a0012001a0022002a0032003800"
    "42005a0a0a036170701203776562124c122e0a056e67696e7812056e67696e782a00320a0a001000185022002a0042006a00"
    "7200800100880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a0028003800"
    "1a0c0800100018002000280038001a002200"
)
# Sent by kubectl 1.36.3: create quota q --hard=cpu=1,memory=1.5Gi,pods=2
KUBECTL_QUOTA = bytes.fromhex(
    "6b3873000a130a027631120d5265736f7572636551756f746112440a110a017112001a0022002a00320038004200122d0a0a"
    "0a0363707512030a01310a120a066d656d6f727912080a06313533364d690a0b0a04706f647312030a01321a001a002200"
)


def test_a_deployment_that_kubectl_sends_is_understood() -> None:
    assert protobuf.decode(KUBECTL_DEPLOYMENT) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {"name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}], "resources": {}}
                    ]
                },
            },
            "strategy": {},
        },
        "status": {},
    }


def test_quantities_are_read_in_their_canonical_form() -> None:
    assert protobuf.decode(KUBECTL_QUOTA)["spec"] == {"hard": {"cpu": "1", "memory": "1536Mi", "pods": "2"}}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "empty data"),
        (b"{}", "does not appear to be a protobuf message, expected prefix \\[107 56 115 0\\]"),
        (KUBECTL_DEPLOYMENT[:-30], "unexpected EOF"),
    ],
)
def test_what_is_no_protobuf_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(protobuf.InvalidProtobuf, match=complaint):
        protobuf.decode(data)


def test_an_event_of_a_watch_is_framed_by_its_length() -> None:
    inner = protobuf.encode({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})

    frame = protobuf.watch_frame("ADDED", inner)

    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert frame[4:].startswith(b"\x0a\x05ADDED\x12")
    assert frame.endswith(inner)


def test_a_list_is_joined_of_messages_that_are_encoded_once_each() -> None:
    items = [{"metadata": {"name": name}, "data": {"k": name}} for name in "ab"]
    raw = [protobuf.encode_message(item, "v1", "ConfigMap") for item in items]

    data = protobuf.encode_list("v1", "ConfigMapList", {"resourceVersion": "7"}, raw)

    assert protobuf.decode(data) == {
        "apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": items,
    }  # fmt: skip


def test_kinds_without_a_form_are_known() -> None:
    assert protobuf.has_form("v1", "Pod")
    assert protobuf.has_form("apiregistration.k8s.io/v1", "APIService")
    assert protobuf.has_form("meta.k8s.io/v1", "PartialObjectMetadataList")
    assert not protobuf.has_form("example.com/v1", "Pod")


# ---- every served type, with generated values

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
seconds = st.integers(0, 4_000_000_000)
DEPTH_MAX = 3


def values(schema: Schema, depth: int) -> st.SearchStrategy[Any]:
    match schema.kind:
        case "string":
            return texts
        case "bool":
            return st.just(True)
        case "bytes":
            return st.binary(min_size=1, max_size=4).map(lambda data: base64.b64encode(data).decode())
        case "time":
            return seconds.map(times.format_time)
        case "micro_time":
            return st.tuples(seconds, st.integers(0, 999_999)).map(
                lambda pair: f"{times.format_time(pair[0])[:-1]}.{pair[1]:06d}Z"
            )
        case "quantity":
            return st.sampled_from(["1", "100m", "1536Mi", "2e3"])
        case "int_or_string":
            return st.integers(-(2**31), 2**31 - 1) | texts
        case "float64":
            return st.sampled_from([1.5, 2, -0.25])
        case "raw":
            return st.sampled_from([{"a": [1, "b", None]}, {"f:spec": {}}, "text", 5])
        case "schema_or_bool":
            return st.booleans() | st.just({"type": "string"})
        case "schema_or_array":
            return st.just([{"type": "string"}]) | st.just({"type": "string"})
        case "schema_or_strings":
            return st.just(["a", "b"]) | st.just({"type": "string"})
        case "map":
            assert schema.element is not None
            return st.dictionaries(texts, values(schema.element, depth + 1), min_size=1, max_size=2)
        case "list":
            assert schema.element is not None
            return st.lists(values(schema.element, depth + 1), min_size=1, max_size=2)
        case "struct":
            if depth >= DEPTH_MAX:
                return st.just({})
            fields = {
                name: st.deferred(lambda field=field: values(field.schema, depth + 1))
                for name, field in schema.fields.items()
                # The names of an object's own kind travel in the frame only, those inside of objects not at all.
                if name not in ("apiVersion", "kind") or name in facts.protobuf()[schema.definition][0]
            }
            return st.fixed_dictionaries({}, optional=fields).map(lambda tree: _pruned(tree, schema))
    return st.integers(1, 2**31 - 1) | st.integers(-(2**31), -1)


def _pruned(tree: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Leave out what Go would leave out: structs of no content that are no pointers and not always written."""
    return {
        name: value
        for name, value in tree.items()
        if value != {} or schema.fields[name].pointer or schema.fields[name].always
    }


KINDS = sorted(
    (f"{group}/{version}".lstrip("/"), kind, definition)
    for (group, version, kind), definition in (
        (name.split("/"), definition) for name, definition in facts.kinds().items()
    )
    if protobuf.has_form(f"{group}/{version}".lstrip("/"), kind)
    and not kind.endswith("List")
    and kind not in ("DeleteOptions", "WatchEvent")
)


@given(st.sampled_from(KINDS), st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_object_of_every_kind_survives_the_way_through_protobuf(
    kind: tuple[str, str, str], data: st.DataObject
) -> None:
    api_version, name, definition = kind
    tree = data.draw(values(schema_named(definition), 0))

    again = protobuf.decode(protobuf.encode(tree, api_version, name))

    assert again == {**tree, "apiVersion": api_version, "kind": name}


def test_a_map_of_lists_keeps_its_lists() -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": "u", "extra": {"scopes": ["a", "b"], "none": []}},
    }

    assert protobuf.decode(protobuf.encode(review))["spec"] == review["spec"]


@pytest.mark.parametrize("type_meta", [b"\x08\x12", b"\x0a\x00\x08\x12", b"\x08\x12\x0a\x00"])
def test_a_frame_whose_fields_have_another_form_is_refused(type_meta: bytes) -> None:
    with pytest.raises(protobuf.InvalidProtobuf, match="wrong wireType"):
        protobuf.unframe(b"k8s\x00" + type_meta)
