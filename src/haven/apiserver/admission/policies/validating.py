"""ValidatingAdmissionPolicy: expressions that judge the final object.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import orjson

from haven.api.admissionregistration import expressions, v1
from haven.api.core import v1 as core
from haven.api.scheme import Resource
from haven.apimachinery import apierrors, meta
from haven.apimachinery.cel.types import Type
from haven.apiserver.admission.interface import AdmissionRequest, Objects, forbidden
from haven.apiserver.admission.policies.conditions import ConditionFailure, hold
from haven.apiserver.admission.policies.hooks import Hook
from haven.apiserver.admission.policies.meter import PolicyMeter
from haven.apiserver.admission.policies.params import Misconfigured, Parameters
from haven.apiserver.admission.policies.selection import selected
from haven.apiserver.admission.policies.situation import (
    BUDGET,
    Compiled,
    OutOfBudget,
    Questions,
    Result,
    Situation,
    Tree,
    compiled_one,
    defined,
    namespace_of,
)
from haven.apiserver.admission.versions import Versions
from haven.apiserver.authorization.interface import Authorizer

__all__ = ["CompiledPolicy", "ValidatingPolicies", "compile_policy"]

_AUDIT_VALUE_MAX = 10 * 1024
_MESSAGE_MAX = 5 * 1024
_FAILURE_KEY = "validation.policy.admission.k8s.io/validation_failure"
_CODES = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413, "Invalid": 422}


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy's expressions, ready to be evaluated."""

    variables: dict[str, Compiled]
    conditions: tuple[Compiled, ...]
    validations: tuple[Compiled, ...]
    messages: tuple[Compiled | None, ...]
    audit_values: tuple[Compiled, ...]


@dataclass(slots=True)
class _Decision:
    """One reason to refuse a request. An empty `reason` is Invalid."""

    message: str
    reason: str = ""
    index: int = 0


@dataclass(slots=True)
class _Outcome:
    """What a policy says about a request with one parameter."""

    denials: list[_Decision] = field(default_factory=list)
    ignored: list[_Decision] = field(default_factory=list)
    """What could not be evaluated and is let pass, as the policy says."""
    annotations: list[tuple[str, str]] = field(default_factory=list)
    annotation_failures: list[_Decision] = field(default_factory=list)


def compile_policy(policy: v1.ValidatingAdmissionPolicy) -> CompiledPolicy:
    """Return the policy's programs; an expression that does not compile fails when it is evaluated."""
    spec = policy.spec
    known = expressions.Expressions(composed=True)
    uses = expressions.Uses(params=spec.param_kind is not None)
    plain = expressions.Uses(params=spec.param_kind is not None, authorizer=False)
    variables = {one.name: defined(known, one, uses) for one in spec.variables}

    def compiled(texts: Iterable[str], allowed: expressions.Uses, returns: tuple[Type, ...]) -> tuple[Compiled, ...]:
        return tuple(compiled_one(known, text, allowed, returns) for text in texts)

    return CompiledPolicy(
        variables,
        compiled((one.expression for one in spec.match_conditions), uses, expressions.BOOL),
        compiled((one.expression for one in spec.validations), uses, expressions.BOOL),
        tuple(
            compiled_one(known, one.message_expression, plain, expressions.STRING) if one.message_expression else None
            for one in spec.validations
        ),
        compiled((one.value_expression for one in spec.audit_annotations), uses, expressions.STRING_OR_NULL),
    )


_Hook = Hook[v1.ValidatingAdmissionPolicy, v1.ValidatingAdmissionPolicyBinding, CompiledPolicy]


class PolicyDenial(apierrors.ApiError):
    """A policy forbids the request. Change what its message names."""


class ValidatingPolicies:
    """Evaluates all policies bound to a request."""

    def __init__(
        self,
        objects: Objects,
        versions: Versions,
        parameters: Parameters,
        authorizer: Authorizer,
        meter: PolicyMeter,
    ) -> None:
        self._meter = meter
        self._objects = objects
        self._versions = versions
        self._parameters = parameters
        self._authorizer = authorizer

    async def judge(self, hooks: Sequence[_Hook], request: AdmissionRequest) -> None:
        """Refuse the request if a policy denies it; pass on what policies say to clients and to the audit log."""
        refusals: list[str] = []
        reasons: list[str] = []
        questions = Questions(self._authorizer, request.user)
        for hook in hooks:
            for text, decision in await self._judged(hook, request, questions):
                refusals.append(f"ValidatingAdmissionPolicy '{hook.policy.metadata.name}' {text}: {decision.message}")
                reasons.append(decision.reason or "Invalid")
        if refusals:
            raise _denial(request, refusals[0], reasons[0])

    async def _judged(
        self, hook: _Hook, request: AdmissionRequest, questions: Questions
    ) -> list[tuple[str, _Decision]]:
        """Return (who denied, why) of every refusal by one policy."""
        spec = hook.policy.spec
        fails_open = spec.failure_policy == "Ignore"
        try:
            resource = selected(spec.match_constraints, request, self._objects, self._versions)
            if resource is None:
                return []
            if spec.param_kind is not None:
                self._parameters.resource(spec.param_kind)
        except Misconfigured as error:
            return [] if fails_open else [("denied request", _Decision(f"failed to configure policy: {error}"))]
        denials: list[tuple[str, _Decision]] = []
        annotations: dict[str, list[str]] = {}
        situation: Situation | None = None
        for binding in hook.bindings:
            who = f"with binding '{binding.metadata.name}' denied request"
            try:
                if selected(binding.spec.match_resources, request, self._objects, self._versions) is None:
                    continue
                params = await self._parameters.collect(spec.param_kind, binding.spec.param_ref, request.namespace)
            except Misconfigured as error:
                if not fails_open:
                    denials.append((who, _Decision(f"failed to configure binding: {error}")))
                continue
            namespace = namespace_of(request, self._objects)
            if situation is None and params:
                situation = await self._situation(request, resource, namespace, questions)
            for param in params:
                assert situation is not None
                began = perf_counter()
                outcome = await self._outcome(hook, situation, param, questions)
                self._measure(hook, binding, outcome, perf_counter() - began)
                self._act(hook, binding, outcome, request, denials, annotations)
        for key, values in annotations.items():
            request.audit_annotations.setdefault(f"{hook.policy.metadata.name}/{key}", ", ".join(values))
        return denials

    def _measure(
        self, hook: _Hook, binding: v1.ValidatingAdmissionPolicyBinding, outcome: _Outcome, seconds: float
    ) -> None:
        self._meter.evaluated(seconds)
        for denial in outcome.denials:
            each = seconds / len(outcome.denials)
            for action in binding.spec.validation_actions:
                self._meter.checked(hook.policy.metadata.name, binding.metadata.name, action, denial.message, each)
        for action, found in (("Allow", outcome.ignored), ("Deny", outcome.annotation_failures)):
            for one in found:
                self._meter.checked(hook.policy.metadata.name, binding.metadata.name, action, one.message, seconds)

    async def _situation(
        self,
        request: AdmissionRequest,
        resource: Resource[Any],
        namespace: core.Namespace | None,
        questions: Questions,
    ) -> Situation:
        obj = await self._versions.show(request.object, resource, request.subresource)
        old = await self._versions.show(request.old, resource, request.subresource)
        return Situation(request, resource, obj, old, namespace, questions)

    async def _outcome(self, hook: _Hook, situation: Situation, param: Tree | None, questions: Questions) -> _Outcome:
        told = self._meter.condition(hook.policy.metadata.name, situation.operation)
        return await questions.settled(lambda: _evaluated(hook.policy.spec, hook.evaluator, situation, param, told))

    def _act(
        self,
        hook: _Hook,
        binding: v1.ValidatingAdmissionPolicyBinding,
        outcome: _Outcome,
        request: AdmissionRequest,
        denials: list[tuple[str, _Decision]],
        annotations: dict[str, list[str]],
    ) -> None:
        name = binding.metadata.name
        who = f"with binding '{name}' denied request"
        for decision in outcome.denials:
            for action in binding.spec.validation_actions:
                if action == "Deny":
                    denials.append((who, decision))
                elif action == "Audit":
                    value = _failure_annotation(binding, decision)
                    request.audit_annotations.setdefault(_FAILURE_KEY, value)
                elif action == "Warn":
                    policy = hook.policy.metadata.name
                    request.warnings.append(
                        f"Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{name}': "
                        f"{decision.message}"
                    )
        denials.extend((who, failure) for failure in outcome.annotation_failures)
        for key, value in outcome.annotations:
            values = annotations.setdefault(key, [])
            if value not in values:
                values.append(value)


def _failure_annotation(binding: v1.ValidatingAdmissionPolicyBinding, decision: _Decision) -> str:
    value = {
        "message": decision.message,
        "policy": binding.spec.policy_name,
        "binding": binding.metadata.name,
        "expressionIndex": decision.index,
        "validationActions": binding.spec.validation_actions,
    }
    return orjson.dumps([value]).decode()


def _denial(request: AdmissionRequest, message: str, reason: str) -> apierrors.ApiError:
    said = forbidden(request, message)
    details = said.details or meta.StatusDetails()
    details.causes = [*(details.causes or []), meta.StatusCause(message=message)]
    error = PolicyDenial(said.message, details)
    error.reason = reason
    error.code = _CODES.get(reason, 422)
    return error


def _evaluated(
    spec: v1.ValidatingAdmissionPolicySpec,
    compiled: CompiledPolicy,
    situation: Situation,
    param: Tree | None,
    told: Callable[[float, int], None],
) -> _Outcome:
    """Evaluate all expressions of a policy for one parameter."""
    fails_open = spec.failure_policy == "Ignore"
    failed = _Outcome()
    outcome = _Outcome()
    try:
        if compiled.conditions and not hold(
            compiled.conditions, compiled.variables, situation, param, fails_open=fails_open, told=told
        ):
            return outcome
        results, budget = situation.evaluate(compiled.validations, compiled.variables, param, BUDGET)
    except (ConditionFailure, OutOfBudget) as error:
        (failed.ignored if fails_open else failed.denials).append(_Decision(str(error)))
        return failed
    messages: Sequence[Result] = ()
    out_of_budget = ""
    try:
        messages, _ = situation.evaluate(compiled.messages, compiled.variables, param, budget)
    except OutOfBudget as error:
        out_of_budget = f"failed messageExpression: {error}"
    for index, (validation, result) in enumerate(zip(spec.validations, results, strict=True)):
        problem = result.failure or out_of_budget
        if problem:
            (outcome.ignored if fails_open else outcome.denials).append(_Decision(problem, index=index))
        elif result.value is not True:
            message = _message(validation, messages[index] if index < len(messages) else Result())
            outcome.denials.append(_Decision(message, validation.reason or "Invalid", index))
    try:
        values, _ = situation.evaluate(compiled.audit_values, compiled.variables, param, BUDGET)
    except OutOfBudget as error:
        (failed.ignored if fails_open else failed.denials).append(_Decision(str(error)))
        return failed
    for annotation, result in zip(spec.audit_annotations, values, strict=True):
        _annotate(annotation, result, outcome, fails_open=fails_open)
    return outcome


def _message(validation: v1.Validation, computed: Result) -> str:
    message = computed.value.strip() if computed.failure is None and isinstance(computed.value, str) else ""
    if len(message.encode()) > _MESSAGE_MAX or "\n" in message:
        message = ""
    return message or validation.message.strip() or f"failed expression: {validation.expression.strip()}"


def _annotate(annotation: v1.AuditAnnotation, result: Result, outcome: _Outcome, *, fails_open: bool) -> None:
    if result.failure is not None:
        if not fails_open:
            outcome.annotation_failures.append(_Decision(result.failure))
        return
    if isinstance(result.value, str) and result.value.strip():
        value = result.value.strip().encode()[:_AUDIT_VALUE_MAX].decode(errors="ignore")
        outcome.annotations.append((annotation.key, value))
