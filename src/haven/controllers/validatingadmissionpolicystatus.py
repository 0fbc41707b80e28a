"""Check the expressions of ValidatingAdmissionPolicies against the schemas of the kinds they are about.

Mistakes found are warnings in the policy's status: an expression may be meant for a kind that does not exist yet.
Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from haven.api.admissionregistration import v1
from haven.api.apiextensions import v1 as apiextensions
from haven.api.scheme import GroupVersionKind, resource_of, table
from haven.apimachinery import facts, serialization
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.names import NamespacedName
from haven.client.interface import Patch, PatchType
from haven.controllers.actions import Change, Steps, Wiring, key_from

if TYPE_CHECKING:
    from haven.apimachinery.cel.schematypes import Declared

__all__ = ["ValidatingAdmissionPolicyStatusController", "expression_warnings"]

Tree = dict[str, Any]
MANAGER = "validatingadmissionpolicy-status"
_TYPES_MAX = 10
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_DEFINITION = "#/definitions/"


def expression_warnings(
    policy: v1.ValidatingAdmissionPolicy, definitions: Iterable[apiextensions.CustomResourceDefinition]
) -> list[v1.ExpressionWarning]:
    """Return what is wrong with each validation's expression and message expression, kind by kind."""
    from haven.api.admissionregistration.expressions import Expressions, Unusable, Uses

    custom = list(definitions)
    spec = policy.spec
    objects = [(kind, found) for kind in _kinds(policy, custom) if (found := _declared(kind, custom)) is not None]
    param_kind = _param_kind(spec.param_kind)
    params = _declared(param_kind, custom) if param_kind is not None else None
    uses = Uses(params=param_kind is not None)

    def checked(expression: str) -> str:
        complaints: list[str] = []
        for kind, declared in objects:
            expressions = Expressions(composed=True, object_=declared, params=params)
            for variable in spec.variables:
                try:
                    expressions.define(variable.name, variable.expression, uses)
                except Unusable:
                    continue  # It counts as of unknown type; what uses it may still be right.
            try:
                expressions.compile(expression, uses, None)
            except Unusable as error:
                text = str(error).removeprefix("compilation failed: ")
                complaints.append(f"{kind.group}/{kind.version}, Kind={kind.kind}: {text}\n")
        return "\n".join(complaints)

    warnings: list[v1.ExpressionWarning] = []
    for index, validation in enumerate(spec.validations):
        place = Path("spec", "validations").index(index)
        for name, text in (
            ("expression", validation.expression),
            ("messageExpression", validation.message_expression),
        ):
            complaint = checked(text) if text else ""
            if complaint:
                warnings.append(v1.ExpressionWarning(field_ref=str(place.child(name)), warning=complaint))
    return warnings


def _param_kind(kind: v1.ParamKind | None) -> GroupVersionKind | None:
    if kind is None or kind.api_version.count("/") > 1:
        return None
    group, _, version = kind.api_version.rpartition("/")
    return GroupVersionKind(group, version, kind.kind)


def _kinds(
    policy: v1.ValidatingAdmissionPolicy, custom: list[apiextensions.CustomResourceDefinition]
) -> list[GroupVersionKind]:
    """Return the kinds that the policy names outright, sorted; at most ten by rule."""
    constraints = policy.spec.match_constraints
    found: set[GroupVersionKind] = set()
    for rule in constraints.resource_rules if constraints is not None else ():
        if any("*" in text for text in (*rule.api_groups, *rule.api_versions)):
            continue
        count = 0
        for group in sorted(rule.api_groups):
            for version in sorted(rule.api_versions):
                for plural in sorted(rule.resources):
                    kind = _kind(group, version, plural, custom)
                    if kind is None:
                        continue
                    found.add(kind)
                    count += 1
                    if count == _TYPES_MAX:
                        return sorted(found)
    return sorted(found)


def _kind(
    group: str, version: str, plural: str, custom: list[apiextensions.CustomResourceDefinition]
) -> GroupVersionKind | None:
    if "*" in plural or "/" in plural:
        return None
    known = table().get((group, version, plural))  # type: ignore[call-overload]
    if known is not None:
        return GroupVersionKind(group, version, known.kind)
    for definition in custom:
        spec = definition.spec
        if (spec.group, spec.names.plural) == (group, plural) and any(
            one.name == version for one in spec.versions or ()
        ):
            return GroupVersionKind(group, version, spec.names.kind)
    return None


def _declared(kind: GroupVersionKind, custom: list[apiextensions.CustomResourceDefinition]) -> Declared | None:
    from haven.apimachinery.cel.schematypes import declared

    definition = facts.kinds().get(f"{kind.group}/{kind.version}/{kind.kind}")
    if definition is not None:
        schema: Tree | None = _resolved({"$ref": _DEFINITION + definition}, ())
    else:
        schema = _custom_schema(kind, custom)
    # Upstream's names end in a number, which keeps types of different checks apart.
    return declared(schema, f"{kind.kind}1", is_root=True) if schema is not None else None


def _custom_schema(kind: GroupVersionKind, custom: list[apiextensions.CustomResourceDefinition]) -> Tree | None:
    for definition in custom:
        if (definition.spec.group, definition.spec.names.kind) != (kind.group, kind.kind):
            continue
        for version in definition.spec.versions or ():
            if version.name == kind.version and version.schema is not None and version.schema.open_apiv3_schema:
                tree: Tree = serialization.to_tree(version.schema.open_apiv3_schema)
                return tree
    return None


def _resolved(schema: Tree, within: tuple[str, ...]) -> Tree:
    """Return a schema with its references filled in; what contains itself is left open."""
    reference = schema.get("$ref")
    if reference is not None:
        name = reference.removeprefix(_DEFINITION)
        if name in within or name == _QUANTITY:
            return {}
        return _resolved(facts.definitions()[name], (*within, name))
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: _resolved(sub, within) for name, sub in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            result[name] = _resolved(schema[name], within)
    return result


class ValidatingAdmissionPolicyStatusController:
    """Keys are policies whose newest generation has not been checked."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._policies = wiring.reader(v1.ValidatingAdmissionPolicy)
        self._definitions = wiring.reader(apiextensions.CustomResourceDefinition)
        self._policies.add_handler(self._changed)

    def _changed(self, old: v1.ValidatingAdmissionPolicy | None, new: v1.ValidatingAdmissionPolicy | None) -> None:
        if new is not None and new.metadata.generation > new.status.observed_generation:
            self._wiring.enqueue(key_from(new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        policy = self._policies.get(*key)
        if policy is None or policy.metadata.generation <= policy.status.observed_generation:
            return
        warnings = expression_warnings(policy, self._definitions.list())
        checking: Tree = {}
        if warnings:
            checking["expressionWarnings"] = [serialization.to_tree(warning) for warning in warnings]
        body = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": key.name},
            "status": {"observedGeneration": policy.metadata.generation, "typeChecking": checking},
        }
        patch = Patch(PatchType.APPLY, body, field_manager=MANAGER, force=True)
        yield Change(resource_of(v1.ValidatingAdmissionPolicy), "", key.name, patch, subresource="status")
