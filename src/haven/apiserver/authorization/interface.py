"""Authorizers tell whether a user may do something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from haven.api.rbac import v1 as rbac
from haven.api.scheme import Resource
from haven.apimachinery.apierrors import Forbidden, GroupResource
from haven.apimachinery.goformat import quote
from haven.apiserver.request import RequestInfo, UserInfo

__all__ = [
    "Attributes",
    "Authorizer",
    "Decision",
    "Observer",
    "RemoteAuthorizer",
    "Rules",
    "Verdict",
    "decide",
    "refusal",
    "refusal_message",
]


class Attributes(NamedTuple):
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
        return cls(  # By position: it is made for every request.
            user,
            info.verb,
            info.is_resource,
            info.namespace,
            info.group,
            info.version,
            info.resource,
            info.subresource,
            info.name,
            info.path,
            info.label_selector,
            info.field_selector,
        )


class Verdict(Enum):
    """Deny ends the chain; no opinion lets the next authorizer speak."""

    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and the reason, which reviews and audit show. `error` tells what could not be evaluated."""

    verdict: Verdict
    reason: str = ""
    error: str = ""


class Rules(NamedTuple):
    """What a user may do in a namespace, as far as it is written in rules. `error` tells what could not be read.

    `errors` are the parts of that, where it has several.
    """

    rules: Sequence[rbac.PolicyRule] = ()
    incomplete: bool = False
    error: str = ""
    errors: Sequence[str] = ()


class Authorizer(Protocol):
    """One source of permissions. It answers from memory: it is asked for every request."""

    def authorize(self, attributes: Attributes) -> Decision:
        """Return whether the user may do it."""
        ...

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        """Return the rules that apply to a user, for SelfSubjectRulesReview."""
        ...


@runtime_checkable
class RemoteAuthorizer(Protocol):
    """An authorizer that may have to ask somebody outside; its `authorize` only knows what it need not ask for."""

    async def decide(self, attributes: Attributes) -> Decision:
        """Return whether the user may do it."""
        ...


async def decide(authorizer: Authorizer, attributes: Attributes) -> Decision:
    """Return whether the user may do it, also if somebody outside has to be asked."""
    remote: RemoteAuthorizer | None = authorizer if hasattr(authorizer, "decide") else None  # type: ignore[assignment]
    if remote is not None:  # isinstance would look at every member of the protocol, for each request.
        return await remote.decide(attributes)
    return authorizer.authorize(attributes)


class Observer(Protocol):
    """Follows stored objects, in order to answer from memory.

    The API server calls `changed` for each object of `resources` when it starts, then for each change, on the event
    loop, before the write that made it is answered. An observer may have `ignores(resource, field)`, which tells
    whether it would make nothing of a new object whose selectable fields `field` returns: such are not shown to it.
    """

    @property
    def resources(self) -> Sequence[Resource[Any]]:
        """Return the resources to follow."""
        ...

    def changed(self, resource: Resource[Any], old: Any | None, new: Any | None) -> None:
        """Take note: `old` is None for a new object, `new` None for a deleted one."""
        ...


def refusal_message(attributes: Attributes) -> str:
    """Return what a user may not do, in upstream's words."""
    user, verb = quote(attributes.user.name), attributes.verb
    if not attributes.is_resource:
        return _sanitize(f"User {user} cannot {verb} path {quote(attributes.path)}")
    resource = attributes.resource
    if attributes.subresource:
        resource = f"{resource}/{attributes.subresource}"
    where = f"in the namespace {quote(attributes.namespace)}" if attributes.namespace else "at the cluster scope"
    return _sanitize(
        f"User {user} cannot {verb} resource {quote(resource)} in API group {quote(attributes.group)} {where}"
    )


class NotAllowed(Forbidden):
    """No authorizer allows a request, or the impersonation in it."""


def refusal(attributes: Attributes, reason: str) -> Forbidden:
    """Return the error of a request that no authorizer allows."""
    message = refusal_message(attributes)
    if reason:
        message = f"{message}: {reason}"
    return NotAllowed.of(GroupResource(attributes.group, attributes.resource), attributes.name, message)


def _sanitize(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
