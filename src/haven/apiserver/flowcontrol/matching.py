"""Which flow schema a request falls under, and to which flow of it. Pure.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#flowschema
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from haven.api.flowcontrol import v1 as flowcontrol
from haven.apiserver.request import RequestInfo, UserInfo

__all__ = ["CONFIG_CONSUMER", "Test", "compile_schema", "dangling", "distinguisher", "flow_hash"]

CONFIG_CONSUMER = "api-priority-and-fairness-config-consumer-v1"
"""Who says in the status of flow schemas whether their level exists."""
Test = Callable[[UserInfo, RequestInfo], bool]


def compile_schema(schema: flowcontrol.FlowSchema) -> Test:
    """Return whether a schema takes a request, as a function."""
    rules = schema.spec.rules

    def matches(user: UserInfo, info: RequestInfo) -> bool:
        return any(_is_meant(rule, user) and _covers(rule, info) for rule in rules)

    return matches


def distinguisher(schema: flowcontrol.FlowSchema, user: UserInfo, info: RequestInfo) -> str:
    """Return what tells the flows of a schema apart: the user, the namespace, or nothing."""
    method = schema.spec.distinguisher_method
    if method is None:
        return ""
    return user.name if method.type == "ByUser" else info.namespace


def flow_hash(schema_name: str, flow: str) -> int:
    """Return 64 bits for a flow: the first bytes of the SHA-256 of its schema's name and its distinguisher."""
    digest = hashlib.sha256(schema_name.encode() + b"\0" + flow.encode()).digest()
    return int.from_bytes(digest[:8], "little")


def dangling(level: str, now: str | None, *, exists: bool) -> flowcontrol.FlowSchemaCondition:
    """Return the condition that tells whether a schema's priority level exists."""
    there = "and it exists" if exists else "but there is no such object"
    return flowcontrol.FlowSchemaCondition(
        type="Dangling",
        status="False" if exists else "True",
        last_transition_time=now,
        reason="Found" if exists else "NotFound",
        message=f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" {there}',
    )


def _is_meant(rule: flowcontrol.PolicyRulesWithSubjects, user: UserInfo) -> bool:
    for subject in rule.subjects or []:
        if subject.user is not None and subject.user.name in ("*", user.name):
            return True
        if subject.group is not None and (subject.group.name == "*" or subject.group.name in user.groups):
            return True
        account = subject.service_account
        if account is not None:
            prefix = f"system:serviceaccount:{account.namespace}:"
            if user.name == prefix + account.name or (account.name == "*" and user.name.startswith(prefix)):
                return True
    return False


def _covers(rule: flowcontrol.PolicyRulesWithSubjects, info: RequestInfo) -> bool:
    if not info.is_resource:
        return any(
            _has(item.verbs, info.verb)
            and any(_is_path(pattern, info.path) for pattern in item.non_resource_urls or [])
            for item in rule.non_resource_rules
        )
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    return any(
        _has(item.verbs, info.verb)
        and _has(item.api_groups, info.group)
        and _has(item.resources, resource)
        and (_has(item.namespaces, info.namespace) if info.namespace else item.cluster_scope)
        for item in rule.resource_rules
    )


def _has(values: list[str] | None, value: str) -> bool:
    return values is not None and ("*" in values or value in values)


def _is_path(pattern: str, path: str) -> bool:
    """Tell whether a rule means a path: what is below it is meant too, with an asterisk at its end or without."""
    if pattern in ("*", path):
        return True
    return path.startswith(pattern.removesuffix("*").removesuffix("/") + "/")
