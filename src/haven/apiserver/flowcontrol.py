"""Which FlowSchema a request falls under, as the response headers tell; and whether each schema's level exists.

Every request has a place: schemas are asked in the order of their precedence, the last one takes all. How many requests
are served at once is limited as a whole (chain.py), not per priority level.
Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from haven import telemetry
from haven.api import scheme
from haven.api.flowcontrol import v1 as flowcontrol
from haven.api.scheme import Resource
from haven.apimachinery import apierrors, serialization, times
from haven.apiserver.admission.interface import Objects
from haven.apiserver.request import RequestInfo, UserInfo
from haven.clock import Clock

__all__ = ["FlowControl", "dangling"]

_SCHEMAS = scheme.resource_of(flowcontrol.FlowSchema)
_LEVELS = scheme.resource_of(flowcontrol.PriorityLevelConfiguration)
_KNOWN_MAX = 4096
_DANGLING = "Dangling"
_log = telemetry.logger("apiserver")

Test = Callable[[UserInfo, RequestInfo], bool]


class FlowControl:
    """An Observer of flow schemas and priority levels that classifies requests.

    Invariants: `_schemas` is in the order of matching; `_known` only holds answers of the present schemas.
    """

    resources: Sequence[Resource[Any]] = (_SCHEMAS, _LEVELS)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._schemas: list[tuple[flowcontrol.FlowSchema, Test]] = []
        self._levels: dict[str, str] = {}
        self._known: dict[tuple[Any, ...], tuple[str, str]] = {}
        self._changed = asyncio.Event()

    def changed(self, resource: Resource[Any], old: Any | None, new: Any | None) -> None:
        """Take note of a schema or a level."""
        self._known.clear()
        self._changed.set()
        if resource.plural == _LEVELS.plural:
            if old is not None:
                self._levels.pop(old.metadata.name, None)
            if new is not None:
                self._levels[new.metadata.name] = new.metadata.uid
            return
        present: Any = old if new is None else new
        name = present.metadata.name
        self._schemas = [item for item in self._schemas if item[0].metadata.name != name]
        if new is not None:
            self._schemas.append((new, _compile(new)))
            self._schemas.sort(key=lambda item: (item[0].spec.matching_precedence, item[0].metadata.name))

    def classify(self, user: UserInfo, info: RequestInfo) -> tuple[str, str]:
        """Return the UIDs of the schema and the priority level of a request; "" where there is none."""
        place = (info.group, info.resource, info.subresource, info.namespace) if info.is_resource else (info.path,)
        key = (user.name, user.groups, info.verb, *place)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            found = self._known[key] = self._classify(user, info)
        return found

    def _classify(self, user: UserInfo, info: RequestInfo) -> tuple[str, str]:
        for schema, matches in self._schemas:
            level = self._levels.get(schema.spec.priority_level_configuration.name)
            if level is not None and matches(user, info):
                return schema.metadata.uid, level
        return "", ""

    async def run(self, objects: Objects) -> None:
        """Keep the condition of schemas that tells whether their level exists, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for schema, _ in list(self._schemas):
                try:
                    await self._settle(objects, schema)
                except apierrors.ApiError as error:
                    _log.debug("A flow schema's status was not written.", schema=schema.metadata.name, error=str(error))

    async def _settle(self, objects: Objects, schema: flowcontrol.FlowSchema) -> None:
        level = schema.spec.priority_level_configuration.name
        exists = level in self._levels
        status = "False" if exists else "True"
        if any(one.type == _DANGLING and one.status == status for one in schema.status.conditions):
            return
        new = serialization.copy(schema)
        condition = dangling(level, times.format_time(self._clock.now_seconds()), exists=exists)
        new.status.conditions = [*(one for one in new.status.conditions if one.type != _DANGLING), condition]
        await objects.update_status(_SCHEMAS, new)


def dangling(level: str, now: str | None, *, exists: bool) -> flowcontrol.FlowSchemaCondition:
    """Return the condition that tells whether a schema's priority level exists."""
    there = "and it exists" if exists else "but there is no such object"
    return flowcontrol.FlowSchemaCondition(
        type=_DANGLING,
        status="False" if exists else "True",
        last_transition_time=now,
        reason="Found" if exists else "NotFound",
        message=f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" {there}',
    )


def _compile(schema: flowcontrol.FlowSchema) -> Test:
    rules = schema.spec.rules

    def matches(user: UserInfo, info: RequestInfo) -> bool:
        return any(_is_meant(rule, user) and _covers(rule, info) for rule in rules)

    return matches


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
    if pattern.endswith("*"):
        return path.startswith(pattern[:-1])
    return pattern == path
