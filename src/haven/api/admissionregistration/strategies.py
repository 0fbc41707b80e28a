"""Admission webhooks and policies, and their bindings: defaults, what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/reference/access-authn-authz/ and the behaviour of pkg/apis/admissionregistration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from haven.api.admissionregistration import v1
from haven.api.admissionregistration.expressionchecks import PolicyExpressions
from haven.api.admissionregistration.rules import (
    FAILURE_POLICIES,
    MATCH_POLICIES,
    REINVOCATION_POLICIES,
    default_match_resources,
    default_rules,
    validate_match_conditions,
    validate_match_resources,
    validate_rule,
)
from haven.api.core.validation.metadata import validate_qualified_name
from haven.api.internalform import internal_form
from haven.api.kinds import UpdateOrder, keep_metadata, kind_strategy
from haven.api.strategy import Strategy
from haven.api.webhookclients import validate_webhook_service, validate_webhook_url
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from haven.apimachinery.jsonpath import InvalidPath, check_template
from haven.apimachinery.validation.labels import validate_conditions, validate_label_selector
from haven.apimachinery.validation.names import (
    byte_length,
    dns1035_label_errors,
    dns1123_subdomain_errors,
    dns_subdomain_name,
    path_segment_name,
    validate_fully_qualified_name,
)
from haven.apimachinery.validation.objectmeta import validate_object_meta

__all__ = ["STRATEGIES", "reserving_static_names"]

Webhook = v1.ValidatingWebhook | v1.MutatingWebhook
Configuration = v1.ValidatingWebhookConfiguration | v1.MutatingWebhookConfiguration
PolicySpec = v1.ValidatingAdmissionPolicySpec | v1.MutatingAdmissionPolicySpec

_SPEC = Path("spec")
_ANY_SIDE_EFFECTS = ("None", "NoneOnDryRun", "Some", "Unknown")
_NO_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_REVIEW_VERSIONS = ("v1", "v1beta1")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_ACTIONS = ("Audit", "Deny", "Warn")
_PATCH_TYPES = ("ApplyConfiguration", "JSONPatch")
_MUTATING_OPERATIONS = ("*", "CONNECT", "CREATE", "UPDATE")
_NOT_FOUND_ACTIONS = ("Deny", "Allow")
_MAX_AUDIT_ANNOTATIONS = 20
_MAX_VALUE_EXPRESSION = 5 * 1024
_STATIC_SUFFIX = ".static.k8s.io"
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*\Z")
_RESERVED_WORDS = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    )
)  # fmt: skip


def _meta(metadata: meta.ObjectMeta) -> ErrorList:
    return validate_object_meta(metadata, namespaced=False, name_rule=dns_subdomain_name)


def _default_configuration(configuration: Configuration) -> None:
    for hook in configuration.webhooks:
        if hook.failure_policy is None:
            hook.failure_policy = "Fail"
        if hook.match_policy is None:
            hook.match_policy = "Equivalent"
        if hook.namespace_selector is None:
            hook.namespace_selector = meta.LabelSelector()
        if hook.object_selector is None:
            hook.object_selector = meta.LabelSelector()
        if hook.timeout_seconds is None:
            hook.timeout_seconds = 10
        if isinstance(hook, v1.MutatingWebhook) and hook.reinvocation_policy is None:
            hook.reinvocation_policy = "Never"
        default_rules(hook.rules)
        service = hook.client_config.service
        if service is not None and service.port is None:
            service.port = 443


@dataclass(frozen=True, slots=True)
class _Leniency:
    """What older objects may keep."""

    any_side_effects: bool = False
    any_review_version: bool = False
    repeated_names: bool = False
    bad_selector_values: bool = False
    conditions: bool = False


def _leniency(new: Configuration, old: Configuration) -> _Leniency:
    hooks = old.webhooks
    names = [hook.name for hook in hooks]
    selectors = [selector for hook in hooks for selector in (hook.namespace_selector, hook.object_selector)]
    return _Leniency(
        any_side_effects=any(hook.side_effects not in _NO_SIDE_EFFECTS for hook in hooks),
        any_review_version=any(
            hook.admission_review_versions and not set(hook.admission_review_versions) & set(_REVIEW_VERSIONS)
            for hook in hooks
        ),
        repeated_names=len(set(names)) < len(names),
        bad_selector_values=any(validate_label_selector(selector, Path("")) for selector in selectors),
        conditions=[hook.match_conditions for hook in new.webhooks] == [hook.match_conditions for hook in hooks],
    )


def _check_configuration(new: Configuration, old: Configuration | None = None) -> ErrorList:
    lenient = _leniency(new, old) if old is not None else _Leniency()
    errors = _meta(new.metadata)
    names: set[str] = set()
    hooks: Sequence[Webhook] = new.webhooks
    for index, hook in enumerate(hooks):
        path = Path("webhooks").index(index)
        errors += _webhook(hook, lenient, path)
        versions = hook.admission_review_versions or []
        errors += _review_versions(versions, lenient, path.child("admissionReviewVersions"))
        if hook.name and not lenient.repeated_names:
            if hook.name in names:
                errors.append(duplicate(path.child("name"), hook.name))
            names.add(hook.name)
    return errors


def _webhook(hook: Webhook, lenient: _Leniency, path: Path) -> ErrorList:
    errors = validate_fully_qualified_name(hook.name, path.child("name"))
    for index, rule in enumerate(hook.rules):
        errors += validate_rule(rule, path.child("rules").index(index))
    errors += _supported(hook.failure_policy, FAILURE_POLICIES, path.child("failurePolicy"))
    errors += _supported(hook.match_policy, MATCH_POLICIES, path.child("matchPolicy"))
    allowed = _ANY_SIDE_EFFECTS if lenient.any_side_effects else _NO_SIDE_EFFECTS
    if hook.side_effects is None:
        errors.append(required(path.child("sideEffects"), f"must specify one of {', '.join(allowed)}"))
    errors += _supported(hook.side_effects, allowed, path.child("sideEffects"))
    seconds = hook.timeout_seconds
    if seconds is not None and not 1 <= seconds <= 30:
        words = "the timeout value must be between 1 and 30 seconds"
        errors.append(invalid(path.child("timeoutSeconds"), seconds, words))
    for name, selector in (("namespaceSelector", hook.namespace_selector), ("objectSelector", hook.object_selector)):
        place = path.child(name)
        errors += validate_label_selector(selector, place, allow_invalid_values=lenient.bad_selector_values)
    if isinstance(hook, v1.MutatingWebhook):
        errors += _supported(hook.reinvocation_policy, REINVOCATION_POLICIES, path.child("reinvocationPolicy"))
    errors += _client(hook.client_config, path.child("clientConfig"))
    if not lenient.conditions:
        errors += validate_match_conditions(hook.match_conditions, path.child("matchConditions"))
    return errors


def _supported(value: str | None, known: Sequence[str], path: Path) -> ErrorList:
    return [not_supported(path, value, known)] if value is not None and value not in known else []


def _client(client: v1.WebhookClientConfig, path: Path) -> ErrorList:
    service = client.service
    if (client.url is None) == (service is None):
        return [required(path, "exactly one of url or service is required")]
    if client.url is not None:
        return validate_webhook_url(client.url, path.child("url"))
    assert service is not None
    port = service.port if service.port is not None else 0
    return validate_webhook_service(service.name, service.namespace, service.path, port, path.child("service"))


def _review_versions(versions: Sequence[str], lenient: _Leniency, path: Path) -> ErrorList:
    known = ", ".join(_REVIEW_VERSIONS)
    if not versions:
        return [required(path, f"must specify one of {known}")]
    errors: ErrorList = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(invalid(path.index(index), version, "duplicate version"))
            continue
        errors += [invalid(path.index(index), version, text) for text in dns1035_label_errors(version)]
    if not lenient.any_review_version and not set(versions) & set(_REVIEW_VERSIONS):
        errors.append(invalid(path, list(versions), f"must include at least one of {known}"))
    return errors


# ---- policies


def _default_policy(policy: v1.ValidatingAdmissionPolicy | v1.MutatingAdmissionPolicy) -> None:
    if policy.spec.failure_policy is None:
        policy.spec.failure_policy = "Fail"
    default_match_resources(policy.spec.match_constraints)


def _policy_head(spec: PolicySpec) -> ErrorList:
    errors: ErrorList = []
    if spec.failure_policy is None:
        errors.append(required(_SPEC.child("failurePolicy"), ""))
    errors += _supported(spec.failure_policy, FAILURE_POLICIES, _SPEC.child("failurePolicy"))
    if spec.param_kind is not None:
        errors += _param_kind(spec.param_kind, _SPEC.child("paramKind"))
    constraints, place = spec.match_constraints, _SPEC.child("matchConstraints")
    if constraints is None:
        return [*errors, required(place, "")]
    errors += validate_match_resources(constraints, place)
    if not constraints.resource_rules:
        errors.append(required(place.child("resourceRules"), ""))
    return errors


def _conditions(new: Any, old: Any) -> ErrorList:
    if old is not None:
        before, after = old.spec, new.spec
        if (before.param_kind, before.match_conditions) == (after.param_kind, after.match_conditions):
            return []
    has_params = new.spec.param_kind is not None
    return validate_match_conditions(new.spec.match_conditions, _SPEC.child("matchConditions"), params=has_params)


def _param_kind(kind: v1.ParamKind, path: Path) -> ErrorList:
    errors = _api_version(kind.api_version, path.child("apiVersion"))
    if not kind.kind:
        errors.append(required(path.child("kind"), ""))
    elif complaints := dns1035_label_errors(kind.kind.lower()):
        words = "may have mixed case, but should otherwise match: " + ",".join(complaints)
        errors.append(invalid(path.child("kind"), kind.kind, words))
    return errors


def _api_version(text: str, path: Path) -> ErrorList:
    if not text:
        return [required(path, "")]
    if text.count("/") > 1:
        return [invalid(path, text, f"unexpected GroupVersion string: {text}")]
    group, _, version = text.rpartition("/")
    errors: ErrorList = []
    if group and (complaints := dns1123_subdomain_errors(group)):
        errors.append(invalid(path, group, ",".join(complaints)))
    if not version:
        errors.append(invalid(path, text, "version must be specified"))
    elif complaints := dns1035_label_errors(version):
        errors.append(invalid(path, version, ",".join(complaints)))
    return errors


def _variables(variables: Sequence[v1.Variable], expressions: PolicyExpressions, path: Path) -> ErrorList:
    errors: ErrorList = []
    for index, variable in enumerate(variables):
        place = path.index(index)
        if not variable.name.strip():
            errors.append(required(place.child("name"), "name is not specified"))
        elif not _IDENTIFIER.match(variable.name) or variable.name in _RESERVED_WORDS:
            errors.append(invalid(place.child("name"), variable.name, "must be a valid CEL identifier"))
        if not variable.expression.strip():
            errors.append(required(place.child("expression"), "expression is not specified"))
        else:
            errors += expressions.variable(variable, place.child("expression"))
    return errors


def _check_validating(new: v1.ValidatingAdmissionPolicy, old: v1.ValidatingAdmissionPolicy | None = None) -> ErrorList:
    spec = new.spec
    errors = _meta(new.metadata) + _policy_head(spec) + _conditions(new, old)
    expressions = PolicyExpressions(spec.param_kind, variables=bool(spec.variables))
    errors += _variables(spec.variables, expressions, _SPEC.child("variables"))
    if not spec.validations and not spec.audit_annotations:
        words = "validations or auditAnnotations must contain at least one item"
        return [*errors, required(_SPEC.child("validations"), words), required(_SPEC.child("auditAnnotations"), words)]
    for index, validation in enumerate(spec.validations):
        errors += _validation(validation, expressions, _SPEC.child("validations").index(index))
    place = _SPEC.child("auditAnnotations")
    return errors + _audit_annotations(spec.audit_annotations, expressions, new.metadata.name, place)


def _validation(validation: v1.Validation, expressions: PolicyExpressions, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not validation.expression.strip():
        errors.append(required(path.child("expression"), "expression is not specified"))
    else:
        errors += expressions.validation(validation.expression, path.child("expression"))
    computed = validation.message_expression
    for name, text in (("messageExpression", computed), ("message", validation.message)):
        if text and not text.strip():
            errors.append(invalid(path.child(name), text, "must be non-empty if specified"))
        elif text and name == "messageExpression":
            errors += expressions.message(text, path.child(name))
    message = validation.message.strip()
    if "\n" in message or "\r" in message:
        errors.append(invalid(path.child("message"), validation.message, "must not contain line breaks"))
    return errors + _supported(validation.reason, _REASONS, path.child("reason"))


def _audit_annotations(
    annotations: Sequence[v1.AuditAnnotation], expressions: PolicyExpressions, name: str, path: Path
) -> ErrorList:
    errors: ErrorList = []
    if len(annotations) > _MAX_AUDIT_ANNOTATIONS:
        words = f"must not have more than {_MAX_AUDIT_ANNOTATIONS} auditAnnotations"
        errors.append(invalid(path, internal_form(list(annotations)), words))
    keys: set[str] = set()
    for index, annotation in enumerate(annotations):
        place, key = path.index(index), annotation.key
        if name:
            errors += validate_qualified_name(f"{name}/{key}", place.child("key"))
        else:
            errors.append(invalid(place.child("key"), key, "requires metadata.name be non-empty"))
        expression = annotation.value_expression.strip()
        if not expression:
            errors.append(required(place.child("valueExpression"), "valueExpression is not specified"))
        elif byte_length(expression) > _MAX_VALUE_EXPRESSION:
            words = f"must not exceed {_MAX_VALUE_EXPRESSION} bytes in length"
            errors.append(required(place.child("valueExpression"), words))
        else:
            errors += expressions.audit_value(annotation.value_expression, place.child("valueExpression"))
        if key in keys:
            errors.append(duplicate(place.child("key"), key))
        keys.add(key)
    return errors


def _check_validating_status(new: v1.ValidatingAdmissionPolicy, _old: v1.ValidatingAdmissionPolicy) -> ErrorList:
    errors: ErrorList = []
    checking = new.status.type_checking
    path = Path("status", "typeChecking", "expressionWarnings")
    for index, warning in enumerate(checking.expression_warnings if checking is not None else ()):
        if not warning.warning:
            errors.append(required(path.index(index).child("warning"), ""))
        errors += _field_reference(warning.field_ref.strip(), path.index(index).child("fieldRef"))
    return errors + validate_conditions(new.status.conditions, Path("status", "conditions"))


def _field_reference(text: str, path: Path) -> ErrorList:
    if not text:
        return [required(path, "")]
    try:
        check_template("{" + text + "}")
    except InvalidPath as error:
        return [invalid(path, text, f"invalid JSONPath: {error}")]
    return []


def _update_validating_status(new: v1.ValidatingAdmissionPolicy, old: v1.ValidatingAdmissionPolicy) -> None:
    new.spec = old.spec
    keep_metadata(new, old)


def _check_mutating(new: v1.MutatingAdmissionPolicy, old: v1.MutatingAdmissionPolicy | None = None) -> ErrorList:
    spec = new.spec
    errors = _meta(new.metadata) + _policy_head(spec)
    errors += _mutating_operations(spec.match_constraints, _SPEC.child("matchConstraints"))
    expressions = PolicyExpressions(spec.param_kind)
    errors += _conditions(new, old) + _variables(spec.variables, expressions, _SPEC.child("variables"))
    if not spec.mutations:
        errors.append(required(_SPEC.child("mutations"), "mutations must contain at least one item"))
    for index, mutation in enumerate(spec.mutations):
        errors += _mutation(mutation, expressions, _SPEC.child("mutations").index(index))
    place = _SPEC.child("reinvocationPolicy")
    if not spec.reinvocation_policy:
        return [*errors, required(place, "")]
    return errors + _supported(spec.reinvocation_policy, REINVOCATION_POLICIES, place)


def _mutating_operations(resources: v1.MatchResources | None, path: Path) -> ErrorList:
    place = path.child("resourceRules", "operations")
    return [
        not_supported(place, operation, _MUTATING_OPERATIONS)
        for rule in (resources.resource_rules if resources is not None else ())
        for operation in rule.operations
        if operation not in _MUTATING_OPERATIONS
    ]


def _mutation(mutation: v1.Mutation, expressions: PolicyExpressions, path: Path) -> ErrorList:
    kind = mutation.patch_type
    if not kind:
        return [required(path.child("patchType"), "")]
    if kind not in _PATCH_TYPES:
        return [not_supported(path.child("patchType"), kind, _PATCH_TYPES)]
    sources = {"jsonPatch": mutation.json_patch, "applyConfiguration": mutation.apply_configuration}
    own = kind[:1].lower() + kind[1:] if kind != "JSONPatch" else "jsonPatch"
    chosen = sources.pop(own)
    errors: ErrorList = []
    if chosen is None:
        errors.append(required(path.child(own), f"must be specified when patchType is {kind}"))
    elif not chosen.expression.strip():
        errors.append(required(path.child(own, "expression"), ""))
    elif kind == "JSONPatch":
        errors += expressions.json_patch(chosen.expression, path.child(own, "expression"))
    else:
        errors += expressions.apply_configuration(chosen.expression, path.child(own, "expression"))
    words = f"must not be specified when patchType is {kind}"
    return errors + [
        invalid(path.child(name), "{" + name + "}", words) for name, other in sources.items() if other is not None
    ]


# ---- bindings


def _default_binding(binding: v1.ValidatingAdmissionPolicyBinding | v1.MutatingAdmissionPolicyBinding) -> None:
    default_match_resources(binding.spec.match_resources)


def _check_binding(new: v1.ValidatingAdmissionPolicyBinding | v1.MutatingAdmissionPolicyBinding) -> ErrorList:
    spec = new.spec
    errors = _meta(new.metadata)
    path, name = _SPEC.child("policyName"), spec.policy_name
    if not name:
        errors.append(required(path, ""))
    else:
        errors += [invalid(path, name, text) for text in dns1123_subdomain_errors(name)]
    if spec.param_ref is not None:
        errors += _param_ref(spec.param_ref, _SPEC.child("paramRef"))
    errors += validate_match_resources(spec.match_resources, _SPEC.child("matchResources"))
    if isinstance(spec, v1.ValidatingAdmissionPolicyBindingSpec):
        return errors + _actions(spec.validation_actions, _SPEC.child("validationActions"))
    return errors + _mutating_operations(spec.match_resources, _SPEC.child("matchResources"))


def _param_ref(reference: v1.ParamRef, path: Path) -> ErrorList:
    errors: ErrorList = []
    name, selector = reference.name, reference.selector
    both = "name and selector are mutually exclusive"
    if name:
        errors += [invalid(path.child("name"), name, text) for text in path_segment_name(name, False)]
        if selector is not None:
            errors.append(forbidden(path.child("name"), both))
    if selector is not None:
        errors += validate_label_selector(selector, path.child("selector"))
        if name:
            errors.append(forbidden(path.child("selector"), both))
    if not name and selector is None:
        errors.append(required(path, "one of name or selector must be specified"))
    action, place = reference.parameter_not_found_action, path.child("parameterNotFoundAction")
    if not action:
        errors.append(required(place, ""))
    elif action not in _NOT_FOUND_ACTIONS:
        errors.append(not_supported(place, action, _NOT_FOUND_ACTIONS))
    return errors


def _actions(actions: Sequence[str], path: Path) -> ErrorList:
    errors: ErrorList = []
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            errors.append(not_supported(path.index(index), action, _ACTIONS))
        if action in actions[:index]:
            errors.append(duplicate(path.index(index), action))
    if "Deny" in actions and "Warn" in actions:
        words = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        errors.append(invalid(path, list(actions), words))
    if not actions:
        errors.append(required(path, "at least one validation action is required"))
    return errors


_RESERVED = (
    f'names ending with "{_STATIC_SUFFIX}" are reserved for static manifest-based configurations and cannot be managed '
    "via the API"
)


def _warnings(new: Any, _old: Any) -> list[str]:
    return [f"metadata.name: {_RESERVED}"] if new.metadata.name.endswith(_STATIC_SUFFIX) else []


def reserving_static_names(strategy: Strategy[Any]) -> Strategy[Any]:
    """Return the rules of a server that takes such objects from files: nobody makes one of such a name."""

    def validate(new: Any) -> ErrorList:
        errors = strategy.validate(new)
        if new.metadata.name.endswith(_STATIC_SUFFIX):
            errors = [*errors, invalid(Path("metadata").child("name"), new.metadata.name, _RESERVED)]
        return errors

    def warnings(new: Any, old: Any | None) -> list[str]:
        return [] if old is None else strategy.warnings(new, old)

    return replace(strategy, validate=validate, warnings=warnings)


def _count_webhook_changes(new: Configuration, old: Configuration) -> None:
    if new.webhooks != old.webhooks:
        new.metadata.generation = old.metadata.generation + 1


def _first_generation(new: Any) -> None:
    new.metadata.generation = 1


def _strategy(
    default: Callable[[Any], None],
    check: Callable[..., ErrorList],
    *,
    of_webhooks: bool = False,
    is_lenient: bool = True,
    status: Strategy[Any] | None = None,
) -> Strategy[Any]:
    return kind_strategy(
        namespaced=False,
        name_rule=None,
        default=default,
        check=check,
        check_old=check if is_lenient else None,
        order=UpdateOrder.WHOLE_ONLY,
        create=_first_generation,
        update=_count_webhook_changes if of_webhooks else lambda new, old: None,
        has_generation=not of_webhooks,
        has_status=status is not None,
        warnings=_warnings,
        subresources={"status": status} if status is not None else {},
        allow_unconditional_update=False,
        counts_empty="webhooks" if of_webhooks else "",
    )


_CONFIGURATION = _strategy(_default_configuration, _check_configuration, of_webhooks=True)
_BINDING = _strategy(_default_binding, _check_binding, is_lenient=False)
_STATUS: Strategy[Any] = Strategy(
    default=_default_policy, prepare_for_update=_update_validating_status, validate_update=_check_validating_status
)

STRATEGIES: dict[str, Strategy[Any]] = {
    "validatingwebhookconfigurations": _CONFIGURATION,
    "mutatingwebhookconfigurations": _CONFIGURATION,
    "validatingadmissionpolicies": _strategy(_default_policy, _check_validating, status=_STATUS),
    "validatingadmissionpolicybindings": _BINDING,
    "mutatingadmissionpolicies": _strategy(_default_policy, _check_mutating),
    "mutatingadmissionpolicybindings": _BINDING,
}
