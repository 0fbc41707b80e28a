"""Both plugins and what they know, put together.

The engine for expressions is imported when the first policy is bound, or the first webhook has conditions: a server
that has neither does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from haven.api.admissionregistration import v1
from haven.api.scheme import Resource
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import CONNECT, CREATE, DELETE, UPDATE, AdmissionRequest, Objects
from haven.apiserver.admission.policies.hooks import Hook, Hooks
from haven.apiserver.admission.policies.meter import PolicyMeter
from haven.apiserver.admission.versions import ServedVersions
from haven.apiserver.authorization.interface import Authorizer
from haven.apiserver.metrics import make_registry
from haven.metrics.families import Registry

if TYPE_CHECKING:
    from haven.apiserver.admission.policies.conditions import HookConditions
    from haven.apiserver.admission.policies.mutating import CompiledMutations, MutatingPolicies
    from haven.apiserver.admission.policies.validating import CompiledPolicy, ValidatingPolicies

__all__ = ["MutatingAdmissionPolicy", "PolicyAdmission", "ValidatingAdmissionPolicy", "WebhookConditions"]

_POLICIES = frozenset(
    GroupResource("admissionregistration.k8s.io", plural)
    for plural in (
        "mutatingadmissionpolicies", "mutatingadmissionpolicybindings", "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    )
)  # fmt: skip
P = TypeVar("P")
B = TypeVar("B")
E = TypeVar("E")
_REVIEWS = frozenset(
    {
        GroupResource("authentication.k8s.io", "selfsubjectreviews"),
        GroupResource("authentication.k8s.io", "tokenreviews"),
        GroupResource("authorization.k8s.io", "localsubjectaccessreviews"),
        GroupResource("authorization.k8s.io", "selfsubjectaccessreviews"),
        GroupResource("authorization.k8s.io", "selfsubjectrulesreviews"),
        GroupResource("authorization.k8s.io", "subjectaccessreviews"),
    }
)


def _about(hooks: Hooks[P, B, E], request: AdmissionRequest) -> tuple[Hook[P, B, E], ...]:
    """Return the policies that may look at a request: a mistake must not lock everybody out of the cluster."""
    found = hooks.all()
    if not found or request.resource.group_resource in _REVIEWS:
        return ()
    return hooks.fixed if request.resource.group_resource in _POLICIES else found


def _compile_validating(policy: v1.ValidatingAdmissionPolicy) -> CompiledPolicy:
    from haven.apiserver.admission.policies.validating import compile_policy

    return compile_policy(policy)


def _compile_mutating(policy: v1.MutatingAdmissionPolicy) -> CompiledMutations:
    from haven.apiserver.admission.policies.mutating import compile_mutations

    return compile_mutations(policy)


class ValidatingAdmissionPolicy:
    """Lets all ValidatingAdmissionPolicies bound to a request judge it."""

    name = "ValidatingAdmissionPolicy"
    resources: frozenset[GroupResource] | None = None

    def __init__(self, objects: Objects, versions: ServedVersions, authorizer: Authorizer, meter: PolicyMeter) -> None:
        self._meter = meter
        self.hooks: Hooks[v1.ValidatingAdmissionPolicy, v1.ValidatingAdmissionPolicyBinding, CompiledPolicy] = Hooks(
            v1.ValidatingAdmissionPolicy, v1.ValidatingAdmissionPolicyBinding, meter.compiling(_compile_validating)
        )
        self._knowledge = (objects, versions, authorizer)
        self._policies: ValidatingPolicies | None = None

    def handles(self, operation: str) -> bool:
        return operation in (CONNECT, CREATE, DELETE, UPDATE)

    def is_idle(self, request: AdmissionRequest) -> bool:
        return not _about(self.hooks, request)

    async def validate(self, request: AdmissionRequest) -> None:
        hooks = _about(self.hooks, request)
        if not hooks:
            return
        if self._policies is None:
            from haven.apiserver.admission.policies.params import StoredParameters
            from haven.apiserver.admission.policies.validating import ValidatingPolicies

            objects, versions, authorizer = self._knowledge
            self._policies = ValidatingPolicies(
                objects, versions, StoredParameters(objects, versions), authorizer, self._meter
            )
        await self._policies.judge(hooks, request)


class MutatingAdmissionPolicy:
    """Lets all MutatingAdmissionPolicies bound to a request change its object."""

    name = "MutatingAdmissionPolicy"
    resources: frozenset[GroupResource] | None = None

    def __init__(self, objects: Objects, versions: ServedVersions, authorizer: Authorizer, meter: PolicyMeter) -> None:
        self._meter = meter
        self.hooks: Hooks[v1.MutatingAdmissionPolicy, v1.MutatingAdmissionPolicyBinding, CompiledMutations] = Hooks(
            v1.MutatingAdmissionPolicy, v1.MutatingAdmissionPolicyBinding, meter.compiling(_compile_mutating)
        )
        self._knowledge = (objects, versions, authorizer)
        self._policies: MutatingPolicies | None = None

    def handles(self, operation: str) -> bool:
        return operation in (CONNECT, CREATE, UPDATE)

    def is_idle(self, request: AdmissionRequest) -> bool:
        return not _about(self.hooks, request)

    async def admit(self, request: AdmissionRequest) -> None:
        hooks = _about(self.hooks, request)
        if not hooks:
            return
        if self._policies is None:
            from haven.apiserver.admission.policies.mutating import MutatingPolicies
            from haven.apiserver.admission.policies.params import StoredParameters
            from haven.apiserver.admission.policies.patches import ServedSchemas

            objects, versions, authorizer = self._knowledge
            self._policies = MutatingPolicies(
                objects, versions, StoredParameters(objects, versions), ServedSchemas(versions), authorizer, self._meter
            )
        await self._policies.mutate(hooks, request)


class WebhookConditions:
    """Evaluates the match conditions of webhooks."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._conditions: HookConditions | None = None

    async def match(
        self,
        conditions: Sequence[v1.MatchCondition],
        request: AdmissionRequest,
        resource: Resource[Any],
        obj: Any,
        old: Any,
        *,
        fails_open: bool,
        told: Callable[[float, int], None] | None = None,
    ) -> bool:
        """Tell whether all conditions hold for the objects as `resource` shows them; raise ApiError."""
        if self._conditions is None:
            from haven.apiserver.admission.policies.conditions import HookConditions

            self._conditions = HookConditions(self._authorizer)
        return await self._conditions.match(conditions, request, resource, obj, old, fails_open=fails_open, told=told)


class PolicyAdmission:
    """The plugins, and the observers that keep them informed of policies and bindings."""

    def __init__(
        self,
        objects: Objects,
        versions: ServedVersions,
        authorizer: Authorizer,
        registry: Registry | None = None,
    ) -> None:
        meter = PolicyMeter(registry or make_registry())
        self.validating = ValidatingAdmissionPolicy(objects, versions, authorizer, meter)
        self.mutating = MutatingAdmissionPolicy(objects, versions, authorizer, meter)
        self.observers = (self.validating.hooks, self.mutating.hooks)
