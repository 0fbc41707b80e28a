from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haven.apimachinery import apierrors
from haven.apimachinery.apply import apply, keep_timestamps, reset_for, update
from haven.apimachinery.apply.created import created_fields
from haven.apimachinery.apply.fieldset import members, union
from haven.apimachinery.apply.managers import Manager, Owned, cap
from haven.apimachinery.apply.scale import to_parent, to_scale
from haven.apimachinery.apply.typed import TypeMismatch, compare, field_set, merge
from haven.apimachinery.schema import Schema, schema_for
from haven.apimachinery.schema.model import UNTYPED

NOW, LATER = "2024-01-01T00:00:00Z", "2024-01-01T00:00:05Z"
Tree = dict[str, Any]


def of(kind: str, group: str = "") -> Schema:
    schema = schema_for(group, "v1", kind)
    assert schema is not None
    return schema


def config(**data: str) -> Tree:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, **({"data": data} if data else {})}


def applied(live: Tree | None, tree: Tree, manager: str = "one", *, force: bool = False, now: str = NOW) -> Tree:
    return apply(
        live, tree, of(tree["kind"]), manager, api_version="v1", kind=tree["kind"], force=force, now=now
    ).tree  # fmt: skip


def stored(live: Tree | None, tree: Tree, manager: str = "creator", *, now: str = NOW, **more: Any) -> Tree:
    """Write a tree as the server would: the object gets a uid and its managedFields."""
    entries = update(live, tree, of(tree["kind"]), manager, now=now, **more)
    metadata = {name: value for name, value in tree["metadata"].items() if name != "managedFields"}
    return {**tree, "metadata": {**metadata, "uid": "u", **({"managedFields": entries} if entries else {})}}


def owned(tree: Tree) -> dict[str, list[str]]:
    return {
        entry["manager"]: sorted("".join(path).replace("f:", "/") for path in members(entry["fieldsV1"]))
        for entry in tree["metadata"].get("managedFields", [])
    }


def test_the_creator_owns_what_is_not_there_in_an_empty_object() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "creationTimestamp": NOW},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {}}]},
        "status": {"phase": "Pending"},
    }
    entries = update(None, pod, of("Pod"), "me", now=NOW, reset=reset_for("", "pods"))
    assert entries == [{
        "manager": "me", "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:containers": {'k:{"name":"c"}': {
                ".": {}, "f:image": {}, "f:name": {},
                "f:ports": {".": {}, 'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                "f:resources": {},
            }}},
        },
    }]  # fmt: skip


def test_the_quick_way_of_a_create_and_the_comparison_agree() -> None:
    deployment: Tree = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "finalizers": ["a/b", "a/a"]},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "strategy": {"rollingUpdate": {"maxSurge": 1}},
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}},
        "status": {},
    }  # fmt: skip
    schema = of("Deployment", "apps")
    zero = {"metadata": {}, **schema.zero()}
    difference = compare(zero, deployment, schema)
    assert created_fields(deployment, schema) == union(difference.modified or {}, difference.added or {})


def test_a_list_item_without_keys_costs_the_object_its_managed_fields() -> None:
    with pytest.raises(TypeMismatch):
        created_fields({"metadata": {}, "secrets": [{}]}, of("ServiceAccount"))
    tree = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {}, "secrets": [{}]}
    assert update(None, tree, of("ServiceAccount"), "me", now=NOW) == []


def test_a_key_that_is_left_out_counts_as_its_zero_value_where_the_type_always_has_it() -> None:
    schema = of("ServiceAccount")
    tree = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"ownerReferences": [{}]}}
    assert 'k:{"uid":""}' in created_fields(tree, schema)["f:metadata"]["f:ownerReferences"]
    tree = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"imagePullSecrets": [{}]}}
    assert 'k:{"name":""}' in created_fields(tree, of("Pod"))["f:spec"]["f:imagePullSecrets"]


def test_versions_that_cannot_be_read_or_hold_an_item_twice_cost_all_managed_fields() -> None:
    schema = of("ConfigMap")
    live = stored(None, config(k="v"), "one")
    entry = {**live["metadata"]["managedFields"][0], "apiVersion": "a/b/c"}
    new = {**live, "data": {"k": "w"}, "metadata": {**live["metadata"], "managedFields": [entry]}}
    assert update(live, new, schema, "two", now=NOW, convert=lambda tree, _version: (tree, schema)) == []
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"ports": [{"port": 1}, {"port": 1}]}}
    other = {**entry, "apiVersion": "v1beta1", "fieldsV1": {"f:spec": {"f:ports": {}}}}
    new = {**service, "metadata": {"managedFields": [other]}}
    assert update(service, new, of("Service"), "two", now=NOW, convert=lambda tree, _: (tree, of("Service"))) == []


def test_an_update_takes_over_what_it_changes_and_drops_what_it_removes() -> None:
    live = stored(None, config(k="v", l="w"), "one")
    new = stored(live, {**live, "data": {"k": "x", "m": "y"}}, "two", now=LATER)
    assert owned(new) == {"one": ["/data"], "two": ["/data/k", "/data/m"]}
    assert [entry["time"] for entry in new["metadata"]["managedFields"]] == [NOW, LATER]


def test_an_update_that_changes_nothing_changes_no_owner_and_no_time() -> None:
    live = stored(None, config(k="v"), "one")
    new = stored(live, copy.deepcopy(live), "two", now=LATER)
    assert new["metadata"]["managedFields"] == live["metadata"]["managedFields"]


@pytest.mark.parametrize("entries", [[], [{}]])
def test_managed_fields_can_be_given_up(entries: Any) -> None:
    live = stored(None, config(k="v"))
    new = {**live, "metadata": {**live["metadata"], "managedFields": entries}}
    assert update(live, new, of("ConfigMap"), "x", now=LATER) == []
    assert update(stored(live, new), config(k="z"), of("ConfigMap"), "x", now=LATER) == []


def test_made_up_managed_fields_are_ignored() -> None:
    live = stored(None, config(k="v"))
    bogus = [{"manager": "x", "operation": "Bogus", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}}]
    new = {**live, "metadata": {**live["metadata"], "managedFields": bogus}}
    assert update(live, new, of("ConfigMap"), "x", now=LATER) == live["metadata"]["managedFields"]


def test_a_status_write_cannot_set_managed_fields_nor_own_the_spec() -> None:
    live = stored(
        None, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": "ClusterIP"}}
    )
    new = {**live, "metadata": {**live["metadata"], "managedFields": []}, "spec": {"type": "NodePort"},
           "status": {"conditions": [{"type": "Ready", "status": "True"}]}}  # fmt: skip
    entries = update(
        live, new, of("Service"), "x", now=NOW, subresource="status", reset=reset_for("", "services", "status")
    )
    assert [(entry["manager"], entry.get("subresource")) for entry in entries] == [("creator", None), ("x", "status")]
    assert "f:spec" not in entries[1]["fieldsV1"]


def test_only_ten_updaters_are_kept_apart() -> None:
    managed = {
        Manager(f"m{i:02}", "Update", "v1", ""): Owned({f"f:{i}": {}}, "v1", f"2024-01-01T00:00:{i:02}Z")
        for i in range(12)
    }
    capped = cap(managed)
    assert len(capped) == 10
    ancient = capped[Manager("ancient-changes", "Update", "v1", "")]
    assert sorted(ancient.fields) == ["f:0", "f:1", "f:2"]
    assert ancient.time == "2024-01-01T00:00:02Z"


def test_applying_removes_what_is_applied_no_more_unless_others_own_it() -> None:
    live = applied(None, config(k="v", l="w"), "one")
    both = applied(live, config(k="v"), "two")
    after = applied(both, config(m="x"), "one", now=LATER)
    assert after["data"] == {"k": "v", "m": "x"}
    assert owned(after) == {"one": ["/data/m"], "two": ["/data/k"]}


def test_a_conflict_names_field_and_manager_and_force_takes_over() -> None:
    live = {**applied(None, config(k="v"), "one")}
    live["metadata"]["uid"] = "u"
    with pytest.raises(apierrors.Conflict) as raised:
        applied(live, config(k="w"), "two")
    assert raised.value.message == 'Apply failed with 1 conflict: conflict with "one": .data.k'
    details = raised.value.details
    assert details is not None
    assert details.causes[0].field == ".data.k"
    forced = applied(live, config(k="w"), "two", force=True)
    assert (forced["data"], owned(forced)) == ({"k": "w"}, {"two": ["/data/k"]})


def test_several_conflicts_are_listed_by_manager() -> None:
    live = stored(None, config(k="v", l="w"), "creator")
    with pytest.raises(apierrors.Conflict) as raised:
        applied(live, config(k="1", l="2"), "two")
    assert raised.value.message == (
        'Apply failed with 2 conflicts: conflicts with "creator" using v1:\n- .data.k\n- .data.l'
    )


def test_fields_that_nobody_owned_belong_to_before_first_apply() -> None:
    live = {**config(k="v"), "metadata": {"name": "a", "uid": "u"}}
    with pytest.raises(apierrors.Conflict) as raised:
        applied(live, config(k="w"), "one")
    assert 'conflict with "before-first-apply" using v1: .data.k' in raised.value.message
    assert sorted(owned(applied(live, config(k="v"), "one"))) == ["before-first-apply", "one"]


def test_kubectl_inherits_what_it_applied_on_the_client_side() -> None:
    text = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}'
    tree = config(k="v")
    tree["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": text}
    live = stored(None, tree, "kubectl-client-side-apply")
    after = applied(live, config(k="w"), "kubectl")
    assert after["data"] == {"k": "w"}
    assert '"k":"w"' in after["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    with pytest.raises(apierrors.Conflict):
        applied(live, config(k="w"), "other")


@pytest.mark.parametrize(
    ("tree", "code", "message"),
    [
        ({**config(), "spek": 1}, 500,
         "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .spek: field not declared in schema"),
        ({**config(), "data": {"k": 5}}, 500, "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .data.k: "
         "expected string, got &value.valueUnstructured{Value:5}"),
        ({**config(), "metadata": {"name": "a", "managedFields": [{}]}}, 400, "metadata.managedFields must be nil"),
        ({**config(), "kind": ""}, 400, "invalid object type: /v1, Kind="),
    ],
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_refused(tree: Tree, code: int, message: str) -> None:
    with pytest.raises(apierrors.ApiError) as raised:
        apply(None, tree, of("ConfigMap"), "one", api_version="v1", kind="ConfigMap", force=False, now=NOW)
    assert (raised.value.code, raised.value.message) == (code, message)


def test_an_atomic_list_or_map_is_owned_and_replaced_as_one() -> None:
    service: Tree = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}}}
    live = applied(None, service)
    after = applied(live, {**service, "spec": {"selector": {"c": "d"}}})
    assert after["spec"]["selector"] == {"c": "d"}
    assert owned(after) == {"one": ["/spec/selector"]}


def test_times_alone_make_no_new_revision() -> None:
    live = stored(None, config(k="v"))
    entries = [{**entry, "time": LATER} for entry in live["metadata"]["managedFields"]]
    new = {**live, "metadata": {**live["metadata"], "managedFields": entries}}
    assert keep_timestamps(live, new)
    assert not keep_timestamps(live, {**new, "data": {"k": "x"}})


def test_the_owners_of_replicas_are_shown_on_the_scale_and_back() -> None:
    paths: dict[str, tuple[str, ...] | None] = {"apps/v1": ("spec", "replicas")}
    entry = {"manager": "one", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "time": NOW}
    parent = [{**entry, "fieldsV1": {"f:spec": {"f:paused": {}, "f:replicas": {}}}}]
    scale = to_scale(parent, paths)
    assert [(e["apiVersion"], e["fieldsV1"]) for e in scale] == [("autoscaling/v1", {"f:spec": {"f:replicas": {}}})]
    stolen = [{"manager": "hpa", "operation": "Update", "apiVersion": "autoscaling/v1", "fieldsType": "FieldsV1",
               "fieldsV1": {"f:spec": {"f:replicas": {}}}, "subresource": "scale"}]  # fmt: skip
    result = to_parent(parent, stolen, "apps/v1", paths)
    assert {e["manager"]: e["fieldsV1"] for e in result} == {
        "one": {"f:spec": {"f:paused": {}}}, "hpa": {"f:spec": {"f:replicas": {}}},
    }  # fmt: skip


# Empty lists and maps are left out: applying one neither empties a list nor owns it.
names = st.sampled_from(["a", "b", "c"])
some = st.dictionaries(names, names, min_size=1, max_size=2)
variables = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"value": names}),
    min_size=1, max_size=2, unique_by=lambda item: item["name"],
)  # fmt: skip
containers = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"image": names, "env": variables}),
    min_size=1, max_size=3, unique_by=lambda item: item["name"],
)  # fmt: skip
specs = st.fixed_dictionaries({"containers": containers}, optional={"nodeSelector": some, "hostname": names})
pods = st.fixed_dictionaries(
    {
        "apiVersion": st.just("v1"),
        "kind": st.just("Pod"),
        "metadata": st.fixed_dictionaries({"name": st.just("p")}, optional={"labels": some}),
    },
    optional={"spec": specs},
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(live=pods, config=pods)
def test_merging_twice_is_merging_once_and_keeps_all_that_is_applied(live: Tree, config: Tree) -> None:
    once = merge(live, config, of("Pod"))
    assert merge(once, config, of("Pod")) == once
    assert set(members(field_set(config, of("Pod")))) <= set(members(field_set(once, of("Pod"))))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(first=pods, second=pods)
def test_applying_twice_is_applying_once(first: Tree, second: Tree) -> None:
    live = applied(applied(None, first), second, force=True)
    again = applied(live, second, force=True, now=LATER)
    assert {**again, "metadata": {**again["metadata"], "managedFields": None}} == {
        **live, "metadata": {**live["metadata"], "managedFields": None}}  # fmt: skip
    assert owned(again) == owned(live)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(first=pods, second=pods)
def test_one_applier_alone_gets_what_it_applies(first: Tree, second: Tree) -> None:
    after = applied(applied(None, first), second)
    assert set(members(field_set(second, of("Pod")))) <= set(members(field_set(after, of("Pod"))))
    assert merge(after, second, of("Pod")) == after


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(old=pods, new=pods)
def test_what_one_direction_adds_the_other_removes(old: Tree, new: Tree) -> None:
    there, back = compare(old, new, of("Pod")), compare(new, old, of("Pod"))
    assert (there.added, there.removed, there.modified) == (back.removed, back.added, back.modified)
    if old == new:
        assert there == (None, None, None)


def test_anything_may_change_its_kind() -> None:
    difference = compare({"a": {"b": 1}}, {"a": 5}, UNTYPED)
    assert difference == ({"f:a": {"f:b": {}}}, {"f:a": {}}, None)
