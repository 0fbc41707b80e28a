from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haven.api.core import v1 as core_v1
from haven.apimachinery import serialization
from haven.apimachinery.meta import Status
from haven.apimachinery.schema import check, normalize, schema_for, schema_named
from haven.apimachinery.schema.explain import explain
from haven.apimachinery.schema.gojson import syntax_error
from haven.apimachinery.schema.goscalars import BadScalar, decode_base64_error, parse_time
from haven.apimachinery.schema.model import Schema


def of(kind: str) -> Schema:
    schema = schema_for("", "v1", kind)
    assert schema is not None
    return schema


def said(kind: str, body: str) -> str | None:
    data = body.encode()
    findings = check(orjson.loads(data), of(kind), data)
    return findings.error or findings.strict_error


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("ConfigMap", '{"metadata":{"labels":"x"}}',
         "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string"),
        ("Pod", '{"spec":{"volumes":[{"name":"v","hostPath":[]}]}}',
         "json: cannot unmarshal array into Go struct field Volume.spec.volumes.VolumeSource.hostPath "
         "of type v1.HostPathVolumeSource"),
        ("Pod", "[]", "json: cannot unmarshal array into Go value of type v1.Pod"),
        ("Service", '{"spec":{"type":5}}',
         "json: cannot unmarshal number into Go struct field ServiceSpec.spec.type of type v1.ServiceType"),
        ("Pod", '{"metadata":{"creationTimestamp":5}}',
         "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_named_as_go_names_it(kind: str, body: str, message: str) -> None:
    assert said(kind, body) == message


def test_a_value_that_decodes_itself_wins_over_an_earlier_wrong_type() -> None:
    body = '{"metadata":{"name":5},"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}'
    assert (said("Pod", body) or "").startswith("quantities must match")


def test_the_first_wrong_type_counts_and_hides_unknown_fields() -> None:
    body = '{"bogus":1,"data":{"k":1},"immutable":"x"}'
    assert said("ConfigMap", body) == "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"


def test_unknown_and_repeated_fields_are_told_in_the_order_of_the_text_and_once_each() -> None:
    body = '{"b":1,"metadata":{"name":"a","name":"b","name":"c","x":1},"b":2}'
    assert said("ConfigMap", body) == (
        'strict decoding error: unknown field "b", duplicate field "metadata.name", unknown field "metadata.x"'
    )


def test_at_most_a_hundred_complaints_are_told() -> None:
    body = orjson.dumps({f"f{i}": 1 for i in range(150)})
    assert len(check(orjson.loads(body), of("ConfigMap"), body).strict) == 100


def test_a_good_body_needs_no_second_look() -> None:
    body = b'{"metadata":{"name":"a"},"data":{"k":"v: \\"quoted\\""}}'
    findings = check(orjson.loads(body), of("ConfigMap"), body)
    assert (findings.error, findings.strict, findings.dirty) == (None, [], False)


@pytest.mark.parametrize(
    ("given_", "result"),
    [
        ({"metadata": {"name": "a", "labels": None, "bogus": 1}}, {"metadata": {"name": "a"}}),
        ({"metadata": {"annotations": {"x": None}}}, {"metadata": {"annotations": {"x": ""}}}),
        ({"metadata": {"creationTimestamp": "2024-01-01T01:00:00.5+01:00"}},
         {"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}}),
        ({"metadata": {"creationTimestamp": "0001-01-01T00:00:00Z"}}, {"metadata": {}}),
        ({"spec": {"containers": [None, {"resources": {"limits": {"cpu": 1, "memory": "1024Ki"}}}]}},
         {"spec": {"containers": [{}, {"resources": {"limits": {"cpu": "1", "memory": "1Mi"}}}]}}),
    ],
)  # fmt: skip
def test_normalizing_writes_what_go_would_write(given_: Any, result: Any) -> None:
    assert normalize(given_, of("Pod")) == result
    assert check(normalize(given_, of("Pod")), of("Pod")).dirty is False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5)
    | st.sampled_from(["1Gi", "2024-01-01T00:00:00Z", "YQ=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["metadata", "spec", "containers", "name", "image", "env", "ports", "containerPort", "resources", "limits",
         "labels", "volumes", "emptyDir", "sizeLimit", "livenessProbe", "httpGet", "port", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60, deadline=None)
@given(tree=st.dictionaries(st.sampled_from(["metadata", "spec", "status", "kind"]), json_values))
def test_the_fast_and_the_slow_look_agree_and_what_passes_converts_to_the_typed_struct(tree: Any) -> None:
    findings = check(tree, of("Pod"))
    assert (findings.error, findings.strict) == explain(orjson.dumps(tree), of("Pod"))
    if findings.error is None:
        serialization.convert(normalize(tree, of("Pod")), core_v1.Pod)


def test_the_engine_knows_what_a_new_object_looks_like() -> None:
    assert of("Pod").zero() == {"metadata": {}, "spec": {"containers": None}, "status": {}}
    assert schema_named("io.k8s.api.apps.v1.DeploymentSpec").zero() == {
        "selector": None, "template": {"metadata": {}, "spec": {"containers": None}}, "strategy": {},
    }  # fmt: skip


def test_status_is_a_kind_of_the_core_group() -> None:
    assert schema_for("", "v1", "Status") is not None
    assert Status().kind == "Status"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("{broken", "invalid character 'b' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("{} x", "invalid character 'x' after top-level value"),
        ("nul", "unexpected end of JSON input"),
        ("nulx", "invalid character 'x' in literal null (expecting 'l')"),
        ("01", "invalid character '1' after top-level value"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ("-x", "invalid character 'x' in numeric literal"),
        ('"\\x"', "invalid character 'x' in string escape code"),
        ('"\n"', "invalid character '\\n' in string literal"),
        ("apiVersion: v1", "invalid character 'a' looking for beginning of value"),
        ('{"a": [1, {"b": null}]}', None),
    ],
)
def test_malformed_json_is_told_as_go_tells_it(text: str, message: str | None) -> None:
    assert syntax_error(text.encode()) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yesterday", 'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"'),
        ("2024-13-01T00:00:00Z", 'parsing time "2024-13-01T00:00:00Z": month out of range'),
        ("2024-02-30T00:00:00Z", 'parsing time "2024-02-30T00:00:00Z": day out of range'),
        ("2024-01-01", 'parsing time "2024-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"'),
        ("2024-01-01T00:00:00", 'parsing time "2024-01-01T00:00:00" as "2006-01-02T15:04:05Z07:00": '
         'cannot parse "" as "Z07:00"'),
    ],
)  # fmt: skip
def test_bad_times_are_told_as_go_tells_them(text: str, message: str) -> None:
    with pytest.raises(BadScalar) as raised:
        parse_time(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "at"),
    [("YQ==", None), ("%%%", 0), ("not base64!", 3), ("YQ=", 3), ("YQ", 0), ("YQ==x", 4), ("Y\nQ==", None)],
)
def test_bad_base64_is_told_as_go_tells_it(text: str, at: int | None) -> None:
    assert decode_base64_error(text) == (None if at is None else f"illegal base64 data at input byte {at}")


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ('{"data":{"k":"v","k":"w"},"data":{"z":"zz"}}', {"data": {"k": "w", "z": "zz"}}),
        (
            '{"metadata":{"name":"a"},"metadata":{"labels":{"x":"y"}}}',
            {"metadata": {"name": "a", "labels": {"x": "y"}}},
        ),
        ('{"data":{"k":"v"},"data":null}', {"data": None}),
        ('{"metadata":{"name":"a"},"metadata":null}', {"metadata": {"name": "a"}}),
    ],
)
def test_a_field_that_comes_twice_is_decoded_into_what_is_there(body: str, read: dict[str, Any]) -> None:
    data = body.encode()

    assert check(orjson.loads(data), of("ConfigMap"), data).tree == read
