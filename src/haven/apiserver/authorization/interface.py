"""Authorizers tell whether a user may do something."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from haven.apiserver.request import RequestInfo, UserInfo

__all__ = ["Attributes", "Authorizer", "Decision", "Verdict"]


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a user wants to do. For paths that are no resources, only `verb` and `path` count."""

    user: UserInfo
    verb: str
    is_resource: bool = True
    namespace: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    path: str = ""
    label_selector: str = ""
    field_selector: str = ""

    @classmethod
    def of(cls, user: UserInfo, info: RequestInfo) -> Attributes:
        """Return the attributes of a request."""
        return cls(
            user=user,
            verb=info.verb,
            is_resource=info.is_resource,
            namespace=info.namespace,
            group=info.group,
            version=info.version,
            resource=info.resource,
            subresource=info.subresource,
            name=info.name,
            path=info.path,
            label_selector=info.label_selector,
            field_selector=info.field_selector,
        )


class Verdict(Enum):
    """Deny ends the chain; no opinion lets the next authorizer speak."""

    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and the reason, which reviews and audit show."""

    verdict: Verdict
    reason: str = ""


class Authorizer(Protocol):
    """One source of permissions. It answers from memory: it is asked for every request."""

    def authorize(self, attributes: Attributes) -> Decision:
        """Return whether the user may do it."""
        ...

    def rules_for(self, user: UserInfo, namespace: str) -> tuple[list[object], list[object], bool]:
        """Return (resource rules, non-resource rules, incomplete) for SelfSubjectRulesReview."""
        ...
