"""The authorizers together: masters first, then each in turn.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import zip_longest

from haven.api.rbac import v1 as rbac
from haven.apiserver.authentication.interface import MASTERS
from haven.apiserver.authorization.interface import (
    Attributes,
    Authorizer,
    Decision,
    RemoteAuthorizer,
    Rules,
    Verdict,
    decide,
)
from haven.apiserver.request import UserInfo

__all__ = ["AlwaysAllowGroups", "AuthorizerUnion"]

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

    def rules_for(self, _user: UserInfo, _namespace: str) -> Rules:
        return Rules()  # It stands outside of the rules: those of administrators are a role's, too.


class AuthorizerUnion:
    """Asks each authorizer in turn until one allows or denies; the reasons of those without opinion are kept.

    `is_remote` tells whether one of them may have to ask somebody outside: then `decide` has to be asked, as
    `authorize` passes those over.
    """

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self._authorizers: tuple[tuple[Authorizer, tuple[str, str] | None], ...] = ()
        self.decisions: dict[tuple[tuple[str, str], Verdict], int] = {}
        """How often each authorizer, by type and name, allowed or denied; those without a name have no part in it."""
        self.is_remote = False
        self.replace(authorizers)

    def replace(self, authorizers: Sequence[Authorizer], names: Sequence[tuple[str, str] | None] = ()) -> None:
        """Ask others from now on, which have these types and names."""
        self._authorizers = tuple(zip_longest(authorizers, names))
        self.is_remote = any(isinstance(one, RemoteAuthorizer) for one in authorizers)

    @property
    def authorizers(self) -> Sequence[Authorizer]:
        """Those who are asked, in this order."""
        return [authorizer for authorizer, _ in self._authorizers]

    def authorize(self, attributes: Attributes) -> Decision:
        reasons: list[str] = []
        for authorizer, name in self._authorizers:
            decision = authorizer.authorize(attributes)
            if decision.verdict is not Verdict.NO_OPINION:
                if name is not None:
                    self._count(name, decision.verdict)
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(Verdict.NO_OPINION, "\n".join(reasons)) if reasons else _NOTHING

    async def decide(self, attributes: Attributes) -> Decision:
        if not self.is_remote:
            return self.authorize(attributes)
        reasons: list[str] = []
        errors: list[str] = []
        for authorizer, name in self._authorizers:
            decision = await decide(authorizer, attributes)
            if decision.error:
                errors.append(decision.error)
            if decision.reason:
                reasons.append(decision.reason)
            if decision.verdict is not Verdict.NO_OPINION:
                if name is not None:
                    self._count(name, decision.verdict)
                return Decision(decision.verdict, decision.reason, _aggregated(errors))
        return Decision(Verdict.NO_OPINION, "\n".join(reasons), _aggregated(errors))

    def _count(self, name: tuple[str, str], verdict: Verdict) -> None:
        key = (name, verdict)
        self.decisions[key] = self.decisions.get(key, 0) + 1

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        rules: list[rbac.PolicyRule] = []
        incomplete = False
        errors: list[str] = []
        for authorizer, _ in self._authorizers:
            found = authorizer.rules_for(user, namespace)
            rules.extend(found.rules)
            incomplete = incomplete or found.incomplete
            if found.error:
                errors.extend(found.errors or (found.error,))
        return Rules(rules, incomplete, _aggregated(errors))


def _aggregated(errors: Sequence[str]) -> str:
    unique = list(dict.fromkeys(errors))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]" if unique else ""
