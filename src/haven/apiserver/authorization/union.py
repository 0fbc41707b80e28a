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

__all__ = ["AlwaysAllowGroups", "AlwaysAllowPaths", "AuthorizerUnion", "require"]

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


class AlwaysAllowPaths:
    """Everybody may ask for these paths, roles or not; one that ends with * is a prefix.

    For components that serve health to a load balancer; the API server itself leaves this to its default roles.
    """

    def __init__(self, paths: Collection[str]) -> None:
        self._paths = frozenset(path for path in paths if not path.endswith("*"))
        self._prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))

    def authorize(self, attributes: Attributes) -> Decision:
        if attributes.is_resource:
            return _NOTHING
        path = attributes.path
        return _ALLOWED if path in self._paths or path.startswith(self._prefixes) else _NOTHING

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        return Rules()


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
