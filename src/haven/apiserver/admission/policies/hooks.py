"""The policies of one kind with their bindings, compiled; every change counts at once.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from haven.api import scheme
from haven.api.scheme import Resource

__all__ = ["Hook", "Hooks"]

P = TypeVar("P")
B = TypeVar("B")
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Hook(Generic[P, B, E]):
    """A policy that is bound; `evaluator` is what it was compiled to."""

    policy: P
    bindings: tuple[B, ...]
    evaluator: E


class Hooks(Generic[P, B, E]):
    """Follows stored policies and bindings; compiles a policy when it is first asked for."""

    def __init__(self, policy: type[P], binding: type[B], compile_: Callable[[P], E]) -> None:
        self._policies = scheme.resource_of(policy)
        self._bindings = scheme.resource_of(binding)
        self.resources: Sequence[Resource[Any]] = (self._policies, self._bindings)
        self._compile = compile_
        self._known: dict[Resource[Any], dict[str, Any]] = {self._policies: {}, self._bindings: {}}
        self._compiled: dict[str, tuple[P, E]] = {}
        self._hooks: tuple[Hook[P, B, E], ...] | None = ()
        self.fixed: tuple[Hook[P, B, E], ...] = ()
        """Those that the API does not know: they come before all others."""

    def fix(self, policies: Sequence[P], bindings: Sequence[B]) -> None:
        """Take policies and bindings over that the API does not know, each sorted by name."""
        made: list[Hook[P, B, E]] = []
        for policy in policies:
            name = _name(policy)
            bound = tuple(one for one in bindings if _policy_name(one) == name)
            if bound:
                made.append(Hook(policy, bound, self._compile(policy)))
        self.fixed = tuple(made)
        self._hooks = None

    def changed(self, resource: Resource[Any], old: Any | None, new: Any | None) -> None:
        known = self._known[resource]
        if new is None:
            known.pop(old.metadata.name if old is not None else "", None)
        else:
            known[new.metadata.name] = new
        self._hooks = None

    def all(self) -> tuple[Hook[P, B, E], ...]:
        """Return the bound policies by name, bindings by name."""
        if self._hooks is None:
            self._hooks = self._made()
        return self._hooks

    def _made(self) -> tuple[Hook[P, B, E], ...]:
        policies, bindings = self._known[self._policies], self._known[self._bindings]
        by_policy: dict[str, list[B]] = {}
        for name in sorted(bindings):
            by_policy.setdefault(bindings[name].spec.policy_name, []).append(bindings[name])
        bound = [name for name in sorted(policies) if name in by_policy]
        self._compiled = {name: self._compiled_of(name, policies[name]) for name in bound}
        stored = (Hook(policies[name], tuple(by_policy[name]), self._compiled[name][1]) for name in bound)
        return (*self.fixed, *stored)

    def _compiled_of(self, name: str, policy: Any) -> tuple[P, E]:
        known: Any = self._compiled.get(name)
        if known is not None and known[0].spec == policy.spec:
            return policy, known[1]
        return policy, self._compile(policy)


def _name(policy: Any) -> str:
    return str(policy.metadata.name)


def _policy_name(binding: Any) -> str:
    return str(binding.spec.policy_name)
