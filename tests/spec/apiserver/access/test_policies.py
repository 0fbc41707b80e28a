"""Admission policies judge and change requests as upstream's plugins do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from haven.api import scheme
from haven.api.admissionregistration import v1
from haven.api.apps import v1 as apps
from haven.api.authorization import v1 as authorization
from haven.api.autoscaling import v1 as autoscaling
from haven.api.core import v1 as core
from haven.apimachinery import apierrors, meta, serialization
from haven.apiserver.admission.interface import CREATE, AdmissionRequest
from haven.apiserver.admission.policies.plugins import PolicyAdmission, WebhookConditions
from haven.apiserver.admission.versions import ServedVersions
from haven.apiserver.authorization.interface import Attributes, Decision, Rules, Verdict
from haven.apiserver.request import UserInfo

CONFIG_MAPS = scheme.resource_of(core.ConfigMap)
NAMESPACES = scheme.resource_of(core.Namespace)


class Stored:
    """Objects in memory."""

    def __init__(self, *objects: Any) -> None:
        self._objects = {(obj.kind, obj.metadata.namespace, obj.metadata.name): obj for obj in objects}

    def get(self, resource: Any, namespace: str, name: str) -> Any:
        return self._objects.get((resource.kind, namespace, name))

    def list(self, resource: Any, namespace: str = "") -> Sequence[Any]:
        return [
            obj
            for (kind, where, _), obj in sorted(self._objects.items())
            if kind == resource.kind and namespace in ("", where)
        ]

    async def get_fresh(self, resource: Any, namespace: str, name: str) -> Any:
        return self.get(resource, namespace, name)

    async def update_status(self, resource: Any, obj: Any) -> Any:
        return obj


class OnlyReaders:
    """Lets everybody get, and nobody else."""

    def authorize(self, attributes: Attributes) -> Decision:
        return Decision(Verdict.ALLOW if attributes.verb == "get" else Verdict.NO_OPINION, "because")

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        return Rules()


class AskedOutside(OnlyReaders):
    """Knows nothing at once."""

    def authorize(self, attributes: Attributes) -> Decision:
        raise AssertionError("it has to be awaited")

    async def decide(self, attributes: Attributes) -> Decision:
        return OnlyReaders().authorize(attributes)


RULES = [
    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"], "scope": "*"}
]
CONSTRAINTS = {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": RULES}


def a_policy(kind: type[Any], **spec: Any) -> Any:
    tree = {"metadata": {"name": "p"}, "spec": {"failurePolicy": "Fail", "matchConstraints": CONSTRAINTS, **spec}}
    return serialization.convert(tree, kind)


def a_binding(kind: type[Any], **spec: Any) -> Any:
    return serialization.convert({"metadata": {"name": "b"}, "spec": {"policyName": "p", **spec}}, kind)


def admission(policy: Any, binding: Any, *objects: Any, authorizer: Any = None) -> PolicyAdmission:
    namespace = core.Namespace(metadata=meta.ObjectMeta(name="ns", labels={"team": "a"}))
    plugins = PolicyAdmission(Stored(namespace, *objects), ServedVersions(), authorizer or OnlyReaders())
    for obj in (policy, binding):
        resource = scheme.resource_of(type(obj))
        for observer in plugins.observers:
            if resource in observer.resources:
                observer.changed(resource, None, obj)
    return plugins


def a_request(name: str = "cm", **data: str) -> AdmissionRequest:
    obj = core.ConfigMap(metadata=meta.ObjectMeta(name=name, namespace="ns"), data=data)
    return AdmissionRequest(CREATE, CONFIG_MAPS, "", "ns", name, UserInfo("jane"), object=obj)


def validating(*validations: dict[str, Any], actions: Sequence[str] = ("Deny",), **spec: Any) -> PolicyAdmission:
    policy = a_policy(v1.ValidatingAdmissionPolicy, validations=list(validations), **spec)
    return admission(policy, a_binding(v1.ValidatingAdmissionPolicyBinding, validationActions=list(actions)))


async def judge(plugins: PolicyAdmission, request: AdmissionRequest) -> None:
    await plugins.validating.validate(request)  # type: ignore[attr-defined]


async def mutate(plugins: PolicyAdmission, request: AdmissionRequest) -> None:
    await plugins.mutating.admit(request)  # type: ignore[attr-defined]


async def test_a_denial_carries_the_policys_message_reason_and_code() -> None:
    plugins = validating({"expression": "!('bad' in object.data)", "message": "no bad", "reason": "Forbidden"})

    with pytest.raises(apierrors.ApiError) as caught:
        await judge(plugins, a_request(bad="1"))

    said = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no bad"
    status = caught.value.status()
    assert (status.code, status.reason) == (403, "Forbidden")
    assert status.message == f'configmaps "cm" is forbidden: {said}'
    assert status.details is not None
    assert [cause.message for cause in status.details.causes or ()] == [said]


async def test_what_the_rules_do_not_name_is_not_judged() -> None:
    plugins = validating({"expression": "false"})
    request = a_request()
    request.operation = "UPDATE"

    await judge(plugins, request)


async def test_a_computed_message_sees_variables_the_namespace_and_the_request() -> None:
    text = "variables.n + ' of ' + namespaceObject.metadata.labels.team + ' by ' + request.userInfo.username"
    plugins = validating(
        {"expression": "false", "messageExpression": text},
        variables=[{"name": "n", "expression": "object.metadata.name"}],
    )

    with pytest.raises(apierrors.ApiError, match="denied request: cm of a by jane"):
        await judge(plugins, a_request())


async def test_warnings_and_audit_annotations_let_the_request_pass() -> None:
    plugins = validating(
        {"expression": "false"},
        actions=("Warn", "Audit"),
        auditAnnotations=[{"key": "k", "valueExpression": "string(object.metadata.name)"}],
    )
    request = a_request()

    await judge(plugins, request)

    text = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed expression: false"
    assert request.warnings == [text]
    assert request.audit_annotations["p/k"] == "cm"
    assert request.audit_annotations["validation.policy.admission.k8s.io/validation_failure"] == (
        '[{"message":"failed expression: false","policy":"p","binding":"b","expressionIndex":0,'
        '"validationActions":["Warn","Audit"]}]'
    )


async def test_an_expression_that_fails_counts_as_the_failure_policy_says() -> None:
    failing = {"expression": "object.data.nope == 'x'"}

    await judge(validating(failing, failurePolicy="Ignore"), a_request())
    with pytest.raises(apierrors.ApiError, match="'' resulted in error: no such key: nope"):
        await judge(validating(failing), a_request(k="v"))


async def test_a_condition_that_does_not_hold_leaves_the_request_alone() -> None:
    plugins = validating(
        {"expression": "false"}, matchConditions=[{"name": "c", "expression": "'check' in object.data"}]
    )

    await judge(plugins, a_request(other="1"))
    with pytest.raises(apierrors.ApiError):
        await judge(plugins, a_request(check="1"))


async def test_parameters_are_taken_one_after_the_other() -> None:
    policy = a_policy(
        v1.ValidatingAdmissionPolicy,
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        validations=[{"expression": "object.metadata.name != params.data.not"}],
    )
    selector = {"matchLabels": {"is": "param"}}
    binding = a_binding(
        v1.ValidatingAdmissionPolicyBinding,
        validationActions=["Deny"],
        paramRef={"selector": selector, "parameterNotFoundAction": "Deny"},
    )
    params = [
        core.ConfigMap(metadata=meta.ObjectMeta(name=name, namespace="ns", labels={"is": "param"}), data={"not": name})
        for name in ("one", "two")
    ]
    plugins = admission(policy, binding, *params)
    plugins_without = admission(policy, binding)
    _serve_config_maps(plugins, plugins_without)

    await judge(plugins, a_request("three"))
    with pytest.raises(apierrors.ApiError):
        await judge(plugins, a_request("two"))
    with pytest.raises(apierrors.ApiError, match="no params found for policy binding with `Deny`"):
        await judge(plugins_without, a_request("three"))


class _Endpoint:
    """Only what parameters ask of one."""

    resource = CONFIG_MAPS
    view = None

    @property
    def storage(self) -> _Endpoint:
        return self

    def subresource(self, name: str) -> None:
        return None


def _serve_config_maps(*admissions: PolicyAdmission) -> None:
    for each in admissions:
        versions = each.validating._knowledge[1]  # type: ignore[attr-defined]
        versions.endpoints = {("", "v1", "configmaps"): _Endpoint()}
        versions.show = _shown


async def _shown(obj: Any, resource: Any, subresource: str) -> Any:
    return obj


@pytest.mark.parametrize("authorizer", [OnlyReaders(), AskedOutside()])
async def test_expressions_ask_the_authorizer_also_one_that_asks_others(authorizer: Any) -> None:
    check = "authorizer.group('').resource('configmaps').namespace('ns').check('{}').allowed()"
    policy = a_policy(
        v1.ValidatingAdmissionPolicy,
        validations=[{"expression": f"{check.format('get')} && !{check.format('create')}"}],
    )
    binding = a_binding(v1.ValidatingAdmissionPolicyBinding, validationActions=["Deny"])

    await judge(admission(policy, binding, authorizer=authorizer), a_request())


def mutating(*mutations: dict[str, Any], **spec: Any) -> PolicyAdmission:
    policy = a_policy(v1.MutatingAdmissionPolicy, mutations=list(mutations), **{"reinvocationPolicy": "Never", **spec})
    return admission(policy, a_binding(v1.MutatingAdmissionPolicyBinding))


def applied(expression: str) -> dict[str, Any]:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patched(expression: str) -> dict[str, Any]:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


async def test_mutations_build_on_each_other() -> None:
    plugins = mutating(
        applied("Object{metadata: Object.metadata{labels: {'a': object.metadata.name}}}"),
        patched("[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('x'), value: object.metadata.labels.a}]"),
    )
    request = a_request(k="v")

    await mutate(plugins, request)

    assert request.object.metadata.labels == {"a": "cm"}
    assert request.object.data == {"k": "v", "x": "cm"}
    assert request.reinvocation.is_wanted


async def test_a_patch_whose_test_does_not_hold_changes_nothing() -> None:
    plugins = mutating(
        patched(
            "[JSONPatch{op: 'test', path: '/metadata/name', value: 'other'}, "
            "JSONPatch{op: 'add', path: '/data', value: {'no': 'no'}}]"
        )
    )
    request = a_request(k="v")

    await mutate(plugins, request)

    assert request.object.data == {"k": "v"}
    assert not request.reinvocation.is_wanted


@pytest.mark.parametrize(
    ("mutation", "why"),
    [
        (
            applied("Object{metadata: Object.spec{labels: {'a': 'b'}}}"),
            'type mismatch: unexpected type name "Object.spec", expected "Object.metadata", '
            "which matches field name path from root Object type",
        ),
        (
            applied("Object{nope: 1}"),
            "error applying patch: failed to convert patch object to typed object: .nope: field not declared in schema",
        ),
        (
            patched("[JSONPatch{op: 'remove', path: '/data/nope'}]"),
            "JSON Patch: error in remove for path: '/data/nope': Unable to remove nonexistent key: nope: missing value",
        ),
    ],
)
async def test_a_mutation_that_cannot_be_applied_refuses_the_request(mutation: dict[str, Any], why: str) -> None:
    with pytest.raises(apierrors.ApiError) as caught:
        await mutate(mutating(mutation), a_request(k="v"))

    assert caught.value.message == f"policy 'p' with binding 'b' denied request: {why}"
    await mutate(mutating(mutation, failurePolicy="Ignore"), a_request(k="v"))


async def test_values_of_patches_are_what_json_makes_of_them() -> None:
    members = {"b": "b'abc'", "d": "duration('1s')", "t": "timestamp('2020-01-01T00:00:00Z')", "o": "optional.of('x')"}
    value = "{" + ", ".join(f"'{name}': dyn({text})" for name, text in members.items()) + "}"
    request = a_request()

    await mutate(mutating(patched(f"[JSONPatch{{op: 'add', path: '/data', value: {value}}}]")), request)

    assert request.object.data == {"b": "YWJj", "d": "1s", "t": "2020-01-01T00:00:00Z", "o": "x"}


@pytest.mark.parametrize("failure_policy", ["Fail", "Ignore"])
async def test_a_patch_to_what_is_no_object_of_its_kind_is_an_internal_error(failure_policy: str) -> None:
    mutation = patched("[JSONPatch{op: 'add', path: '/foo', value: 5}]")

    with pytest.raises(apierrors.InternalError) as caught:
        await mutate(mutating(mutation, failurePolicy=failure_policy), a_request())

    assert caught.value.message == 'Internal error occurred: strict decoding error: unknown field "foo"'


async def test_scales_and_connections_have_no_schema_that_a_configuration_could_follow() -> None:
    scale = autoscaling.Scale(metadata=meta.ObjectMeta(name="d", namespace="ns"))
    rules = [{**RULES[0], "apiGroups": ["apps"], "resources": ["deployments/scale"]}]
    plugins = mutating(
        applied("Object{spec: Object.spec{replicas: 5}}"), matchConstraints={**CONSTRAINTS, "resourceRules": rules}
    )
    deployments = scheme.resource_of(apps.Deployment)

    with pytest.raises(apierrors.Forbidden, match="no corresponding type for autoscaling/v1, Kind=Scale"):
        await mutate(plugins, AdmissionRequest(CREATE, deployments, "scale", "ns", "d", UserInfo("jane"), object=scale))


async def test_in_the_second_round_only_those_run_that_want_to_see_changes() -> None:
    count = applied("Object{metadata: Object.metadata{labels: {'n': 'x' + object.metadata.?labels.?n.orValue('')}}}")
    never, if_needed = mutating(count), mutating(count, reinvocationPolicy="IfNeeded")

    for plugins, expected in ((never, "x"), (if_needed, "xx")):
        request = a_request()
        await mutate(plugins, request)
        request.object.data = {"changed": "by another plugin"}
        request.reinvocation.is_second_round = True
        await mutate(plugins, request)
        assert request.object.metadata.labels["n"] == expected


async def test_conditions_of_webhooks_are_evaluated() -> None:
    conditions = WebhookConditions(OnlyReaders())
    request = a_request(k="v")

    async def match(*expressions: str, fails_open: bool = False) -> bool:
        named = [v1.MatchCondition(name=f"c{index}", expression=text) for index, text in enumerate(expressions)]
        return await conditions.match(named, request, CONFIG_MAPS, request.object, None, fails_open=fails_open)

    assert await match("object.data.k == 'v'", "request.operation == 'CREATE'")
    assert not await match("object.data.nope == 'v'", "false")
    assert not await match("object.data.nope == 'v'", fails_open=True)
    with pytest.raises(apierrors.Forbidden, match="resulted in error: no such key: nope"):
        await match("object.data.nope == 'v'", "true")


async def test_no_policy_can_forbid_reviews_or_changes_of_policies() -> None:
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"], "scope": "*"}
    plugins = validating({"expression": "false"}, matchConstraints={**CONSTRAINTS, "resourceRules": [everything]})

    for resource in (
        scheme.resource_of(v1.ValidatingAdmissionPolicyBinding),
        scheme.resource_of(authorization.SubjectAccessReview),
    ):
        await judge(
            plugins, AdmissionRequest(CREATE, resource, "", "", "x", UserInfo("jane"), object=a_request().object)
        )
    with pytest.raises(apierrors.ApiError):
        await judge(plugins, a_request())


async def test_policies_judge_the_configurations_of_webhooks() -> None:
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"], "scope": "*"}
    plugins = validating({"expression": "false"}, matchConstraints={**CONSTRAINTS, "resourceRules": [everything]})
    webhooks = v1.ValidatingWebhookConfiguration(metadata=meta.ObjectMeta(name="x"))
    resource = scheme.resource_of(v1.ValidatingWebhookConfiguration)

    with pytest.raises(apierrors.ApiError):
        await judge(plugins, AdmissionRequest(CREATE, resource, "", "", "x", UserInfo("jane"), object=webhooks))
