"""What every user can do, see and change through a whole server is what a model of a few lines says: verbs, scopes,
subresources, names, paths, impersonation, tables, watches and proxies; and what kubelets can by what runs on them."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .conftest import Client, Serve
from .test_rbac_properties import MARK, RBAC_PATH, a_cluster

NAMESPACES = ("one", "two")
RESOURCES = (
    ("", "configmaps"), ("", "secrets"), ("", "pods"), ("", "services"), ("", "serviceaccounts"),
    ("apps", "deployments"), ("batch", "jobs"), ("rbac.authorization.k8s.io", "roles"),
)  # fmt: skip
CLUSTER_RESOURCES = (("", "nodes"), ("", "namespaces"), ("rbac.authorization.k8s.io", "clusterroles"))
SUBRESOURCES = (
    ("", "pods", "log", "GET", "get"), ("", "pods", "status", "GET", "get"), ("", "pods", "status", "PATCH", "patch"),
    ("", "pods", "exec", "GET", "get"), ("", "pods", "exec", "POST", "create"), ("", "pods", "proxy", "GET", "get"),
    ("", "pods", "proxy", "DELETE", "delete"), ("", "pods", "portforward", "POST", "create"),
    ("", "pods", "eviction", "POST", "create"), ("", "pods", "binding", "POST", "create"),
    ("", "pods", "ephemeralcontainers", "PATCH", "patch"), ("", "services", "proxy", "PUT", "update"),
    ("", "serviceaccounts", "token", "POST", "create"), ("apps", "deployments", "scale", "GET", "get"),
    ("apps", "deployments", "scale", "PUT", "update"), ("apps", "deployments", "status", "GET", "get"),
    ("apps", "deployments", "scale", "PATCH", "patch"), ("apps", "deployments", "status", "PUT", "update"),
    ("", "pods", "attach", "POST", "create"), ("", "pods", "resize", "PATCH", "patch"),
    ("", "pods", "resize", "GET", "get"), ("", "pods", "ephemeralcontainers", "PUT", "update"),
    ("", "pods", "ephemeralcontainers", "GET", "get"), ("", "pods", "proxy", "PATCH", "patch"),
    ("", "pods", "status", "PUT", "update"), ("", "services", "status", "PATCH", "patch"),
    ("", "services", "proxy", "POST", "create"), ("batch", "jobs", "status", "PATCH", "patch"),
)  # fmt: skip
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
PATHS = (
    "/metrics",
    "/debug/pprof/x",
    "/logs/a",
    "/version",
    "/healthz",
    "/openapi/v3",
    "/apis/apps",
    "/configz",
    "/x/y",
)
OPEN_TO_ALL = (
    "/healthz", "/livez", "/readyz", "/version", "/version/", "/api", "/api/*", "/apis", "/apis/*", "/openapi",
    "/openapi/*",
)  # fmt: skip
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@dataclass(frozen=True)
class Person:
    name: str
    groups: tuple[str, ...] = ()

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("impersonate_user", self.name), *(("impersonate_group", group) for group in self.groups)]

    def is_meant(self, subject: dict[str, str]) -> bool:
        match subject["kind"]:
            case "User":
                return subject["name"] == self.name
            case "Group":
                return subject["name"] in self.groups
        return self.name == f"system:serviceaccount:{subject['namespace']}:{subject['name']}"


PEOPLE = (
    Person("ann", ("red",)),
    Person("joe", ("blue",)),
    Person("system:serviceaccount:one:a", ("system:serviceaccounts", "system:serviceaccounts:one")),
)
SUBJECTS = (
    {"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"},
    {"kind": "Group", "name": "blue", "apiGroup": "rbac.authorization.k8s.io"},
    {"kind": "ServiceAccount", "name": "a", "namespace": "one"},
    {"kind": "Group", "name": "system:serviceaccounts:one", "apiGroup": "rbac.authorization.k8s.io"},
)


@dataclass(frozen=True)
class Asked:
    """A request, and what it means to an authorizer."""

    method: str
    path: str
    verb: str
    group: str = ""
    resource: str = ""  # With its subresource; "" for a path that is none of a resource.
    namespace: str = ""
    name: str = ""
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Model:
    """The grants: each is a namespace ("" everywhere), subjects, and rules."""

    grants: list[tuple[str, list[dict[str, str]], list[dict[str, list[str]]]]] = field(default_factory=list)

    def allows(self, person: Person, asked: Asked) -> bool:
        if (
            asked.resource == "services"
            and asked.verb == "update"
            and not self.allows(person, replace(asked, verb="create"))
        ):
            return False  # There is none yet, and an update makes one.
        if not asked.resource and asked.verb == "get" and any(_path_fits(own, asked.path) for own in OPEN_TO_ALL):
            return True
        return any(
            (not place or place == asked.namespace)
            and any(person.is_meant(subject) for subject in subjects)
            and any(_covers(rule, asked, is_everywhere=not place) for rule in rules)
            for place, subjects, rules in self.grants
        )


def _path_fits(own: str, path: str) -> bool:
    return path.startswith(own[:-1]) if own.endswith("*") else path == own


def _covers(rule: dict[str, list[str]], asked: Asked, *, is_everywhere: bool) -> bool:
    if not {"*", asked.verb} & set(rule["verbs"]):
        return False
    if not asked.resource:
        return is_everywhere and any(_path_fits(own, asked.path) for own in rule.get("nonResourceURLs", ()))
    wanted = {"*", asked.resource}
    if "/" in asked.resource:
        wanted.add("*/" + asked.resource.split("/")[1])
    names = rule.get("resourceNames")
    return (
        bool({"*", asked.group} & set(rule.get("apiGroups", ())))
        and bool(wanted & set(rule.get("resources", ())))
        and (not names or asked.name in names)
    )


def a_rule(chance: random.Random, *, everywhere: bool) -> dict[str, list[str]]:
    if everywhere and chance.random() < 0.25:
        verbs = chance.sample(["get", "post", "put", "*"], chance.randint(1, 2))
        return {"verbs": verbs, "nonResourceURLs": chance.sample(["*", *PATHS, "/debug/*", "/logs/*"], 1)}
    kinds = [one for _, one in (*RESOURCES, *CLUSTER_RESOURCES)]
    kinds += [f"{kind}/{sub}" for _, kind, sub, _, _ in SUBRESOURCES] + ["*/status", "*/scale", "*/proxy", "*"]
    rule = {
        "verbs": chance.sample([*VERBS, "*"], chance.randint(1, 3)),
        "apiGroups": chance.sample(["", "apps", "batch", "rbac.authorization.k8s.io", "*"], chance.randint(1, 2)),
        "resources": chance.sample(kinds, chance.randint(1, 3)),
    }
    if chance.random() < 0.3:
        rule["resourceNames"] = chance.sample(["a", "b"], 1)
    return rule


def a_request(chance: random.Random) -> Asked:
    if chance.random() < 0.12:
        method = chance.choice(["GET", "POST", "PUT"])
        return Asked(method, chance.choice(PATHS), method.lower())
    if chance.random() < 0.35:
        group, kind, sub, method, verb = chance.choice(SUBRESOURCES)
        place, name = chance.choice(NAMESPACES), chance.choice(["a", "b"])
        path = f"{_base(group)}/namespaces/{place}/{kind}/{name}/{sub}"
        patch = (("content_type", "application/merge-patch+json"),) if method == "PATCH" else ()
        body = None if method == "GET" else {"metadata": {"name": name}}
        return Asked(method, path, verb, group, f"{kind}/{sub}", place, name, body, patch)
    is_cluster = chance.random() < 0.2
    group, kind = chance.choice(CLUSTER_RESOURCES if is_cluster else RESOURCES)
    place = "" if is_cluster else chance.choice([*NAMESPACES, ""])
    path = f"{_base(group)}/namespaces/{place}/{kind}" if place else f"{_base(group)}/{kind}"
    verb = chance.choice(VERBS if place or is_cluster else ("list", "watch"))
    name = chance.choice(["a", "b"]) if verb in ("get", "update", "patch", "delete") else ""
    dry = "?dryRun=All" if chance.random() < 0.3 and verb not in ("get", "list", "watch") else ""
    table = (("accept", TABLE),) if chance.random() < 0.3 else ()
    if verb in ("list", "watch") and chance.random() < 0.3:
        name = chance.choice(["a", "b"])  # Rules for one name hold for who selects by that name, too.
        dry = f"?fieldSelector=metadata.name={name}"
    elif name:
        path += f"/{name}"
    query = dry + (f"{'&' if dry else '?'}watch=1&timeoutSeconds=1" if verb == "watch" else "")
    body: Any = {"metadata": {"name": name or f"x{chance.randrange(10**6)}"}} if verb in ("create", "update") else None
    if verb == "patch":
        body, table = {"metadata": {"labels": {"a": "b"}}}, (("content_type", "application/merge-patch+json"),)
    if kind == "namespaces":
        place = name  # Upstream's attributes of a namespace name it twice.
    method = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE"}
    return Asked(method.get(verb, "GET"), path + query, verb, group, kind, place, name, body, table)


def _base(group: str) -> str:
    return f"/apis/{group}/v1" if group else "/api/v1"


async def _grant(client: Client, chance: random.Random, model: Model, number: int) -> None:
    place = chance.choice(["", *NAMESPACES])
    is_cluster_role = not place or chance.random() < 0.5
    rules = [a_rule(chance, everywhere=is_cluster_role) for _ in range(chance.randint(1, 3))]
    subjects = [dict(one) for one in chance.sample(SUBJECTS, chance.randint(1, 2))]
    scope = f"{RBAC_PATH}/namespaces/{place}/" if place else f"{RBAC_PATH}/cluster"
    role = {"metadata": {"name": f"p{number}"}, "rules": rules}
    kind = "ClusterRole" if is_cluster_role else "Role"
    created = await client.ask("POST", f"{RBAC_PATH}/clusterroles" if is_cluster_role else f"{scope}roles", role)
    assert created.status == 201, created.body
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": f"p{number}"}
    binding = {"metadata": {"name": f"p{number}"}, "roleRef": reference, "subjects": subjects}
    bound = await client.ask("POST", f"{scope}rolebindings", binding)
    assert bound.status == 201, bound.body
    model.grants.append((place, subjects, rules))


@pytest.mark.parametrize("seed", range(4))
async def test_everybody_gets_what_the_model_allows_and_nothing_else(serve: Serve, seed: int) -> None:
    chance, model = random.Random(seed), Model()
    client = await a_cluster(serve)
    for step in range(120):
        if step % 12 == 0:
            await _grant(client, chance, model, step)
        asked, person = a_request(chance), chance.choice(PEOPLE)
        allowed = model.allows(person, asked)
        before = client.server.store.revision

        answer = await client.ask_as(person.headers, asked.method, asked.path, asked.body, **dict(asked.headers))
        shown = answer.body
        if answer.stream is not None:
            if not allowed:
                shown += b"".join([part async for part in answer.stream])
            await answer.stream.aclose()  # type: ignore[attr-defined]

        case = f"{(seed, step)} {person} {asked}\nwas answered {answer.status} {answer.body[:400]!r}\n{model.grants}"
        denied = answer.status == 403 and f'User \\"{person.name}\\" cannot '.encode() in answer.body
        assert denied != allowed, case
        if not allowed:
            assert client.server.store.revision == before, case
            assert MARK.encode() not in shown, case


async def test_who_is_impersonated_has_to_be_allowed_by_name_and_in_every_part(serve: Serve) -> None:
    client = await a_cluster(serve)
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    rights = [
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["joe"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["blue"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["a"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scope"]},
    ]
    for name, rules, subject in (
        ("actor", rights, {"kind": "User", "name": "jane"}),
        ("doer", [everything], {"kind": "Group", "name": "blue"}),
        ("doer-too", [everything], {"kind": "ServiceAccount", "name": "a", "namespace": "one"}),
    ):
        await client.ask("POST", f"{RBAC_PATH}/clusterroles", {"metadata": {"name": name}, "rules": rules})
        group = {} if subject["kind"] == "ServiceAccount" else {"apiGroup": "rbac.authorization.k8s.io"}
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{**subject, **group}],
        }
        assert (await client.ask("POST", f"{RBAC_PATH}/clusterrolebindings", binding)).status == 201

    account = "system:serviceaccount:one:a"
    for status, headers in (
        (403, [("impersonate_user", "joe")]),  # Without the group that may.
        (200, [("impersonate_user", "joe"), ("impersonate_group", "blue")]),
        (403, [("impersonate_user", "joe"), ("impersonate_group", "blue"), ("impersonate_group", "red")]),
        (403, [("impersonate_user", "ann"), ("impersonate_group", "blue")]),
        (403, [("impersonate_user", "joe"), ("impersonate_group", "system:masters")]),
        (200, [("impersonate_user", "joe"), ("impersonate_group", "blue"), ("impersonate_extra_scope", "x")]),
        (403, [("impersonate_user", "joe"), ("impersonate_group", "blue"), ("impersonate_extra_other", "x")]),
        (403, [("impersonate_user", "joe"), ("impersonate_group", "blue"), ("impersonate_uid", "7")]),
        (200, [("impersonate_user", account)]),
        (403, [("impersonate_user", "system:serviceaccount:two:b")]),
        (403, [("impersonate_user", "system:node:n")]),
    ):
        answer = await client.ask_as(headers, "GET", "/api/v1/namespaces/one/secrets", token="jane")
        assert answer.status == status, (headers, answer.body)
        assert (MARK.encode() in answer.body) == (status == 200), headers
    for headers in ([("impersonate_group", "blue")], [("impersonate_extra_scope", "x")], [("impersonate_uid", "7")]):
        answer = await client.ask_as(headers, "GET", "/api/v1/namespaces/one/secrets", token="jane")
        assert answer.status in (400, 403, 500), headers
        assert MARK.encode() not in answer.body


async def test_a_role_that_collects_others_can_only_be_made_by_who_has_everything(serve: Serve) -> None:
    client = await a_cluster(serve)
    rules = [
        {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
    ]
    for verbs, status in ((["create", "update", "patch"], 403), (["create", "update", "patch", "escalate"], 201)):
        rules[0]["verbs"] = verbs
        role = {"metadata": {"name": "author"}, "rules": rules}
        existing = await client.ask("PUT", f"{RBAC_PATH}/clusterroles/author", role)
        if existing.status == 404:
            await client.ask("POST", f"{RBAC_PATH}/clusterroles", role)
        binding = {
            "metadata": {"name": "author"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "author"},
            "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        await client.ask("POST", f"{RBAC_PATH}/clusterrolebindings", binding)
        collector = {
            "metadata": {"name": "collector"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"any": "thing"}}]},
            "rules": [],
        }
        answer = await client.ask("POST", f"{RBAC_PATH}/clusterroles", collector, token="jane")
        assert answer.status == status, answer.body


CERTIFICATES = "/apis/certificates.k8s.io/v1"


async def _allow(client: Client, name: str, rules: list[dict[str, list[str]]]) -> None:
    """Let jane do what the rules say, everywhere."""
    made = await client.ask("POST", f"{RBAC_PATH}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    assert made.status == 201, made.body
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    assert (await client.ask("POST", f"{RBAC_PATH}/clusterrolebindings", binding)).status == 201


def _signer_rule(verb: str, *names: str) -> dict[str, list[str]]:
    named = {"resourceNames": list(names)} if names else {}
    return {"verbs": [verb], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], **named}


@pytest.mark.parametrize(
    ("verb", "subresource"), [("approve", "approval"), ("sign", "status")], ids=["approve", "sign"]
)
@pytest.mark.parametrize(
    ("names", "allowed"),
    [(None, False), (("a.example/x",), True), (("a.example/*",), True), (("a.example/y",), False), ((), True)],
)
async def test_who_approves_or_signs_needs_a_right_for_the_signer(
    serve: Serve, verb: str, subresource: str, names: tuple[str, ...] | None, allowed: bool
) -> None:
    client = await serve()
    rules = [
        {
            "verbs": ["get", "update", "patch"],
            "apiGroups": ["certificates.k8s.io"],
            "resources": [f"certificatesigningrequests/{subresource}"],
        }
    ]
    await _allow(client, "signer", [*rules, *([_signer_rule(verb, *names)] if names is not None else [])])
    body = {
        "metadata": {"name": "r"},
        "spec": {"signerName": "a.example/x", "usages": ["client auth"], "request": a_signing_request()},
    }
    _, request = await client.json("POST", f"{CERTIFICATES}/certificatesigningrequests", body)
    kind = {"approval": "Approved", "status": "Failed"}[subresource]
    request["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "r", "message": "m"}]}

    place = f"{CERTIFICATES}/certificatesigningrequests/r/{subresource}"
    status, answer = await client.json("PUT", place, request, token="jane")

    assert status == (200 if allowed else 403), answer


def a_signing_request() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


async def test_a_right_that_is_taken_away_lets_nobody_start_a_watch(serve: Serve) -> None:
    client = await a_cluster(serve)
    await _allow(client, "watcher", [{"verbs": ["watch"], "apiGroups": [""], "resources": ["configmaps"]}])
    path = "/api/v1/namespaces/one/configmaps?watch=1&timeoutSeconds=1"
    before = await client.ask("GET", path, token="jane")
    assert before.stream is not None
    await before.stream.aclose()  # type: ignore[attr-defined]

    assert (await client.ask("DELETE", f"{RBAC_PATH}/clusterrolebindings/watcher")).status == 200

    after = await client.ask("GET", path, token="jane")
    assert (after.status, after.stream) == (403, None)
    assert MARK.encode() not in after.body


# Kubelets

NODES = ("n1", "n2")
THINGS = ("a", "b", "c")


def a_bound_pod(chance: random.Random, number: int) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """Return a Pod, and what its node may read because of it: (resource, name)."""
    name = f"p{number}"
    secret, config, env, pull, claim, projected, init = (chance.choice([*THINGS, ""]) for _ in range(7))
    container: dict[str, Any] = {"name": "main", "image": "i"}
    spec: dict[str, Any] = {"containers": [container], "volumes": [], "serviceAccountName": chance.choice(["a", "b"])}
    related = {("pods", name), ("serviceaccounts", spec["serviceAccountName"])}
    if secret:
        spec["volumes"].append({"name": "s", "secret": {"secretName": secret}})
        related.add(("secrets", secret))
    if config:
        spec["volumes"].append({"name": "c", "configMap": {"name": config}})
        related.add(("configmaps", config))
    if projected:
        source = {"sources": [{"secret": {"name": projected}}, {"configMap": {"name": projected}}]}
        spec["volumes"].append({"name": "p", "projected": source})
        related |= {("secrets", projected), ("configmaps", projected)}
    if claim:
        spec["volumes"].append({"name": "v", "persistentVolumeClaim": {"claimName": claim}})
        related.add(("persistentvolumeclaims", claim))
    if env:
        container["env"] = [{"name": "E", "valueFrom": {"secretKeyRef": {"name": env, "key": "k"}}}]
        container["envFrom"] = [{"configMapRef": {"name": env}}]
        related |= {("secrets", env), ("configmaps", env)}
    if init:
        start = {"name": "start", "image": "i", "envFrom": [{"secretRef": {"name": init}}]}
        spec["initContainers"] = [start]
        related.add(("secrets", init))
    if pull:
        spec["imagePullSecrets"] = [{"name": pull}]
        related.add(("secrets", pull))
    return {"metadata": {"name": name}, "spec": spec}, related


@pytest.mark.parametrize("seed", range(3))
async def test_a_kubelet_reads_what_its_pods_refer_to_and_nothing_else(serve: Serve, seed: int) -> None:
    chance = random.Random(seed)
    client = await a_cluster(serve, authorization_mode=("Node", "RBAC"))
    running: dict[str, tuple[str, set[tuple[str, str]]]] = {}
    pods = "/api/v1/namespaces/one/pods"
    for step in range(40):
        if running and chance.random() < 0.3:
            name = chance.choice(sorted(running))
            del running[name]
            assert (await client.ask("DELETE", f"{pods}/{name}", {"gracePeriodSeconds": 0})).status == 200
        else:
            pod, related = a_bound_pod(chance, step)
            node = chance.choice([*NODES, ""])  # Some wait for a node: they open nothing to anybody.
            pod["spec"] |= {"nodeName": node} if node else {}
            created = await client.ask("POST", pods, pod)
            assert created.status == 201, created.body
            running[pod["metadata"]["name"]] = (node, related)
        for _ in range(4):
            resource = chance.choice(
                ["secrets", "configmaps", "persistentvolumeclaims", "pods", "serviceaccounts", "serviceaccounts/token"]
            )
            kind = resource.partition("/")[0]
            names = sorted(running) if kind == "pods" else THINGS
            name, node, place = chance.choice(names or ["p"]), chance.choice(NODES), chance.choice(["one", "two"])
            may = place == "one" and any(own == node and (kind, name) in found for own, found in running.values())
            method, path = "GET", f"/api/v1/namespaces/{place}/{kind}/{name}"
            if resource.endswith("/token"):
                method, path = "POST", f"{path}/token"
            who = [("impersonate_user", f"system:node:{node}"), ("impersonate_group", "system:nodes")]
            answer = await client.ask_as(who, method, path, {"spec": {}} if method == "POST" else None)
            refused = answer.status == 403 and f'User \\"system:node:{node}\\" cannot '.encode() in answer.body
            assert refused != may, (seed, step, node, path, answer.status, answer.body, running)
            assert may or MARK.encode() not in answer.body
        for verb in ("list", "watch"):  # Lists are for who names the one object.
            node, name = chance.choice(NODES), chance.choice(THINGS)
            may = any(own == node and ("secrets", name) in found for own, found in running.values())
            for query, expected in ((f"fieldSelector=metadata.name={name}", may), ("limit=1", False)):
                watch = "&watch=1&timeoutSeconds=1" if verb == "watch" else ""
                who = [("impersonate_user", f"system:node:{node}"), ("impersonate_group", "system:nodes")]
                answer = await client.ask_as(who, "GET", f"/api/v1/namespaces/one/secrets?{query}{watch}")
                if answer.stream is not None:
                    await answer.stream.aclose()  # type: ignore[attr-defined]
                assert (answer.status != 403) == expected, (seed, step, verb, query, answer.body)
