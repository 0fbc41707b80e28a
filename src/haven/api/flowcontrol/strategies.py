"""FlowSchemas and PriorityLevelConfigurations: defaults, what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/ and the behaviour of
pkg/apis/flowcontrol.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from haven.api.flowcontrol import v1
from haven.api.internalform import internal_form
from haven.api.kinds import UpdateOrder, kind_strategy
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, duplicate, forbidden, invalid, not_supported, required
from haven.apimachinery.validation.names import dns1123_label_errors, dns1123_subdomain_errors

__all__ = ["MANDATORY_FLOW_SCHEMAS", "MANDATORY_PRIORITY_LEVELS", "STRATEGIES"]

_SPEC = Path("spec")
_ALL = "*"
_MAX_PRECEDENCE = 10_000
_MAX_QUEUES = 10_000_000
_MAX_HASH_BITS = 60
_METHODS = ("ByNamespace", "ByUser")
_SUBJECTS = ("Group", "ServiceAccount", "User")
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_TYPES = ("Exempt", "Limited")
_RESPONSES = ("Queue", "Reject")
_ZERO_SHARES = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"


def _everything(*groups: str) -> v1.PolicyRulesWithSubjects:
    every = [_ALL]
    return v1.PolicyRulesWithSubjects(
        subjects=[v1.Subject(kind="Group", group=v1.GroupSubject(name=name)) for name in groups],
        resource_rules=[
            v1.ResourcePolicyRule(verbs=every, api_groups=every, resources=every, cluster_scope=True, namespaces=every)
        ],
        non_resource_rules=[v1.NonResourcePolicyRule(verbs=every, non_resource_urls=every)],
    )


MANDATORY_FLOW_SCHEMAS = {
    "exempt": v1.FlowSchemaSpec(
        priority_level_configuration=v1.PriorityLevelConfigurationReference(name="exempt"),
        matching_precedence=1,
        rules=[_everything("system:masters")],
    ),
    "catch-all": v1.FlowSchemaSpec(
        priority_level_configuration=v1.PriorityLevelConfigurationReference(name="catch-all"),
        matching_precedence=_MAX_PRECEDENCE,
        distinguisher_method=v1.FlowDistinguisherMethod(type="ByUser"),
        rules=[_everything("system:unauthenticated", "system:authenticated")],
    ),
}
"""The specs that FlowSchemas of these names must have."""

MANDATORY_PRIORITY_LEVELS = {
    "exempt": v1.PriorityLevelConfigurationSpec(
        type="Exempt", exempt=v1.ExemptPriorityLevelConfiguration(nominal_concurrency_shares=0, lendable_percent=0)
    ),
    "catch-all": v1.PriorityLevelConfigurationSpec(
        type="Limited",
        limited=v1.LimitedPriorityLevelConfiguration(
            nominal_concurrency_shares=5, lendable_percent=0, limit_response=v1.LimitResponse(type="Reject")
        ),
    ),
}
"""The specs that PriorityLevelConfigurations of these names must have (exempt: but for `spec.exempt`)."""


def _default_schema(schema: v1.FlowSchema) -> None:
    if schema.spec.matching_precedence == 0:
        schema.spec.matching_precedence = 1000


def _check_schema(schema: v1.FlowSchema) -> ErrorList:
    spec, name = schema.spec, schema.metadata.name
    precedence, path = spec.matching_precedence, _SPEC.child("matchingPrecedence")
    errors: ErrorList = []
    if precedence <= 0:
        errors.append(invalid(path, precedence, "must be a positive value"))
    if precedence > _MAX_PRECEDENCE:
        errors.append(invalid(path, precedence, f"must not be greater than {_MAX_PRECEDENCE}"))
    if precedence == 1 and name != "exempt":
        errors.append(invalid(path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
    method = spec.distinguisher_method
    if method is not None and method.type not in _METHODS:
        place = _SPEC.child("distinguisherMethod", "type")
        errors.append(not_supported(place, internal_form(method), _METHODS))
    level, place = spec.priority_level_configuration.name, _SPEC.child("priorityLevelConfiguration", "name")
    if level:
        errors += [invalid(place, level, text) for text in dns1123_subdomain_errors(level)]
    else:
        errors.append(required(place, "must reference a priority level"))
    for index, rule in enumerate(spec.rules):
        errors += _rule(rule, _SPEC.child("rules").index(index))
    fixed = MANDATORY_FLOW_SCHEMAS.get(name)
    if fixed is not None and spec != fixed:
        errors.append(invalid(_SPEC, internal_form(spec), f"spec of '{name}' must equal the fixed value"))
    return errors + _conditions(schema.status.conditions, Path("status", "conditions"))


def _conditions(
    conditions: Sequence[v1.FlowSchemaCondition | v1.PriorityLevelConfigurationCondition], path: Path
) -> ErrorList:
    errors: ErrorList = []
    known: set[str] = set()
    for index, condition in enumerate(conditions):
        place = path.index(index).child("type")
        if condition.type in known:
            errors.append(duplicate(place, condition.type))
        known.add(condition.type)
        if not condition.type:
            errors.append(required(place, ""))
    return errors


def _rule(rule: v1.PolicyRulesWithSubjects, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not rule.subjects:
        errors.append(required(path.child("subjects"), "subjects must contain at least one value"))
    for index, subject in enumerate(rule.subjects or ()):
        errors += _subject(subject, path.child("subjects").index(index))
    if not rule.resource_rules and not rule.non_resource_rules:
        errors.append(required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
    for index, resource in enumerate(rule.resource_rules):
        errors += _resource_rule(resource, path.child("resourceRules").index(index))
    for index, other in enumerate(rule.non_resource_rules):
        errors += _non_resource_rule(other, path.child("nonResourceRules").index(index))
    return errors


def _subject(subject: v1.Subject, path: Path) -> ErrorList:
    if subject.kind not in _SUBJECTS:
        return [not_supported(path.child("kind"), subject.kind, _SUBJECTS)]
    own = subject.kind[:1].lower() + subject.kind[1:]
    errors: ErrorList = []
    sources = {"serviceAccount": subject.service_account, "user": subject.user, "group": subject.group}
    chosen, place = sources[own], path.child(own)
    if chosen is None:
        errors.append(required(place, f"{own} is required when subject kind is '{subject.kind}'"))
    elif isinstance(chosen, v1.ServiceAccountSubject):
        errors += _service_account(chosen, place)
    elif not chosen.name:
        errors.append(required(place.child("name"), ""))
    for name, value in sources.items():
        if name != own and value is not None:
            kind = name[:1].upper() + name[1:]
            errors.append(forbidden(path.child(name), f"{name} is forbidden when subject kind is not '{kind}'"))
    return errors


def _service_account(account: v1.ServiceAccountSubject, path: Path) -> ErrorList:
    errors: ErrorList = []
    name, namespace = account.name, account.namespace
    if not name:
        errors.append(required(path.child("name"), ""))
    elif name != _ALL:
        errors += [invalid(path.child("name"), name, text) for text in dns1123_subdomain_errors(name)]
    if namespace:
        errors += [invalid(path.child("namespace"), namespace, text) for text in dns1123_label_errors(namespace)]
    else:
        errors.append(required(path.child("namespace"), "must specify namespace for service account"))
    return errors


def _verbs(verbs: list[str], path: Path) -> ErrorList:
    if not verbs:
        return [required(path, "verbs must contain at least one value")]
    if _ALL in verbs:
        return [invalid(path, verbs, "if '*' is present, must not specify other verbs")] if len(verbs) > 1 else []
    if any(verb not in _VERBS for verb in verbs):
        return [not_supported(path, verbs, _VERBS)]
    return []


def _non_resource_rule(rule: v1.NonResourcePolicyRule, path: Path) -> ErrorList:
    errors = _verbs(rule.verbs or [], path.child("verbs"))
    urls, place = rule.non_resource_urls or [], path.child("nonResourceURLs")
    if not urls:
        errors.append(required(place, "nonResourceURLs must contain at least one value"))
    elif _ALL in urls:
        if len(urls) > 1:
            errors.append(invalid(place, urls, "if '*' is present, must not specify other non-resource URLs"))
    else:
        errors += [invalid(place.index(i), url, why) for i, url in enumerate(urls) if (why := _url_complaint(url))]
    return errors


def _url_complaint(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    stars = url.count("*")
    return "wildcard can only do suffix matching" if stars > 1 or (stars == 1 and not url.endswith("/*")) else ""


def _resource_rule(rule: v1.ResourcePolicyRule, path: Path) -> ErrorList:
    errors = _verbs(rule.verbs or [], path.child("verbs"))
    for name, values, one, many in (
        ("apiGroups", rule.api_groups, "api group", "api groups"),
        ("resources", rule.resources, "resource", "resources"),
    ):
        if not values:
            errors.append(required(path.child(name), f"resource rules must supply at least one {one}"))
        elif len(values) > 1 and _ALL in values:
            errors.append(invalid(path.child(name), values, f"if '*' is present, must not specify other {many}"))
    namespaces, place = rule.namespaces or [], path.child("namespaces")
    if not namespaces and not rule.cluster_scope:
        words = "resource rules that are not cluster scoped must supply at least one namespace"
        errors.append(required(place, words))
    elif _ALL in namespaces:
        if len(namespaces) > 1:
            errors.append(invalid(place, namespaces, "if '*' is present, must not specify other namespaces"))
    else:
        intro = "each member of this list must be '*' or a DNS-1123 label; "
        for index, name in enumerate(namespaces):
            errors += [invalid(place.index(index), name, intro + text) for text in dns1123_label_errors(name)]
    return errors


def _default_level(level: v1.PriorityLevelConfiguration) -> None:
    exempt, limited = level.spec.exempt, level.spec.limited
    if exempt is not None:
        exempt.nominal_concurrency_shares = exempt.nominal_concurrency_shares or 0
        exempt.lendable_percent = exempt.lendable_percent or 0
    if limited is None:
        return
    if limited.nominal_concurrency_shares is None:
        limited.nominal_concurrency_shares = 30
    if limited.lendable_percent is None:
        limited.lendable_percent = 0
    queuing = limited.limit_response.queuing
    if queuing is not None:
        queuing.hand_size = queuing.hand_size or 8
        queuing.queues = queuing.queues or 64
        queuing.queue_length_limit = queuing.queue_length_limit or 50


def _check_level(level: v1.PriorityLevelConfiguration) -> ErrorList:
    spec, name = level.spec, level.metadata.name
    errors: ErrorList = []
    if _ZERO_SHARES in level.metadata.annotations:
        errors.append(forbidden(Path("metadata", "annotations"), f"annotation '{_ZERO_SHARES}' is forbidden"))
    if (name == "exempt") != (spec.type == "Exempt"):
        words = "must be 'Exempt' if and only if `name` is 'exempt'"
        errors.append(invalid(_SPEC.child("type"), spec.type, words))
    errors += _level_type(spec) + _fixed_level(name, spec)
    return errors + _conditions(level.status.conditions, Path("status", "conditions"))


def _level_type(spec: v1.PriorityLevelConfigurationSpec) -> ErrorList:
    errors: ErrorList = []
    exempt, limited = spec.exempt, spec.limited
    if spec.type == "Exempt":
        if limited is not None:
            errors.append(forbidden(_SPEC.child("limited"), "must be nil if the type is not Limited"))
        if exempt is not None:
            errors += _shares(exempt.nominal_concurrency_shares, _SPEC.child("exempt"))
            errors += _lendable(exempt.lendable_percent, _SPEC.child("exempt"))
    elif spec.type == "Limited":
        if exempt is not None:
            errors.append(forbidden(_SPEC.child("exempt"), "must be nil if the type is Limited"))
        if limited is None:
            errors.append(required(_SPEC.child("limited"), "must not be empty when type is Limited"))
        else:
            errors += _limited(limited, _SPEC.child("limited"))
    else:
        errors.append(not_supported(_SPEC.child("type"), spec.type, _TYPES))
    return errors


def _shares(shares: int | None, path: Path) -> ErrorList:
    if shares is None or shares >= 0:
        return []
    return [invalid(path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer")]


def _lendable(percent: int | None, path: Path) -> ErrorList:
    if percent is None or 0 <= percent <= 100:
        return []
    return [invalid(path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive")]


def _limited(limited: v1.LimitedPriorityLevelConfiguration, path: Path) -> ErrorList:
    errors = _shares(limited.nominal_concurrency_shares, path)
    errors += _response(limited.limit_response, path.child("limitResponse"))
    errors += _lendable(limited.lendable_percent, path)
    borrowing = limited.borrowing_limit_percent
    if borrowing is not None and borrowing < 0:
        words = "if specified, must be a non-negative integer"
        errors.append(invalid(path.child("borrowingLimitPercent"), borrowing, words))
    return errors


def _response(response: v1.LimitResponse, path: Path) -> ErrorList:
    queuing, place = response.queuing, path.child("queuing")
    if response.type == "Reject":
        words = "must be nil if limited.limitResponse.type is not Limited"
        return [] if queuing is None else [forbidden(place, words)]
    if response.type == "Queue":
        if queuing is None:
            return [required(place, "must not be empty if limited.limitResponse.type is Limited")]
        return _queuing(queuing, place)
    return [not_supported(path.child("type"), response.type, _RESPONSES)]


def _queuing(queuing: v1.QueuingConfiguration, path: Path) -> ErrorList:
    errors: ErrorList = []
    queues, hand = queuing.queues, queuing.hand_size
    if queuing.queue_length_limit <= 0:
        errors.append(invalid(path.child("queueLengthLimit"), queuing.queue_length_limit, "must be positive"))
    if queues <= 0:
        errors.append(invalid(path.child("queues"), queues, "must be positive"))
    elif queues > _MAX_QUEUES:
        errors.append(invalid(path.child("queues"), queues, f"must not be greater than {_MAX_QUEUES}"))
    place = path.child("handSize")
    if hand <= 0:
        errors.append(invalid(place, hand, "must be positive"))
    elif hand > queues:
        errors.append(invalid(place, hand, f"should not be greater than queues ({queues})"))
    elif math.ceil(math.log2(queues) * hand) > _MAX_HASH_BITS:
        sizes = f"deckSize {queues} and handSize {hand}"
        words = f"required entropy bits of {sizes} should not be greater than {_MAX_HASH_BITS}"
        errors.append(invalid(place, hand, words))
    return errors


def _fixed_level(name: str, spec: v1.PriorityLevelConfigurationSpec) -> ErrorList:
    fixed = MANDATORY_PRIORITY_LEVELS.get(name)
    if fixed is None:
        return []
    if name == "exempt":
        if (spec.type, spec.limited) == (fixed.type, fixed.limited):
            return []
        words = f"spec of '{name}' except the 'spec.exempt' field must equal the fixed value"
        return [invalid(_SPEC, internal_form(spec), words)]
    return (
        [] if spec == fixed else [invalid(_SPEC, internal_form(spec), f"spec of '{name}' must equal the fixed value")]
    )


def _check_schema_status(new: v1.FlowSchema, _old: v1.FlowSchema) -> ErrorList:
    return _conditions(new.status.conditions, Path("status", "conditions"))


def _check_level_status(new: v1.PriorityLevelConfiguration, _old: v1.PriorityLevelConfiguration) -> ErrorList:
    return _conditions(new.status.conditions, Path("status", "conditions"))


def _update_status(new: Any, old: Any) -> None:
    kept = {"managed_fields": new.metadata.managed_fields, "resource_version": new.metadata.resource_version}
    new.metadata = msgspec.structs.replace(old.metadata, **kept)
    new.spec = old.spec


STRATEGIES: dict[str, Strategy[Any]] = {
    "flowschemas": kind_strategy(
        namespaced=False,
        default=_default_schema,
        check=_check_schema,
        order=UpdateOrder.WHOLE_ONLY,
        has_generation=True,
        has_status=True,
        subresources={
            "status": Strategy(
                default=_default_schema, prepare_for_update=_update_status, validate_update=_check_schema_status
            )
        },
    ),
    "prioritylevelconfigurations": kind_strategy(
        namespaced=False,
        default=_default_level,
        check=_check_level,
        order=UpdateOrder.WHOLE_ONLY,
        has_generation=True,
        has_status=True,
        subresources={
            "status": Strategy(
                default=_default_level, prepare_for_update=_update_status, validate_update=_check_level_status
            )
        },
    ),
}
