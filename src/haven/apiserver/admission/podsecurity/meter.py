"""How often pods are held against a standard, under upstream's metric names.

What was found is told by the audit annotations that the plugin writes, also when an object is made as others like it
were and the plugin is not asked again; a warning is the one finding that has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.podsecurity.policy import LATEST, PREFIX, Level, LevelVersion, parse_level, parse_minor
from haven.metrics.families import Registry, Value

__all__ = ["ALLOW", "DENY", "PodSecurityMeter"]

ALLOW, DENY = "allow", "deny"
_NEWEST = 36
_PODS = GroupResource("", "pods")
_VIOLATED = re.compile(r'would violate PodSecurity "([^"]+)"')


class PodSecurityMeter:
    """Counts judgements."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        for operation in ("create", "update"):
            registry["pod_security_evaluations_total"].child(
                ALLOW, "enforce", "privileged", "latest", operation, "pod", ""
            )
            for resource in ("pod", "controller"):
                registry["pod_security_exemptions_total"].child(operation, resource, "")

    def evaluation(
        self, decision: str, mode: str, policy: LevelVersion, operation: str, resource: GroupResource, subresource: str
    ) -> Value:
        """Return what counts judgements of this kind."""
        return self._registry["pod_security_evaluations_total"].child(
            decision, mode, policy.level.label, _version(policy), *_place(operation, resource, subresource)
        )

    def exemption(self, operation: str, resource: GroupResource, subresource: str) -> Value:
        """Return what counts objects that are not judged."""
        return self._registry["pod_security_exemptions_total"].child(*_place(operation, resource, subresource))

    def error(self, operation: str, resource: GroupResource, subresource: str, *, fatal: bool) -> Value:
        """Return what counts objects that could not be judged, or only by the strictest standard."""
        flag = "true" if fatal else "false"
        return self._registry["pod_security_errors_total"].child(flag, *_place(operation, resource, subresource))

    def told_by(
        self,
        annotations: Mapping[str, str],
        operation: str,
        resource: GroupResource,
        subresource: str,
        *,
        refused: bool = False,
    ) -> Iterator[Value]:
        """Yield what counts a request of which the plugin wrote this down."""
        place = (operation, resource, subresource)
        if PREFIX + "exempt" in annotations:
            yield self.exemption(*place)
        if PREFIX + "error" in annotations:
            yield self.error(*place, fatal=False)
        if enforced := annotations.get(PREFIX + "enforce-policy"):
            yield self.evaluation(DENY if refused else ALLOW, "enforce", _parsed(enforced), *place)
        if (violations := annotations.get(PREFIX + "audit-violations")) and (found := _VIOLATED.match(violations)):
            yield self.evaluation(DENY, "audit", _parsed(found[1]), *place)


def _parsed(text: str) -> LevelVersion:
    level, _, version = text.partition(":")
    minor = parse_minor(version)
    return LevelVersion(parse_level(level) or Level.RESTRICTED, LATEST if minor is None else minor)


def _version(policy: LevelVersion) -> str:
    if policy.minor == LATEST or policy.level is Level.PRIVILEGED:
        return "latest"
    return f"v1.{policy.minor}" if policy.minor <= _NEWEST else "future"


def _place(operation: str, resource: GroupResource, subresource: str) -> tuple[str, str, str]:
    return operation.lower(), "pod" if resource == _PODS else "controller", subresource
