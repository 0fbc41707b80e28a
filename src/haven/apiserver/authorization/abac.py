"""Attribute-based access control: one policy on each line of a file, any of which may allow.

Source: https://kubernetes.io/docs/reference/access-authn-authz/abac/
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from haven.apiserver.authentication.interface import ALL_AUTHENTICATED
from haven.apiserver.authorization.interface import Attributes, Decision, Rules, Verdict
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.request import UserInfo

__all__ = ["ABAC", "AlwaysAllow", "AlwaysDeny", "parse_policies"]

_ALLOWED = Decision(Verdict.ALLOW)
_VERSION = "abac.authorization.kubernetes.io/v1beta1"


class _Spec(msgspec.Struct, rename="camel", frozen=True):
    user: str = ""
    group: str = ""
    readonly: bool = False
    api_group: str = ""
    resource: str = ""
    namespace: str = ""
    non_resource_path: str = ""


class _Policy(msgspec.Struct, rename="camel", frozen=True):
    api_version: str = ""
    kind: str = ""
    spec: _Spec = _Spec()


def parse_policies(text: str) -> list[_Spec]:
    """Return the policies of a file; raise ConfigError. A line that names no version is of the oldest format."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            policy = msgspec.json.decode(line.encode(), type=_Policy)
            is_versioned = (policy.api_version, policy.kind) == (_VERSION, "Policy")
            spec = policy.spec if is_versioned else _of_oldest(msgspec.json.decode(line.encode(), type=_Spec))
        except msgspec.MsgspecError as error:
            raise ConfigError(f"error reading policy file on line {number}: {error}") from None
        if "*" in (spec.user, spec.group):
            spec = msgspec.structs.replace(spec, user="", group=ALL_AUTHENTICATED)
        found.append(spec)
    return found


def _of_oldest(line: _Spec) -> _Spec:
    """Return what a line without version says: what it leaves out, it does not ask for."""
    return msgspec.structs.replace(
        line,
        group=line.group if line.user or line.group else ALL_AUTHENTICATED,
        namespace=line.namespace or "*",
        resource=line.resource or "*",
        api_group="*",
        non_resource_path="" if line.namespace or line.resource else "*",
    )


class ABAC:
    """Authorizes by the policies of a file."""

    def __init__(self, policies: Sequence[_Spec]) -> None:
        self._policies = tuple(policies)

    def authorize(self, attributes: Attributes) -> Decision:
        if any(_matches(policy, attributes) for policy in self._policies):
            return _ALLOWED
        return Decision(Verdict.NO_OPINION, "No policy matched.")

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        return Rules(incomplete=True, error="user rule resolution is not supported for ABAC policies")


class AlwaysAllow:
    """Allows everything."""

    def authorize(self, attributes: Attributes) -> Decision:
        return _ALLOWED

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        from haven.apiserver.authorization.union import EVERYTHING

        return Rules(EVERYTHING)


class AlwaysDeny:
    """Has a good opinion of nothing."""

    def authorize(self, attributes: Attributes) -> Decision:
        return Decision(Verdict.NO_OPINION, "Everything is forbidden.")

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        return Rules()


def _matches(policy: _Spec, asked: Attributes) -> bool:
    user = asked.user
    if not policy.user and not policy.group:
        return False
    if policy.user not in ("", user.name) or (policy.group and policy.group not in user.groups):
        return False
    if policy.readonly and asked.verb not in ("get", "list", "watch"):
        return False
    if not asked.is_resource:
        path = policy.non_resource_path
        return path in ("*", asked.path) or (path.endswith("*") and asked.path.startswith(path[:-1]))
    return (
        policy.namespace in ("*", asked.namespace)
        and policy.resource in ("*", asked.resource)
        and policy.api_group in ("*", asked.group)
    )
