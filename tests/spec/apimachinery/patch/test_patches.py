from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.apimachinery import apierrors
from haven.apimachinery.goformat import show
from haven.apimachinery.patch import PatchType, json_patch, merge_patch, patched, strategic
from haven.apimachinery.patch.errors import PatchError
from haven.apimachinery.schema import Schema, schema_for


def of(kind: str) -> Schema:
    schema = schema_for("", "v1", kind)
    assert schema is not None
    return schema


@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 2]}, [{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ({"a": [1, 2]}, [{"op": "add", "path": "/a/-1", "value": 3}], {"a": [1, 2, 3]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1]}),
        ({"a/b": {"~": 1}}, [{"op": "replace", "path": "/a~1b/~0", "value": 2}], {"a/b": {"~": 2}}),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
        ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1], "b": [1]}),
        ({"a": 1}, [{"op": "test", "path": "/nothing", "value": None}], {"a": 1}),
        ({"a": 1}, [{"op": "replace", "path": "/b", "value": 1}], {"a": 1, "b": 1}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"z": 1}}], {"z": 1}),
    ],
)
def test_a_json_patch_operation_does_what_the_library_does(document: Any, operations: Any, result: Any) -> None:
    assert json_patch.apply(document, operations) == result


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ([{"op": "remove", "path": "/none"}], "error in remove for path: '/none': Unable to remove nonexistent key: "
         "none: missing value"),
        ([{"op": "test", "path": "/a", "value": 1.0}], "testing value /a failed: test failed"),
        ([{"op": "test", "path": "/a", "value": True}], "testing value /a failed: test failed"),
        ([{"op": "add", "path": "/x/y", "value": 1}], 'add operation does not apply: doc is missing path: "/x/y": '
         "missing value"),
        ([{"op": "add", "path": "/l/5", "value": 1}], "error in add for path: '/l/5': Unable to access invalid index: "
         "5: invalid index referenced"),
        ([{"op": "jump", "path": "/a"}], "Unexpected kind: jump"),
        ([{"op": "add", "value": 1}], "add operation failed to decode path: missing value"),
    ],
)  # fmt: skip
def test_a_json_patch_that_does_not_apply_says_why(operations: Any, message: str) -> None:
    with pytest.raises(PatchError) as raised:
        json_patch.apply({"a": 1, "l": [1]}, operations)
    assert str(raised.value) == message


trees = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
documents = st.dictionaries(st.text("ab/~", min_size=1, max_size=2), trees, max_size=3)


@given(document=documents, name=st.text("ab/~", min_size=1, max_size=3), value=trees)
def test_adding_then_removing_a_member_leaves_the_rest(document: Any, name: str, value: Any) -> None:
    path = "/" + name.replace("~", "~0").replace("/", "~1")
    added = json_patch.apply(copy.deepcopy(document), [{"op": "add", "path": path, "value": value}])
    assert added == {**document, name: value}
    removed = json_patch.apply(added, [{"op": "remove", "path": path}])
    assert removed == {key: item for key, item in document.items() if key != name}


@given(document=documents, value=trees)
def test_moving_there_and_back_changes_nothing(document: Any, value: Any) -> None:
    document = {**document, "a": value}
    document.pop("zz", None)
    there = [{"op": "move", "from": "/a", "path": "/zz"}, {"op": "move", "from": "/zz", "path": "/a"}]
    assert json_patch.apply(copy.deepcopy(document), there) == document


@given(document=documents, patch=documents)
def test_merging_a_patch_twice_is_merging_it_once(document: Any, patch: Any) -> None:
    once = merge_patch.apply(document, patch)
    assert merge_patch.apply(once, patch) == once


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": [1]}, {"a": [None, {"x": None}]}, {"a": [None, {}]}),
        ({"a": 1}, {"b": {"c": None}}, {"a": 1, "b": {}}),
        ({"a": {"b": 1}}, {"a": "x"}, {"a": "x"}),
    ],
)
def test_a_merge_patch_deletes_with_null(original: Any, patch: Any, result: Any) -> None:
    assert merge_patch.apply(original, patch) == result


def a_pod() -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "finalizers": ["a/1", "a/2"], "labels": {"x": "1"}},
        "spec": {
            "containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "nodeSelector": {"k": "v"},
        },
    }


def merged(patch: dict[str, Any]) -> dict[str, Any]:
    return strategic.apply(a_pod(), patch, of("Pod"))


def test_containers_merge_by_name_and_new_ones_go_in_front_of_those_they_follow() -> None:
    result = merged({"spec": {"containers": [{"name": "b", "image": "b:2"}, {"name": "c", "image": "c:1"}]}})
    assert result["spec"]["containers"] == [
        {"name": "a", "image": "a:1"}, {"name": "b", "image": "b:2"}, {"name": "c", "image": "c:1"},
    ]  # fmt: skip


def test_directives_delete_replace_retain_and_order() -> None:
    gone = merged({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}})
    assert [item["name"] for item in gone["spec"]["containers"]] == ["b"]
    replaced = merged({"spec": {"containers": [{"name": "z", "image": "z"}, {"$patch": "replace"}]}})
    assert replaced["spec"]["containers"] == [{"name": "z", "image": "z"}]
    cleared = merged({"spec": {"nodeSelector": {"$patch": "replace", "n": "w"}}})
    assert cleared["spec"]["nodeSelector"] == {"n": "w"}
    retained = merged(
        {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}
    )
    assert retained["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/"}}]
    ordered = merged({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}})
    assert [item["name"] for item in ordered["spec"]["containers"]] == ["b", "a"]


def test_a_new_item_takes_the_place_that_a_deletion_in_the_same_patch_frees() -> None:
    patch = {
        "$setElementOrder/containers": [{"name": "z"}],
        "containers": [{"name": "z", "image": "z"}, {"name": "a", "$patch": "delete"}],
    }
    assert [item["name"] for item in merged({"spec": patch})["spec"]["containers"]] == ["b", "z"]


def test_primitive_lists_merge_and_lose_what_the_parallel_list_names() -> None:
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/1"], "finalizers": ["a/3"]}}
    assert sorted(merged(patch)["metadata"]["finalizers"]) == ["a/2", "a/3"]


def test_lists_without_a_merge_strategy_are_replaced() -> None:
    pod = a_pod()
    pod["spec"]["containers"][0]["args"] = ["x", "y"]
    result = strategic.apply(pod, {"spec": {"containers": [{"name": "a", "args": ["z"]}]}}, of("Pod"))
    assert result["spec"]["containers"][0]["args"] == ["z"]


@pytest.mark.parametrize(
    ("patch", "code", "message"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, 500,
         "map: map[image:x] does not contain declared merge key: name"),
        ({"spec": {"containers": [{"name": "a", "$patch": "upend"}]}}, 500,
         "unknown patch type: upend in map: map[$patch:upend name:a]"),
        ({"metadata": {"$deleteFromPrimitiveList": ["x"]}}, 400, "invalid patch format of primitive list"),
        ({"spec": {"$retainKeys": 5}}, 400, "invalid patch format of retainKeys"),
        ({"spec": {"$setElementOrder/containers": 5}}, 500, "expected a []interface {}, but received a int64"),
        ({"spec": {"containers": {"a": 1}}}, 422, ' "" is invalid: patch: Invalid value: '
         '"map[spec:map[containers:map[a:1]]]": cannot restore slice from map'),
    ],
)  # fmt: skip
def test_a_strategic_patch_that_makes_no_sense_is_refused_as_upstream_refuses_it(
    patch: Any, code: int, message: str
) -> None:
    live = {"apiVersion": "v1", "kind": "Pod", **a_pod()}
    with pytest.raises(apierrors.ApiError) as raised:
        patched(PatchType.STRATEGIC, live, orjson.dumps(patch), of("Pod"))
    assert (raised.value.code, raised.value.message) == (code, message)


def test_unknown_and_repeated_fields_are_warnings_or_refused() -> None:
    live = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    body = b'{"data":{"a":"1","a":"2"},"bogus":1}'
    tree, warnings = patched(PatchType.MERGE, live, body, of("ConfigMap"))
    assert tree == {**live, "data": {"a": "2"}}
    assert warnings == ['duplicate field "data.a"', 'unknown field "bogus"']
    assert patched(PatchType.MERGE, live, body, of("ConfigMap"), "Ignore")[1] == []
    with pytest.raises(apierrors.Invalid):
        patched(PatchType.MERGE, live, body, of("ConfigMap"), "Strict")
    operations = b'[{"op":"add","path":"/data","value":{},"bogus":1}]'
    assert patched(PatchType.JSON, live, operations, of("ConfigMap"))[1] == ['json patch unknown field "[0].bogus"']


def test_a_patch_leaves_the_live_object_alone() -> None:
    live = {"apiVersion": "v1", "kind": "Pod", **a_pod()}
    before = copy.deepcopy(live)
    for kind, body in (
        (PatchType.JSON, b'[{"op":"remove","path":"/spec/volumes/0"}]'),
        (PatchType.MERGE, b'{"spec":{"containers":[{"name":"q"}]}}'),
        (PatchType.STRATEGIC, b'{"spec":{"containers":[{"name":"a","image":"q"}]}}'),
    ):
        patched(kind, live, body, of("Pod"))
        assert live == before


@pytest.mark.parametrize(
    ("value", "text"),
    [({"b": [1, "x"], "a": None}, "map[a:<nil> b:[1 x]]"), (1.5, "1.5"), (1e21, "1e+21"), (1.0, "1"), (1e-7, "1e-07"),
     (True, "true"), (1e20, "1e+20"), (100000.0, "100000"), (1234567.0, "1.234567e+06"), (-1e6, "-1e+06"),
     (123456.5, "123456.5"), (1.234e-05, "1.234e-05"), (0.0001, "0.0001"), (0.0, "0")],
)  # fmt: skip
def test_values_are_shown_as_go_shows_them(value: Any, text: str) -> None:
    assert show(value) == text


def config_map() -> dict[str, Any]:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"a": "b"}}


@pytest.mark.parametrize("version", [None, ""])
@pytest.mark.parametrize("kind", [{}, {"kind": None}, {"kind": ""}])
def test_an_object_without_a_version_has_fields_that_nobody_knows(version: str | None, kind: dict[str, Any]) -> None:
    body = orjson.dumps({"apiVersion": version, "name": "top", **kind})

    tree, warnings = patched(PatchType.MERGE, config_map(), body, of("ConfigMap"))

    assert tree == {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "top"}}
    assert sorted(warnings) == ['unknown field "data"', 'unknown field "metadata"']


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("x", 'no kind "x" is registered for the internal version of group "" in scheme'),
        ("Secret", "converting (core.Secret) to (core.ConfigMap): unknown conversion"),
    ],
)
def test_an_object_without_a_version_and_of_another_kind_is_refused(kind: str, message: str) -> None:
    with pytest.raises(apierrors.ApiError) as refusal:
        patched(PatchType.MERGE, config_map(), orjson.dumps({"apiVersion": None, "kind": kind}), of("ConfigMap"))

    assert message in str(refusal.value)


def test_integers_beyond_64_bits_are_floats() -> None:
    with pytest.raises(apierrors.ApiError) as refusal:
        patched(PatchType.STRATEGIC, config_map(), b'{"data": {"a": 9223372036854775808}}', of("ConfigMap"))

    assert "map[data:map[a:9.223372036854776e+18]]" in str(refusal.value)


@pytest.mark.parametrize(
    ("directive", "shown"),
    [
        (None, "%!s(<nil>)"),
        (True, "%!s(bool=true)"),
        (
            {"a": 1, "b": None, "c": "x", "d": [1.5, None]},
            "map[a:%!s(int64=1) b:<nil> c:x d:[%!s(float64=1.5) <nil>]]",
        ),
    ],
)
def test_a_directive_that_is_no_text_is_shown_as_go_prints_it(directive: Any, shown: str) -> None:
    with pytest.raises(apierrors.ApiError, match="unknown patch type") as refusal:
        patched(PatchType.STRATEGIC, config_map(), orjson.dumps({"$patch": directive}), of("ConfigMap"))

    assert f"unknown patch type: {shown} in map: " in str(refusal.value)
