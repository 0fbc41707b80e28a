"""Bodies are read from every media type, and refused in upstream's words."""

from __future__ import annotations

import pytest

from haven.apimachinery.apierrors import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from haven.apimachinery.codecs import protobuf
from haven.apimachinery.codecs.body import BODY_BYTES_MAX, check_size, read_body

UNRECOGNIZED = "the object provided is unrecognized (must be of type ConfigMap): "
JSON_ERROR = UNRECOGNIZED + "couldn't get version/kind; json parse error: "
HEAD = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
REFUSED = 'ConfigMap in version "v1" cannot be handled as a ConfigMap: '


def refusal(data: bytes, content_type: str = "", **options: str) -> str:
    with pytest.raises(BadRequest) as caught:
        read_body(data, content_type, "v1", "ConfigMap", **options)
    return caught.value.message


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", JSON_ERROR + "unexpected end of JSON input (<empty>)"),
        (b"{", JSON_ERROR + "unexpected end of JSON input ({)"),
        (b"[]", JSON_ERROR + f"json: cannot unmarshal array into Go value of type {HEAD} (5b5d)"),
        (b'"text"', JSON_ERROR + f"json: cannot unmarshal string into Go value of type {HEAD} (227465787422)"),
        (
            b'{"metadata":{"name":"a"}} trailing',
            JSON_ERROR + 'invalid character \'t\' after top-level value ({"metadata":{"name":"a"}} trai ...)',
        ),
        (
            b"apiVersion: v1",
            JSON_ERROR + "invalid character 'a' looking for beginning of value (61706956657273696f6e3a207631)",
        ),
        (
            b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}',
            'Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): '
            "unknown conversion",
        ),
        (
            b'{"kind":"ConfigMap","apiVersion":"v2"}',
            'ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version '
            '"v2" in scheme "pkg/api/legacyscheme/scheme.go:30"',
        ),
        (
            b'{"kind":"ConfigMap","apiVersion":"apps/v1"}',
            REFUSED + 'no kind "ConfigMap" is registered for version "apps/v1" in scheme '
            '"pkg/api/legacyscheme/scheme.go:30"',
        ),
        (
            b'{"kind":"ConfigMapList","apiVersion":"v1"}',
            'ConfigMapList in version "v1" cannot be handled as a ConfigMap: converting (v1.ConfigMapList) to '
            "(core.ConfigMap): unknown conversion",
        ),
        (
            b'{"data":{"k":5}}',
            REFUSED + "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
    ],
)
def test_a_json_body_that_makes_no_sense_is_refused(data: bytes, complaint: str) -> None:
    assert refusal(data) == complaint


def test_a_yaml_body_that_is_no_yaml_is_refused() -> None:
    assert refusal(b"metadata:\n\tname: b\n", "application/yaml") == (
        UNRECOGNIZED + "yaml: line 2: found character that cannot start any token "
        "(6d657461646174613a0a096e616d653a20620a)"
    )


def test_what_a_body_leaves_out_of_its_type_is_the_endpoints() -> None:
    for data in (b'{"data":{"k":"v"}}', b'{"apiVersion":"v1","data":{"k":"v"}}'):
        assert read_body(data, "", "v1", "ConfigMap").tree == {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "data": {"k": "v"},
        }


def test_unknown_and_repeated_fields_are_warned_of_refused_or_ignored() -> None:
    data = b'{"metadata":{"name":"a","name":"b"},"spek":1,"data":{"k":"v","k":"w"}}'

    warned = read_body(data, "application/json", "v1", "ConfigMap")
    ignored = read_body(data, "application/json", "v1", "ConfigMap", field_validation="Ignore")

    assert warned.warnings == ['duplicate field "metadata.name"', 'unknown field "spek"', 'duplicate field "data.k"']
    assert warned.tree["data"] == {"k": "w"}
    assert not ignored.warnings
    assert refusal(data, field_validation="Strict") == REFUSED + "strict decoding error: " + ", ".join(warned.warnings)


def test_keys_that_yaml_repeats_are_named_with_their_line() -> None:
    data = b"metadata:\n  name: a\ndata:\n  k: a\n  k: b\n"

    assert read_body(data, "application/yaml", "v1", "ConfigMap").warnings == ['line 5: key "k" already set in map']
    assert refusal(data, "application/yaml", field_validation="Strict") == (
        REFUSED + 'strict decoding error: yaml: unmarshal errors:\n  line 5: key "k" already set in map'
    )


def test_a_protobuf_body_is_read_as_the_kind_it_names() -> None:
    tree = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}

    assert read_body(protobuf.encode(tree), "application/vnd.kubernetes.protobuf", "v1", "ConfigMap").tree == tree
    assert "does not appear to be a protobuf message" in refusal(b"{}", "application/vnd.kubernetes.protobuf")


def test_other_media_types_and_huge_bodies_are_refused() -> None:
    with pytest.raises(UnsupportedMediaType):
        read_body(b"{}", "text/plain", "v1", "ConfigMap")
    with pytest.raises(RequestEntityTooLarge, match="limit is 3145728"):
        check_size(BODY_BYTES_MAX + 1)


def test_text_that_is_no_utf8_becomes_replacement_characters() -> None:
    body = read_body(b'{"data":{"k":"a\xffb","s":"\\ud800"}}', "", "v1", "ConfigMap")

    assert body.tree["data"] == {"k": "a\ufffdb", "s": "\ufffd"}
