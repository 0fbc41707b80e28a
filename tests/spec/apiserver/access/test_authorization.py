"""Who may do what: roles, nodes, the union of authorizers, and what nobody may grant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.api import scheme
from haven.api.authorization import v1 as authorization
from haven.api.core import v1 as core
from haven.api.rbac import v1 as rbac
from haven.apimachinery import meta
from haven.apimachinery.apierrors import ApiError, Forbidden, Invalid
from haven.apiserver.authorization.escalation import EscalationGuard
from haven.apiserver.authorization.interface import Attributes, Verdict, refusal
from haven.apiserver.authorization.node import NodeAuthorizer
from haven.apiserver.authorization.nodegraph import NodeGraph
from haven.apiserver.authorization.rbac import RBAC
from haven.apiserver.authorization.rules import breakdown, uncovered
from haven.apiserver.authorization.union import AlwaysAllowGroups, AuthorizerUnion
from haven.apiserver.bootstrap.objects import BootstrapSettings, bootstrap_objects, node_rules
from haven.apiserver.bootstrap.reconcile import plan
from haven.apiserver.request import Request, UserInfo
from haven.apiserver.reviews.accessreviews import AccessReviews

GROUP = "rbac.authorization.k8s.io"


def an_index(*objects: Any) -> RBAC:
    index = RBAC()
    for obj in objects:
        index.changed(scheme.resource_of(type(obj)), None, obj)
    return index


def a_role(namespace: str, name: str, *rules: rbac.PolicyRule) -> Any:
    kind = rbac.Role if namespace else rbac.ClusterRole
    return kind(metadata=meta.ObjectMeta(namespace=namespace, name=name), rules=list(rules))


def a_binding(namespace: str, name: str, role: str, *subjects: str) -> Any:
    kind = rbac.RoleBinding if namespace else rbac.ClusterRoleBinding
    role_kind, _, role_name = role.partition(" ")
    return kind(
        metadata=meta.ObjectMeta(namespace=namespace, name=name),
        role_ref=rbac.RoleRef(api_group=GROUP, kind=role_kind, name=role_name),
        subjects=[rbac.Subject(kind=subject.split()[0], name=subject.split()[1]) for subject in subjects],
    )


def allow(verbs: str, groups: str, resources: str, names: str = "") -> rbac.PolicyRule:
    return rbac.PolicyRule(
        verbs=verbs.split(","),
        api_groups=groups.split(","),
        resources=resources.split(","),
        resource_names=names.split(",") if names else [],
    )


READ_PODS = allow("get,list", "", "pods,pods/log")
JANE = UserInfo("jane", groups=("devs", "system:authenticated"))


def may(index: RBAC, user: UserInfo, verb: str, resource: str, namespace: str = "ns", **more: Any) -> bool:
    attributes = Attributes(user, verb, resource=resource, namespace=namespace, **more)
    return index.authorize(attributes).verdict is Verdict.ALLOW


def test_a_role_binding_counts_in_its_namespace_only() -> None:
    index = an_index(a_role("ns", "r", READ_PODS), a_binding("ns", "b", "Role r", "User jane"))

    assert may(index, JANE, "get", "pods")
    assert may(index, JANE, "get", "pods", subresource="log")
    assert not may(index, JANE, "get", "pods", subresource="exec")
    assert not may(index, JANE, "delete", "pods")
    assert not may(index, JANE, "get", "pods", namespace="other")
    assert not may(index, JANE, "get", "pods", namespace="")


def test_a_cluster_role_binding_counts_everywhere_and_says_so() -> None:
    index = an_index(a_role("", "r", READ_PODS), a_binding("", "b", "ClusterRole r", "Group devs"))

    decision = index.authorize(Attributes(JANE, "get", resource="pods", namespace="any"))

    assert decision.verdict is Verdict.ALLOW
    assert decision.reason == 'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to Group "devs"'


def test_a_service_account_subject_is_the_account_of_the_bindings_namespace() -> None:
    index = an_index(a_role("ns", "r", READ_PODS), a_binding("ns", "b", "Role r", "ServiceAccount bot"))

    assert may(index, UserInfo("system:serviceaccount:ns:bot"), "get", "pods")
    assert not may(index, UserInfo("system:serviceaccount:other:bot"), "get", "pods")


def test_a_changed_role_counts_at_once() -> None:
    role = a_role("ns", "r", READ_PODS)
    index = an_index(role, a_binding("ns", "b", "Role r", "User jane"))
    assert may(index, JANE, "get", "pods")

    index.changed(scheme.resource_of(rbac.Role), role, a_role("ns", "r", allow("get", "", "secrets")))

    assert not may(index, JANE, "get", "pods")
    assert may(index, JANE, "get", "secrets")


def test_a_binding_to_a_missing_role_is_told_in_the_reason() -> None:
    index = an_index(a_binding("", "b", "ClusterRole nosuch", "User jane"))

    decision = index.authorize(Attributes(JANE, "get", resource="pods"))

    assert decision.reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "nosuch" not found'


def test_a_refusal_reads_as_upstreams() -> None:
    asked = Attributes(
        JANE, "patch", group="apps", resource="deployments", subresource="scale", namespace="ns", name="d"
    )

    error = refusal(asked, "")

    assert error.message == (
        'deployments.apps "d" is forbidden: User "jane" cannot patch resource "deployments/scale" in API group "apps"'
        ' in the namespace "ns"'
    )


words = st.sampled_from(["a", "b", "c", "*"])
rules = st.builds(
    lambda verbs, groups, resources, names: rbac.PolicyRule(
        verbs=verbs, api_groups=groups, resources=resources, resource_names=names
    ),
    st.lists(words, max_size=2),
    st.lists(words, max_size=2),
    st.lists(st.sampled_from(["a", "b", "a/x", "*/x", "*"]), max_size=2),
    st.lists(st.sampled_from(["n", "m"]), max_size=1),
)


def allowed_by(rule: rbac.PolicyRule, verb: str, group: str, resource: str, subresource: str, name: str) -> bool:
    """The documentation's wording, as plainly as it can be put."""
    combined = f"{resource}/{subresource}" if subresource else resource
    forms = {"*", combined} | ({f"*/{subresource}"} if subresource else set())
    return (
        bool({"*", verb} & set(rule.verbs or []))
        and bool({"*", group} & set(rule.api_groups))
        and bool(forms & set(rule.resources))
        and (not rule.resource_names or name in rule.resource_names)
    )


@given(
    st.lists(rules, max_size=3),
    st.sampled_from("abc"),
    st.sampled_from("abc"),
    st.sampled_from("ab"),
    st.sampled_from(["", "x"]),
    st.sampled_from(["", "n", "m"]),
    st.booleans(),
)
def test_the_index_allows_exactly_what_some_rule_of_some_bound_role_allows(
    held: list[rbac.PolicyRule], verb: str, group: str, resource: str, subresource: str, name: str, bound: bool
) -> None:
    index = an_index(a_role("", "r", *held), a_binding("", "b", "ClusterRole r", "User jane" if bound else "User x"))

    asked = Attributes(JANE, verb, group=group, resource=resource, subresource=subresource, name=name)

    expected = bound and any(allowed_by(rule, verb, group, resource, subresource, name) for rule in held)
    assert (index.authorize(asked).verdict is Verdict.ALLOW) == expected
    assert (index.authorize(asked).verdict is Verdict.ALLOW) == expected, "the remembered answer is the same"


@given(st.lists(rules, max_size=3), st.lists(rules, max_size=2))
def test_covered_rules_allow_nothing_that_the_owner_is_refused(
    held: list[rbac.PolicyRule], wanted: list[rbac.PolicyRule]
) -> None:
    if uncovered(held, wanted):
        return
    for rule in wanted:
        for verb in "abz":
            for group in "abz":
                for resource, subresource in (("a", ""), ("a", "x"), ("z", ""), ("z", "x")):
                    for name in ("", "n"):
                        asked = (verb, group, resource, subresource, name)
                        if allowed_by(rule, *asked):
                            assert any(allowed_by(mine, *asked) for mine in held), asked


@given(rules)
def test_rules_cover_themselves(rule: rbac.PolicyRule) -> None:
    assert uncovered([rule], [rule]) == []
    assert uncovered(list(breakdown(rule)), [rule]) == []


async def test_nobody_grants_what_they_do_not_have() -> None:
    index = an_index(
        a_role("", "roles-writer", allow("*", GROUP, "roles,rolebindings")),
        a_role("", "reader", READ_PODS),
        a_binding("", "b1", "ClusterRole roles-writer", "User jane"),
        a_binding("", "b2", "ClusterRole reader", "User jane"),
    )
    index.changed(
        scheme.resource_of(rbac.ClusterRole),
        a_role("", "roles-writer", allow("*", GROUP, "roles,rolebindings")),
        a_role("", "roles-writer", allow("get,create,update", GROUP, "roles,rolebindings")),
    )
    guard = EscalationGuard(index, index)

    await guard.check(JANE, a_role("ns", "fine", allow("get", "", "pods")))
    with pytest.raises(Forbidden) as refused:
        await guard.check(
            JANE, a_role("ns", "greedy", allow("get,delete,create", "", "pods"), allow("get", "apps", "x", "n"))
        )

    assert refused.value.message == (
        'roles.rbac.authorization.k8s.io "greedy" is forbidden: user "jane" (groups=["devs" "system:authenticated"]) is'
        " attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete" "create"]}\n'
        '{APIGroups:["apps"], Resources:["x"], ResourceNames:["n"], Verbs:["get"]}'
    )
    await guard.check(UserInfo("root", groups=("system:masters",)), a_role("ns", "any", allow("*", "*", "*")))


async def test_who_may_escalate_or_bind_may_grant_more() -> None:
    index = an_index(
        a_role("", "cluster-admin", allow("*", "*", "*")),
        a_role("", "r", allow("escalate", GROUP, "roles"), allow("bind", GROUP, "clusterroles", "cluster-admin")),
        a_binding("", "b", "ClusterRole r", "User jane"),
    )
    guard = EscalationGuard(index, index)

    await guard.check(JANE, a_role("ns", "any", allow("*", "*", "*")))
    await guard.check(JANE, a_binding("ns", "b", "ClusterRole cluster-admin", "User jane"))
    with pytest.raises(Forbidden, match="attempting to grant RBAC permissions not currently held"):
        await guard.check(JANE, a_role("", "any", allow("*", "*", "*")))


async def test_a_right_to_escalate_one_role_is_good_for_the_name_in_the_path() -> None:
    index = an_index(
        a_role("", "r", allow("escalate", GROUP, "roles", "one")), a_binding("", "b", "ClusterRole r", "User jane")
    )
    guard = EscalationGuard(index, index)
    one = a_role("ns", "one", allow("*", "*", "*"))

    await guard.check(JANE, one, requested_name="one")  # A PUT, or an apply, that creates it.
    with pytest.raises(Forbidden):
        await guard.check(JANE, one, requested_name="")  # A POST.


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        ("ClusterRole none", 404, 'clusterrolebindings.rbac.authorization.k8s.io "none" not found'),
        ("ClusterRole ", 400, "Name parameter required."),
        ("Role here", 400, "Namespace parameter required."),
        ("Bogus x", 500, 'unsupported role reference kind: "Bogus"'),
    ],
)
async def test_a_binding_to_what_is_no_role_says_so(reference: str, code: int, message: str) -> None:
    guard = EscalationGuard(an_index(), an_index())

    with pytest.raises(ApiError) as refused:
        await guard.check(JANE, a_binding("", "b", reference, "User jane"))
    assert (refused.value.code, refused.value.message) == (code, message)


def test_each_missing_role_is_told_once_in_a_rules_review() -> None:
    index = an_index(
        a_binding("", "a", "ClusterRole one", "User jane"), a_binding("", "b", "ClusterRole two", "User jane")
    )

    found = AuthorizerUnion([index, index]).rules_for(JANE, "ns")

    assert found.error == (
        '[clusterrole.rbac.authorization.k8s.io "one" not found, clusterrole.rbac.authorization.k8s.io "two" not found]'
    )


def a_pod(name: str, node: str, **spec: Any) -> core.Pod:
    pod = core.Pod(metadata=meta.ObjectMeta(namespace="ns", name=name, uid=f"{name}-{node}"))
    pod.spec = core.PodSpec(node_name=node, service_account_name="bot", **spec)
    return pod


def a_node(name: str) -> UserInfo:
    return UserInfo(f"system:node:{name}", groups=("system:nodes", "system:authenticated"))


def test_a_node_reads_what_its_pods_refer_to_and_nothing_else() -> None:
    graph = NodeGraph()
    pods = scheme.resource_of(core.Pod)
    pod = a_pod("p", "n1", volumes=[core.Volume(name="v", secret=core.SecretVolumeSource(secret_name="s"))])
    graph.changed(pods, None, pod)
    authorizer = NodeAuthorizer(graph, node_rules())

    def verdict(node: str, verb: str, resource: str, name: str, **more: str) -> tuple[bool, str]:
        asked = Attributes(a_node(node), verb, resource=resource, name=name, namespace="ns", **more)
        decision = authorizer.authorize(asked)
        return decision.verdict is Verdict.ALLOW, decision.reason

    assert verdict("n1", "get", "secrets", "s") == (True, "")
    assert verdict("n1", "get", "pods", "p")[0]
    assert verdict("n1", "create", "serviceaccounts", "bot", subresource="token")[0]
    assert verdict("n2", "get", "secrets", "s") == (
        False,
        "no relationship found between node 'n2' and this object",
    )
    assert verdict("n1", "get", "secrets", "other")[0] is False
    assert verdict("n1", "update", "secrets", "s") == (False, "can only read resources of this type")
    assert verdict("n1", "list", "pods", "", field_selector="spec.nodeName=n1")[0]
    assert verdict("n1", "list", "pods", "")[1] == "can only list/watch pods with spec.nodeName field selector"
    assert verdict("n1", "get", "nodes", "n2")[1] == "node 'n1' cannot read 'n2', only its own Node object"
    assert verdict("n1", "list", "services", "")[0]

    graph.changed(pods, pod, None)
    assert verdict("n1", "get", "secrets", "s")[0] is False
    graph.check()


def test_a_node_reads_a_volumes_secret_through_the_claim_of_its_pod() -> None:
    graph = NodeGraph()
    claim = core.PersistentVolumeClaimVolumeSource(claim_name="c")
    volumes = [core.Volume(name="v", persistent_volume_claim=claim)]
    graph.changed(scheme.resource_of(core.Pod), None, a_pod("p", "n1", volumes=volumes))
    volume = core.PersistentVolume(metadata=meta.ObjectMeta(name="pv"))
    volume.spec.claim_ref = core.ObjectReference(namespace="ns", name="c")
    volume.spec.csi = core.CSIPersistentVolumeSource(
        node_stage_secret_ref=core.SecretReference(namespace="storage", name="key")
    )
    graph.changed(scheme.resource_of(core.PersistentVolume), None, volume)
    authorizer = NodeAuthorizer(graph, node_rules())

    for resource, namespace, name in (("persistentvolumes", "", "pv"), ("secrets", "storage", "key")):
        for node, expected in (("n1", Verdict.ALLOW), ("n2", Verdict.NO_OPINION)):
            asked = Attributes(a_node(node), "get", resource=resource, namespace=namespace, name=name)
            assert authorizer.authorize(asked).verdict is expected


@pytest.fixture
def default_roles() -> RBAC:
    rbac_kinds = (rbac.ClusterRole, rbac.ClusterRoleBinding, rbac.Role, rbac.RoleBinding)
    return an_index(*(obj for obj in bootstrap_objects(BootstrapSettings()) if isinstance(obj, rbac_kinds)))


def test_the_default_roles_let_administrators_do_everything_and_everybody_see_little(default_roles: RBAC) -> None:
    union = AuthorizerUnion([AlwaysAllowGroups(), default_roles])
    admin = UserInfo("admin", groups=("kubeadm:cluster-admins",))
    master = UserInfo("master", groups=("system:masters",))
    anonymous = UserInfo("system:anonymous", groups=("system:unauthenticated",))
    delete_nodes = {"verb": "delete", "resource": "nodes"}

    for user in (admin, master):
        assert union.authorize(Attributes(user, **delete_nodes)).verdict is Verdict.ALLOW
    for user in (JANE, anonymous):
        assert union.authorize(Attributes(user, **delete_nodes)).verdict is Verdict.NO_OPINION
        for path in ("/livez", "/readyz", "/version"):
            asked = Attributes(user, "get", is_resource=False, path=path)
            assert union.authorize(asked).verdict is Verdict.ALLOW
    assert union.authorize(Attributes(JANE, "get", is_resource=False, path="/apis/apps")).verdict is Verdict.ALLOW
    asked = Attributes(anonymous, "get", is_resource=False, path="/apis/apps")
    assert union.authorize(asked).verdict is Verdict.NO_OPINION


def test_starting_twice_changes_nothing_and_additions_of_operators_stay(objects: Any) -> None:
    wanted = list(bootstrap_objects(BootstrapSettings()))
    for change in plan(wanted, objects.get):
        objects.put(change.new)

    assert list(plan(bootstrap_objects(BootstrapSettings()), objects.get)) == []

    role = objects.get(scheme.resource_of(rbac.ClusterRole), "", "system:kube-dns")
    role.rules = [allow("get", "x", "y")]
    changes = list(plan(bootstrap_objects(BootstrapSettings()), objects.get))
    assert [change.new.metadata.name for change in changes] == ["system:kube-dns"]
    assert changes[0].new.rules[0] == allow("get", "x", "y")
    assert len(changes[0].new.rules) > 1
    role.metadata.annotations = {"rbac.authorization.kubernetes.io/autoupdate": "false"}
    assert list(plan(bootstrap_objects(BootstrapSettings()), objects.get)) == []


async def test_access_reviews_answer_and_malformed_ones_are_refused(default_roles: RBAC) -> None:
    reviews = AccessReviews(AuthorizerUnion([AlwaysAllowGroups(), default_roles]))
    request = Request("POST", "/", {}, {}, user=JANE)
    asked = authorization.ResourceAttributes(verb="get", resource="pods", namespace="ns")

    answer = await reviews.create_self_subject_access_review(
        request,
        authorization.SelfSubjectAccessReview(
            spec=authorization.SelfSubjectAccessReviewSpec(resource_attributes=asked)
        ),
    )
    assert answer.status == authorization.SubjectAccessReviewStatus(allowed=False)
    both = authorization.SelfSubjectAccessReviewSpec(
        resource_attributes=asked, non_resource_attributes=authorization.NonResourceAttributes(verb="get")
    )
    with pytest.raises(Invalid) as refused:
        await reviews.create_self_subject_access_review(request, authorization.SelfSubjectAccessReview(spec=both))
    assert refused.value.message == (
        '.authorization.k8s.io "" is invalid: spec.nonResourceAttributes: Invalid value: {"Path":"","Verb":"get"}:'
        " cannot be specified in combination with resourceAttributes"
    )
    rules_review = authorization.SelfSubjectRulesReview(spec=authorization.SelfSubjectRulesReviewSpec(namespace="ns"))
    listed = (await reviews.create_self_subject_rules_review(request, rules_review)).status
    assert listed.resource_rules is not None
    assert ["selfsubjectreviews"] in [rule.resources for rule in listed.resource_rules]
