"""Which requests are audited, and how closely: the first rule that matches decides. Pure.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/#audit-policy
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec

from haven import telemetry
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import dns1123_subdomain_errors
from haven.apiserver.configfiles import ConfigError, Document, read_document
from haven.apiserver.request import RequestInfo, UserInfo

__all__ = ["Level", "Policy", "Stage", "Treatment", "parse_policy"]

_log = telemetry.logger("apiserver")


class Level(IntEnum):
    """How much of a request is written down; each holds what the one before holds."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3


LEVELS = {
    "None": Level.NONE,
    "Metadata": Level.METADATA,
    "Request": Level.REQUEST,
    "RequestResponse": Level.REQUEST_RESPONSE,
}


class Stage(StrEnum):
    """When an event is written."""

    REQUEST_RECEIVED = "RequestReceived"
    RESPONSE_STARTED = "ResponseStarted"
    RESPONSE_COMPLETE = "ResponseComplete"
    PANIC = "Panic"


class GroupResources(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    group: str = ""
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()


class Rule(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    level: str = ""
    users: tuple[str, ...] = ()
    user_groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[GroupResources, ...] = ()
    namespaces: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(default=(), name="nonResourceURLs")
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool | None = None


class _Policy(Document, frozen=True):
    rules: tuple[Rule, ...] = ()
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool = False


class Treatment(NamedTuple):
    """What is done with the events of a request."""

    level: Level
    omitted: frozenset[str] = frozenset()
    omit_managed_fields: bool = False


class Policy:
    """A policy, ready to be asked."""

    def __init__(self, document: _Policy) -> None:
        self._rules = [
            (
                rule,
                Treatment(
                    LEVELS[rule.level],
                    frozenset((*document.omit_stages, *rule.omit_stages)),
                    document.omit_managed_fields if rule.omit_managed_fields is None else rule.omit_managed_fields,
                ),
            )
            for rule in document.rules
        ]

    def treatment(self, user: UserInfo, info: RequestInfo) -> Treatment:
        """Return how a request is audited; what no rule matches is not."""
        for rule, treatment in self._rules:
            if _matches(rule, user, info):
                return treatment
        return Treatment(Level.NONE)


def parse_policy(data: bytes) -> Policy:
    """Return the policy of a file; raise ConfigError with everything that is wrong."""
    document = read_document(data, _Policy, "Policy", ("audit.k8s.io/v1",), warn=_warn)
    wrong = _stage_errors(document.omit_stages, "omitStages")
    for index, rule in enumerate(document.rules):
        wrong += _rule_errors(rule, f"rules[{index}]")
    if wrong:
        raise ConfigError(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    if not document.rules:
        raise ConfigError("loaded illegal policy with 0 rules")
    return Policy(document)


def _warn(problem: str) -> None:
    _log.warning("The audit policy contains errors, which are left out.", error=problem)


def _rule_errors(rule: Rule, path: str) -> list[str]:
    wrong = []
    if not rule.level:
        wrong.append(f"{path}.level: Required value")
    elif rule.level not in LEVELS:
        known = ", ".join(map(quote, LEVELS))
        wrong.append(f"{path}.level: Unsupported value: {quote(rule.level)}: supported values: {known}")
    for index, url in enumerate(rule.non_resource_urls):
        at = f"{path}.nonResourceURLs[{index}]: Invalid value: {quote(url)}:"
        if url != "*" and not url.startswith("/"):
            wrong.append(f"{at} non-resource URL rules must begin with a '/' character")
        if "*" in url[:-1]:
            wrong.append(f"{at} non-resource URL wildcards '*' must be the final character of the rule")
    for item in rule.resources:
        if item.group not in ("", "*") and (problems := dns1123_subdomain_errors(item.group)):
            wrong.append(f"{path}.resources.group: Invalid value: {quote(item.group)}: {','.join(problems)}")
        if item.resource_names and not item.resources:
            at = f"{path}.resources.resourceNames: Invalid value: [{','.join(map(quote, item.resource_names))}]"
            wrong.append(f"{at}: using resourceNames requires at least one resource")
    wrong += _stage_errors(rule.omit_stages, f"{path}.omitStages")
    if rule.non_resource_urls and (rule.resources or rule.namespaces):
        at = f"{path}.nonResourceURLs: Invalid value: [{','.join(map(quote, rule.non_resource_urls))}]"
        wrong.append(f"{at}: rules cannot apply to both regular resources and non-resource URLs")
    return wrong


def _stage_errors(stages: Sequence[str], path: str) -> list[str]:
    known = ",".join(Stage)
    return [
        f"{path}[{index}]: Invalid value: {quote(stage)}: allowed stages are {known}"
        for index, stage in enumerate(stages)
        if stage not in set(Stage)
    ]


def _matches(rule: Rule, user: UserInfo, info: RequestInfo) -> bool:
    if rule.users and user.name not in rule.users:
        return False
    if rule.user_groups and not any(group in rule.user_groups for group in user.groups):
        return False
    if rule.verbs and info.verb not in rule.verbs:
        return False
    if rule.namespaces or rule.resources:
        return info.is_resource and _matches_resource(rule, info)
    if rule.non_resource_urls:
        return not info.is_resource and any(_is_path(url, info.path) for url in rule.non_resource_urls)
    return True


def _matches_resource(rule: Rule, info: RequestInfo) -> bool:
    if rule.namespaces and info.namespace not in rule.namespaces:
        return False
    if not rule.resources:
        return True
    combined = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    whole = {"*", combined, f"{info.resource}/*"} | ({f"*/{info.subresource}"} if info.subresource else set())
    return any(
        item.group in (info.group, "*")
        and (
            not item.resources
            or ((not item.resource_names or info.name in item.resource_names) and not whole.isdisjoint(item.resources))
        )
        for item in rule.resources
    )


def _is_path(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))
