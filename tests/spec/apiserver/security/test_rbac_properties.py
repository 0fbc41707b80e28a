"""A request reads and changes nothing that RBAC denies: random rules and requests, judged by a model of a few lines."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haven.api.rbac import v1 as rbac
from haven.apimachinery import meta
from haven.apiserver.authorization.interface import Attributes, Verdict
from haven.apiserver.authorization.rbac import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, RBAC, ROLE_BINDINGS, ROLES
from haven.apiserver.request import UserInfo

from .conftest import Client, Serve

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
RESOURCES = ("configmaps", "secrets", "pods", "pods/log", "pods/status", "serviceaccounts", "serviceaccounts/token")
NAMES = ("", "a", "b")
NAMESPACES = ("", "one", "two")
MARK = "c2VjcmV0LW1hcms="  # What no answer may show to whom it does not belong.


# The model: a rule is (verbs, groups, resources, names); a grant says where the rules of a role hold ("" everywhere).

Rule = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def rule_covers(rule: Rule, verb: str, group: str, resource: str, name: str) -> bool:
    verbs, groups, resources, names = rule
    plural, _, subresource = resource.partition("/")
    wanted = {"*", resource} | ({f"*/{subresource}"} if subresource else set())
    return (
        ("*" in verbs or verb in verbs)
        and ("*" in groups or group in groups)
        and bool(wanted & set(resources))
        and (not names or name in names)
        and bool(plural)
    )


def model_allows(
    grants: list[tuple[str, list[Rule]]], namespace: str, verb: str, group: str, resource: str, name: str
) -> bool:
    return any(
        rule_covers(rule, verb, group, resource, name)
        for where, rules in grants
        if where in ("", namespace) and (where == "" or namespace)
        for rule in rules
    )


rules = st.tuples(
    st.lists(st.sampled_from([*VERBS, "*"]), min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(["", "apps", "*"]), min_size=1, max_size=2).map(tuple),
    st.lists(st.sampled_from([*RESOURCES, "*", "*/log", "*/status"]), min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple),
)
grants_of = st.lists(st.tuples(st.sampled_from(NAMESPACES), st.lists(rules, max_size=3)), max_size=4)
SUBJECTS = [
    rbac.Subject(kind="User", name="jane", api_group="rbac.authorization.k8s.io"),
    rbac.Subject(kind="Group", name="devs", api_group="rbac.authorization.k8s.io"),
    rbac.Subject(kind="ServiceAccount", name="bot", namespace="one"),
]
USERS = [
    UserInfo("jane"),
    UserInfo("joe", groups=("devs",)),
    UserInfo("system:serviceaccount:one:bot", groups=("system:serviceaccounts",)),
]


def typed(rule: Rule) -> rbac.PolicyRule:
    verbs, groups, resources, names = (list(part) for part in rule)
    return rbac.PolicyRule(verbs=verbs, api_groups=groups, resources=resources, resource_names=names)


@settings(max_examples=300, deadline=None)
@given(
    grants=grants_of,
    who=st.integers(0, 2),
    by_cluster_role=st.booleans(),
    verb=st.sampled_from(VERBS),
    group=st.sampled_from(["", "apps", "batch"]),
    resource=st.sampled_from(RESOURCES),
    name=st.sampled_from(NAMES),
    namespace=st.sampled_from(NAMESPACES),
)
def test_the_decision_is_the_models(
    grants: list[tuple[str, list[Rule]]],
    who: int,
    by_cluster_role: bool,
    verb: str,
    group: str,
    resource: str,
    name: str,
    namespace: str,
) -> None:
    index = RBAC()
    for number, (where, own) in enumerate(grants):
        role_name = f"r{number}"
        cluster = by_cluster_role or not where
        role_type, kind, roles = (
            (rbac.ClusterRole, "ClusterRole", CLUSTER_ROLES) if cluster else (rbac.Role, "Role", ROLES)
        )
        role_place = "" if cluster else where
        role = role_type(metadata=meta.ObjectMeta(name=role_name, namespace=role_place), rules=[typed(r) for r in own])
        index.changed(roles, None, role)
        binding_type, bindings = (
            (rbac.RoleBinding, ROLE_BINDINGS) if where else (rbac.ClusterRoleBinding, CLUSTER_ROLE_BINDINGS)
        )
        reference = rbac.RoleRef(api_group="rbac.authorization.k8s.io", kind=kind, name=role_name)
        binding = binding_type(
            metadata=meta.ObjectMeta(name=role_name, namespace=where), role_ref=reference, subjects=[SUBJECTS[who]]
        )
        index.changed(bindings, None, binding)
    plural, _, subresource = resource.partition("/")

    for number, user in enumerate(USERS):
        asked = Attributes(
            user, verb, group=group, resource=plural, subresource=subresource, name=name, namespace=namespace
        )
        allowed = index.authorize(asked).verdict is Verdict.ALLOW
        expected = number == who and model_allows(grants, namespace, verb, group, resource, name)
        assert allowed == expected


# Against a whole server


def a_request(chance: random.Random) -> tuple[str, str, str, str, str, Any]:
    """Return (method, verb, namespace, resource, name, body) of a random request for core resources."""
    resource = chance.choice(["configmaps", "secrets", "pods", "serviceaccounts"])
    namespace = chance.choice(["one", "two", ""])
    name = chance.choice(["a", "b", "new"])
    labels = {"labels": {"n": str(chance.randrange(1000))}}
    verb = chance.choice(VERBS)
    if not namespace:
        return ("GET", chance.choice(["list", "watch"]), "", resource, "", None)
    match verb:
        case "create":
            return "POST", verb, namespace, resource, "", {"metadata": {"name": f"x{chance.randrange(10**6)}"}}
        case "update":
            return "PUT", verb, namespace, resource, name, {"metadata": {"name": name, **labels}}
        case "patch":
            return "PATCH", verb, namespace, resource, name, {"metadata": labels}
        case "delete":
            return "DELETE", verb, namespace, resource, name, None
        case "deletecollection":
            return "DELETE", verb, namespace, resource, "", None
        case "get":
            return "GET", verb, namespace, resource, name, None
    return "GET", verb, namespace, resource, "", None


def random_rules(chance: random.Random) -> list[Rule]:
    return [
        (
            tuple(chance.sample([*VERBS, "*"], chance.randint(1, 2))),
            ("",),
            tuple(chance.sample(["configmaps", "secrets", "pods", "serviceaccounts", "*"], chance.randint(1, 2))),
            tuple(chance.sample(["a", "b"], chance.randint(0, 1))),
        )
        for _ in range(chance.randint(0, 2))
    ]


async def a_cluster(serve: Serve, **security: Any) -> Client:
    """Return a server with two namespaces whose objects bear the mark."""
    client = await serve(**security)
    for namespace in ("one", "two"):
        assert (await client.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})).status == 201
        for name in ("a", "b"):
            for resource, data in (("configmaps", MARK), ("secrets", MARK)):
                body = {"metadata": {"name": name}, "data": {"k": data}}
                assert (await client.ask("POST", f"/api/v1/namespaces/{namespace}/{resource}", body)).status == 201
            account = {"metadata": {"name": name, "annotations": {"mark": MARK}}}
            assert (await client.ask("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", account)).status == 201
    return client


RBAC_PATH = "/apis/rbac.authorization.k8s.io/v1"


async def grant(client: Client, where: str, own: list[Rule], number: int) -> None:
    name = f"r{number}"
    wire = [
        dict(zip(("verbs", "apiGroups", "resources", "resourceNames"), map(list, rule), strict=True)) for rule in own
    ]
    scope = f"{RBAC_PATH}/namespaces/{where}/roles" if where else f"{RBAC_PATH}/clusterroles"
    assert (await client.ask("POST", scope, {"metadata": {"name": name}, "rules": wire})).status == 201
    binding = {
        "metadata": {"name": name},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role" if where else "ClusterRole",
            "name": name,
        },
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    assert (await client.ask("POST", scope.replace("roles", "rolebindings"), binding)).status == 201


@pytest.mark.parametrize("seed", range(10))
async def test_what_is_denied_is_refused_shows_nothing_and_changes_nothing(serve: Serve, seed: int) -> None:
    chance = random.Random(seed)
    client = await a_cluster(serve)
    grants: list[tuple[str, list[Rule]]] = []
    store = client.server.store
    for step in range(80):
        if step % 20 == 0:
            where = chance.choice(["", "one", "two"])
            grants.append((where, random_rules(chance)))
            await grant(client, *grants[-1], len(grants))
        method, verb, namespace, resource, name, body = a_request(chance)
        allowed = model_allows(grants, namespace, verb, "", resource, name)
        path = f"/api/v1/namespaces/{namespace}/{resource}" if namespace else f"/api/v1/{resource}"
        path += f"/{name}" if name else ""
        dry = "&dryRun=All" if chance.random() < 0.2 else ""
        query = ("watch=1&timeoutSeconds=1" if verb == "watch" else "x=1") + (dry if method != "GET" else "")
        headers = {"content_type": "application/merge-patch+json"} if method == "PATCH" else {}
        before = store.revision

        response = await client.ask(method, f"{path}?{query}", body, token="jane", **headers)
        if response.stream is not None:
            await response.stream.aclose()  # type: ignore[attr-defined]

        case = (seed, step, method, path, verb, grants)
        denied = response.status == 403 and rb"User \"jane\" cannot " in response.body  # Admission refuses as well.
        assert denied != allowed, case
        if not allowed:
            assert store.revision == before, case
            assert MARK.encode() not in response.body, case


async def test_apply_and_update_to_what_does_not_exist_need_the_right_to_create(serve: Serve) -> None:
    client = await a_cluster(serve)
    await grant(client, "one", [(("patch", "update"), ("",), ("configmaps", "leases"), ())], 1)
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}}
    path = "/api/v1/namespaces/one/configmaps"
    apply = {"content_type": "application/apply-patch+yaml"}
    before = client.server.store.revision

    created = await client.ask("PATCH", f"{path}/new?fieldManager=m", applied, token="jane", **apply)
    existing = {**applied, "metadata": {"name": "a"}}
    changed = await client.ask("PATCH", f"{path}/a?fieldManager=m&dryRun=All", existing, token="jane", **apply)

    assert created.status == 403
    assert changed.status == 200
    assert client.server.store.revision == before


async def test_nobody_gives_away_more_than_they_have(serve: Serve) -> None:
    client = await a_cluster(serve)
    roles = (("create", "update", "patch"), ("rbac.authorization.k8s.io",), ("roles", "rolebindings"), ())
    await grant(client, "one", [roles, (("get",), ("",), ("pods",), ())], 1)
    await grant(client, "two", [roles, (("escalate", "bind"), ("rbac.authorization.k8s.io",), ("*",), ())], 2)
    chance = random.Random(3)

    for number in range(40):
        namespace = chance.choice(["one", "two"])
        rule = random_rules(chance) or [(("get",), ("",), ("pods",), ())]
        wire = [
            dict(zip(("verbs", "apiGroups", "resources", "resourceNames"), map(list, one), strict=True)) for one in rule
        ]
        path = f"{RBAC_PATH}/namespaces/{namespace}/roles"
        role = {"metadata": {"name": f"new{number}"}, "rules": wire}
        owned = all(set(verbs) <= {"get"} and set(resources) <= {"pods"} for verbs, _groups, resources, _names in rule)
        response = await client.ask("POST", path, role, token="jane")
        assert (response.status == 201) == (namespace == "two" or owned), (number, namespace, rule)

    for namespace, status in (("one", 403), ("two", 201)):
        body = {
            "metadata": {"name": "grab"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        path = f"{RBAC_PATH}/namespaces/{namespace}/rolebindings"
        assert (await client.ask("POST", path, body, token="jane")).status == status


async def test_subresources_are_rights_of_their_own(serve: Serve) -> None:
    client = await a_cluster(serve)
    await grant(client, "one", [(("*",), ("",), ("pods", "serviceaccounts"), ())], 1)

    token = await client.ask("POST", "/api/v1/namespaces/one/serviceaccounts/a/token", {"spec": {}}, token="jane")
    statuses = [
        (await client.ask(method, f"/api/v1/namespaces/one/pods/a/{subresource}", body, token="jane")).status
        for method, subresource, body in (
            ("GET", "log", None),
            ("GET", "status", None),
            ("POST", "eviction", {"metadata": {"name": "a"}}),
            ("POST", "binding", {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}}),
            ("GET", "exec", None),
        )
    ]

    assert token.status == 403
    assert statuses == [403] * 5


async def test_who_may_impersonate_one_user_acts_as_no_other(serve: Serve) -> None:
    client = await a_cluster(serve)
    await grant(client, "", [(("impersonate",), ("",), ("users",), ("a",))], 1)
    body = {"metadata": {"name": "x"}}
    path = "/api/v1/namespaces/one/configmaps"

    for headers in (
        {"impersonate_user": "b"},
        {"impersonate_user": "a", "impersonate_group": "system:masters"},
        {"impersonate_user": "system:serviceaccount:one:a"},
        {"impersonate_user": "a", "impersonate_uid": "7"},
        {"impersonate_user": "a"},  # May be impersonated, but may do nothing.
    ):
        before = client.server.store.revision
        assert (await client.ask("POST", path, body, token="jane", **headers)).status == 403, headers
        assert client.server.store.revision == before
