"""Whether an extension server can be asked: what its Service and its endpoints say.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/api-service-v1/ and the conditions that
kube-aggregator sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haven.api.apiregistration import v1
from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.apimachinery.goformat import quote
from haven.apiserver.aggregation.remote import Remote

__all__ = ["FAILED_CHECK", "LOCAL", "PASSED", "Finding", "failed_check", "service_problem", "with_condition"]

FAILED_CHECK = "FailedDiscoveryCheck"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said about an APIService's availability."""

    status: str
    reason: str
    message: str


PASSED = Finding("True", "Passed", "all checks passed")
LOCAL = Finding("True", "Local", "Local APIServices are always available")


def service_problem(
    remote: Remote, service: core.Service | None, slices: Sequence[discovery.EndpointSlice]
) -> Finding | None:
    """Return why nobody can be asked; None if somebody can. `slices` are the Service's."""
    where = f"service/{remote.service.name} in {quote(remote.service.namespace)}"
    if service is None:
        return Finding("False", "ServiceNotFound", f"{where} is not present")
    if service.spec.type != "ClusterIP":
        return None
    port = next((one for one in service.spec.ports if one.port == remote.service.port), None)
    if port is None:
        return Finding("False", "ServicePortError", f"{where} is not listening on port {remote.service.port}")
    if not slices:
        return Finding("False", "EndpointsNotFound", f"cannot find endpointslices for {where}")
    if not any(_has_endpoint(one, port.name) for one in slices):
        text = f"endpointslices for {where} have no addresses with port name {quote(port.name)}"
        return Finding("False", "MissingEndpoints", text)
    return None


def _has_endpoint(one: discovery.EndpointSlice, port_name: str) -> bool:
    return any(endpoint.conditions.ready is not False for endpoint in one.endpoints or ()) and any(
        (port.name or "") == port_name and port.port is not None for port in one.ports or ()
    )


def failed_check(because: str) -> Finding:
    """Return the finding that a server does not answer for its group."""
    return Finding("False", FAILED_CHECK, because)


def with_condition(service: v1.APIService, finding: Finding, now: str) -> v1.APIServiceStatus | None:
    """Return the status that says so; None if it does already. The time only moves when the status changes."""
    found = next((one for one in service.status.conditions if one.type == "Available"), None)
    if found is not None and (found.status, found.reason, found.message) == (
        finding.status,
        finding.reason,
        finding.message,
    ):
        return None
    since = found.last_transition_time if found is not None and found.status == finding.status else now
    condition = v1.APIServiceCondition(
        type="Available",
        status=finding.status,
        last_transition_time=since,
        reason=finding.reason,
        message=finding.message,
    )
    others = list(service.status.conditions)
    if found is None:
        return v1.APIServiceStatus(conditions=[*others, condition])
    return v1.APIServiceStatus(conditions=[condition if one is found else one for one in others])
