"""The authorizers together: masters first, then each in turn.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from haven.api.rbac import v1 as rbac
from haven.apimachinery.apierrors import Forbidden
from haven.apiserver.authentication.interface import MASTERS
from haven.apiserver.authorization.interface import Attributes, Authorizer, Decision, Rules, Verdict, refusal
from haven.apiserver.request import UserInfo

__all__ = ["AlwaysAllowGroups", "AuthorizerUnion", "require"]

_ALLOWED = Decision(Verdict.ALLOW)
_NOTHING = Decision(Verdict.NO_OPINION)
EVERYTHING = (
    rbac.PolicyRule(verbs=["*"], api_groups=["*"], resources=["*"]),
    rbac.PolicyRule(verbs=["*"], non_resource_urls=["*"]),
)


class AlwaysAllowGroups:
    """Members of these groups may do everything."""

    def __init__(self, groups: Collection[str] = (MASTERS,)) -> None:
        self._groups = frozenset(groups)

    def authorize(self, attributes: Attributes) -> Decision:
        return _NOTHING if self._groups.isdisjoint(attributes.user.groups) else _ALLOWED

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        return Rules() if self._groups.isdisjoint(user.groups) else Rules(EVERYTHING)


class AuthorizerUnion:
    """Asks each authorizer in turn until one allows or denies; the reasons of those without opinion are kept."""

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self._authorizers = tuple(authorizers)

    def authorize(self, attributes: Attributes) -> Decision:
        reasons: list[str] = []
        for authorizer in self._authorizers:
            decision = authorizer.authorize(attributes)
            if decision.verdict is not Verdict.NO_OPINION:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(Verdict.NO_OPINION, "\n".join(reasons)) if reasons else _NOTHING

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        rules: list[rbac.PolicyRule] = []
        incomplete = False
        errors: list[str] = []
        for authorizer in self._authorizers:
            found = authorizer.rules_for(user, namespace)
            rules.extend(found.rules)
            incomplete = incomplete or found.incomplete
            if found.error:
                errors.append(found.error)
        error = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]" if errors else ""
        return Rules(rules, incomplete, error)


def require(authorizer: Authorizer, attributes: Attributes) -> None:
    """Raise Forbidden, as the client shall see it, unless the user may do it."""
    decision = authorizer.authorize(attributes)
    if decision.verdict is not Verdict.ALLOW:
        raise _refused(attributes, decision)


def _refused(attributes: Attributes, decision: Decision) -> Forbidden:
    return refusal(attributes, decision.reason)
