"""MutatingAdmissionPolicy: expressions that change objects, one policy after the other.

Each sees what those before it made. When one changes the object, admission is gone through once more, in which policies
that say reinvocationPolicy: IfNeeded, and have seen an older state, are evaluated again.
Source: https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from haven.api.admissionregistration import expressions, v1
from haven.api.core import v1 as core
from haven.api.scheme import Resource, subresource_kind
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.goformat import quote
from haven.apimachinery.schema import Schema, check, schema_for
from haven.apiserver.admission.interface import AdmissionRequest, Objects, forbidden
from haven.apiserver.admission.policies.conditions import ConditionFailure, hold
from haven.apiserver.admission.policies.hooks import Hook
from haven.apiserver.admission.policies.meter import PolicyMeter
from haven.apiserver.admission.policies.params import Misconfigured, Parameters
from haven.apiserver.admission.policies.patches import (
    PatchFailure,
    Schemas,
    apply_configuration,
    apply_json_patch,
)
from haven.apiserver.admission.policies.selection import selected
from haven.apiserver.admission.policies.situation import (
    BUDGET,
    Compiled,
    OutOfBudget,
    Questions,
    Situation,
    Tree,
    compiled_one,
    defined,
    namespace_of,
)
from haven.apiserver.admission.versions import Versions
from haven.apiserver.authorization.interface import Authorizer

__all__ = ["CompiledMutations", "MutatingPolicies", "compile_mutations"]

_NAME = "MutatingAdmissionPolicy"


@dataclass(frozen=True, slots=True)
class CompiledMutations:
    """A policy's expressions, ready to be evaluated."""

    variables: dict[str, Compiled]
    conditions: tuple[Compiled, ...]
    mutations: tuple[Compiled, ...]


def compile_mutations(policy: v1.MutatingAdmissionPolicy) -> CompiledMutations:
    """Return the policy's programs; an expression that does not compile fails when it is evaluated."""
    spec = policy.spec
    known = expressions.Expressions(composed=True)
    uses = expressions.Uses(params=spec.param_kind is not None)
    patches = expressions.Uses(params=spec.param_kind is not None, patches=True)
    variables = {one.name: defined(known, one, uses) for one in spec.variables}

    def mutation(one: v1.Mutation) -> Compiled:
        if one.json_patch is not None:
            text, returns = one.json_patch.expression, expressions.JSON_PATCHES
        else:
            assert one.apply_configuration is not None
            text, returns = one.apply_configuration.expression, expressions.APPLY_CONFIGURATION
        return compiled_one(known, text, patches, returns)

    conditions = tuple(compiled_one(known, one.expression, uses, expressions.BOOL) for one in spec.match_conditions)
    return CompiledMutations(variables, conditions, tuple(map(mutation, spec.mutations)))


_Hook = Hook[v1.MutatingAdmissionPolicy, v1.MutatingAdmissionPolicyBinding, CompiledMutations]
_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Rounds:
    """Who has seen what, over both rounds."""

    outdated: set[_Key] = field(default_factory=set)
    """Those that want to see changes and have been evaluated since the last one."""
    asked_again: set[_Key] = field(default_factory=set)
    output: bytes = b""

    def changed(self) -> None:
        self.asked_again |= self.outdated
        self.outdated.clear()


@dataclass(frozen=True, slots=True)
class _Invocation:
    """A policy to be evaluated with one binding and parameter."""

    hook: _Hook
    binding: v1.MutatingAdmissionPolicyBinding
    resource: Resource[Any]
    param: Tree | None

    @property
    def key(self) -> _Key:
        about = (self.param or {}).get("metadata") or {}
        names = (self.hook.policy.metadata.name, self.binding.metadata.name)
        return (*names, about.get("namespace", ""), about.get("name", ""))


@dataclass(frozen=True, slots=True)
class _Refusal:
    text: str
    reason: str = ""


class MutatingPolicies:
    """Lets all policies bound to a request change its object."""

    def __init__(
        self,
        objects: Objects,
        versions: Versions,
        parameters: Parameters,
        schemas: Schemas,
        authorizer: Authorizer,
        meter: PolicyMeter,
    ) -> None:
        self._meter = meter
        self._objects = objects
        self._versions = versions
        self._parameters = parameters
        self._schemas = schemas
        self._authorizer = authorizer

    async def mutate(self, hooks: Sequence[_Hook], request: AdmissionRequest) -> None:
        """Change the request's object, or refuse."""
        refusals: list[_Refusal] = []
        invocations: list[_Invocation] = []
        for hook in hooks:
            await self._collect(hook, request, invocations, refusals)
        if invocations:
            await self._run(invocations, request, refusals)
        if refusals:
            raise _denial(request, refusals)

    async def _collect(
        self, hook: _Hook, request: AdmissionRequest, invocations: list[_Invocation], refusals: list[_Refusal]
    ) -> None:
        spec, name = hook.policy.spec, hook.policy.metadata.name
        fails_open = spec.failure_policy == "Ignore"
        try:
            resource = selected(spec.match_constraints, request, self._objects, self._versions)
            if resource is None:
                return
            if spec.param_kind is not None:
                self._parameters.resource(spec.param_kind)
        except Misconfigured as error:
            if not fails_open:
                refusals.append(_Refusal(f"policy {quote(name)} denied request: failed to configure policy: {error}"))
            return
        for binding in hook.bindings:
            try:
                if selected(binding.spec.match_resources, request, self._objects, self._versions) is None:
                    continue
                params = await self._parameters.collect(spec.param_kind, binding.spec.param_ref, request.namespace)
            except Misconfigured as error:
                if not fails_open:
                    why = f"failed to configure binding: {error}"
                    refusals.append(_Refusal(_said(name, binding.metadata.name, why)))
                continue
            invocations += [_Invocation(hook, binding, resource, param) for param in params]

    async def _run(self, invocations: list[_Invocation], request: AdmissionRequest, refusals: list[_Refusal]) -> None:
        rounds: _Rounds = request.reinvocation.values.setdefault(_NAME, _Rounds())
        if request.reinvocation.is_second_round and rounds.output != serialization.encode(request.object):
            rounds.changed()  # Other plugins have changed the object since.
        namespace = namespace_of(request, self._objects)
        questions = Questions(self._authorizer, request.user)
        try:
            for invocation in invocations:
                await self._invoke(invocation, request, rounds, namespace, questions, refusals)
        finally:
            rounds.output = serialization.encode(request.object)

    async def _invoke(
        self,
        invocation: _Invocation,
        request: AdmissionRequest,
        rounds: _Rounds,
        namespace: core.Namespace | None,
        questions: Questions,
        refusals: list[_Refusal],
    ) -> None:
        policy, compiled = invocation.hook.policy, invocation.hook.evaluator
        fails_open = policy.spec.failure_policy == "Ignore"

        def refuse(error: Exception) -> None:
            if not fails_open:
                said = _said(policy.metadata.name, invocation.binding.metadata.name, str(error))
                refusals.append(_Refusal(said, "Invalid"))

        if compiled.conditions:
            seen = await self._situation(invocation, request, None, questions)
            try:
                if not await questions.settled(
                    lambda: hold(
                        compiled.conditions,
                        compiled.variables,
                        seen,
                        invocation.param,
                        fails_open=fails_open,
                        told=self._meter.condition(policy.metadata.name, request.operation),
                    )
                ):
                    return
            except ConditionFailure as error:
                refuse(error)
                return
        key = invocation.key
        if request.reinvocation.is_second_round and key not in rounds.asked_again:
            return
        before = serialization.encode(request.object)
        for mutation, expression in zip(policy.spec.mutations, compiled.mutations, strict=True):
            if request.object is None:
                continue
            began, error_type = perf_counter(), "no_error"
            try:
                await self._mutate(invocation, mutation, expression, request, namespace, questions)
            except (PatchFailure, OutOfBudget) as error:
                error_type = "out_of_budget" if isinstance(error, OutOfBudget) else "invalid_error"
                refuse(error)
            self._meter.mutated(
                policy.metadata.name, invocation.binding.metadata.name, error_type, perf_counter() - began
            )
        if serialization.encode(request.object) != before:
            rounds.changed()
            request.reinvocation.is_wanted = True
        if policy.spec.reinvocation_policy == "IfNeeded":
            rounds.outdated.add(key)

    async def _situation(
        self,
        invocation: _Invocation,
        request: AdmissionRequest,
        namespace: core.Namespace | None,
        questions: Questions,
    ) -> Situation:
        resource = invocation.resource
        obj = await self._versions.show(request.object, resource, request.subresource)
        old = await self._versions.show(request.old, resource, request.subresource)
        return Situation(request, resource, obj, old, namespace, questions)

    async def _mutate(
        self,
        invocation: _Invocation,
        mutation: v1.Mutation,
        expression: Compiled,
        request: AdmissionRequest,
        namespace: core.Namespace | None,
        questions: Questions,
    ) -> None:
        if expression.program is None:
            raise PatchFailure(expression.failure)
        resource = invocation.resource
        situation = await self._situation(invocation, request, namespace, questions)
        variables = invocation.hook.evaluator.variables
        results, _ = await questions.settled(
            lambda: situation.evaluate([expression], variables, invocation.param, BUDGET)
        )
        result = results[0]
        if result.failure is not None:
            raise PatchFailure(result.failure)
        shown = await self._versions.show(request.object, resource, request.subresource)
        tree: Tree = serialization.decode_tree(serialization.encode(shown))
        if mutation.patch_type == "JSONPatch":
            patched = apply_json_patch(tree, result.value)
            if patched is None:
                return  # A test of the patch does not hold: there is nothing to change.
            known = schema_for(*subresource_kind(resource, request.subresource))
            if known is not None:
                _check_fields(patched, known)
        else:
            patched = apply_configuration(tree, result.value, self._schemas.of(resource, request.subresource))
        request.object = await self._versions.take(patched, resource, request)


def _check_fields(tree: Tree, schema: Schema) -> None:
    """Refuse a patched tree that is no object of its kind, whatever the failure policy."""
    findings = check(tree, schema, None)
    if findings.error is not None:
        raise apierrors.InternalError.because(findings.error)
    if findings.strict:
        raise apierrors.InternalError.because(f"strict decoding error: {', '.join(findings.strict)}")


def _said(policy: str, binding: str, why: str) -> str:
    return f"policy '{policy}' with binding '{binding}' denied request: {why}"


def _denial(request: AdmissionRequest, refusals: list[_Refusal]) -> apierrors.ApiError:
    error = forbidden(request, "admission request denied by policy")
    details = error.details or meta.StatusDetails()
    details.causes = [*(details.causes or []), *(meta.StatusCause(message=one.text) for one in refusals)]
    denial = apierrors.Forbidden(refusals[0].text, details)
    if refusals[0].reason:
        denial.reason = refusals[0].reason
    return denial
