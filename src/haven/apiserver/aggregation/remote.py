"""One APIService that a Service of the cluster answers for, and who is asking it.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from haven.api.apiregistration import v1
from haven.apiserver.passing import canonical
from haven.apiserver.request import UserInfo
from haven.apiserver.webhooks.target import DEFAULT_PORT, ServiceTarget

__all__ = ["AGGREGATOR", "Remote", "available_condition", "identity_headers"]

AGGREGATOR = UserInfo("system:kube-aggregator", groups=("system:masters",))
"""As whom the server itself asks extension servers: that is always allowed."""

_PLAIN = frozenset(string.ascii_letters + string.digits + "!#$&'*+-.^_`|~")


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a group's version is served, and how to trust who serves it."""

    name: str
    uid: str
    group: str
    version: str
    service: ServiceTarget
    ca: bytes
    insecure: bool
    group_priority: int
    version_priority: int
    available: bool

    @classmethod
    def of(cls, service: v1.APIService) -> Remote | None:
        """Return what an APIService says; None for one that this server answers itself."""
        reference = service.spec.service
        if reference is None:
            return None
        spec = service.spec
        condition = available_condition(service)
        return cls(
            name=service.metadata.name,
            uid=service.metadata.uid,
            group=spec.group,
            version=spec.version,
            service=ServiceTarget(reference.namespace, reference.name, reference.port or DEFAULT_PORT),
            ca=bytes(spec.ca_bundle),
            insecure=spec.insecure_skip_tls_verify,
            group_priority=spec.group_priority_minimum,
            version_priority=spec.version_priority,
            available=condition is not None and condition.status == "True",
        )

    @property
    def path(self) -> str:
        """The path below which it is served; what an extension server must answer there is its discovery document."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def available_condition(service: v1.APIService) -> v1.APIServiceCondition | None:
    """Return what an APIService's status says about its availability."""
    return next((one for one in service.status.conditions if one.type == "Available"), None)


def identity_headers(user: UserInfo) -> list[tuple[str, str]]:
    """Return what tells an extension server who asks; a name may come more than once."""
    headers = [("X-Remote-User", user.name)]
    if user.uid:
        headers.append(("X-Remote-Uid", user.uid))
    headers += [("X-Remote-Group", group) for group in user.groups]
    for key, values in user.extra.items():
        headers += [(canonical(f"X-Remote-Extra-{_escaped(key)}"), value) for value in values]
    return headers


def _escaped(key: str) -> str:
    """Return a key as the end of a header's name."""
    return "".join(char if char in _PLAIN else "".join(f"%{byte:02X}" for byte in char.encode()) for char in key)
