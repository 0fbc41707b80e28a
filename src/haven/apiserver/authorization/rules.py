"""What one policy rule allows, and whether some rules cover others. Pure.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from haven.api.rbac import v1 as rbac
from haven.apimachinery.goformat import quote
from haven.apiserver.authorization.interface import Attributes

__all__ = ["CompiledRule", "breakdown", "compact", "describe", "rule_allows", "uncovered"]

ALL = "*"


class CompiledRule:
    """A rule as sets; None stands for everything."""

    __slots__ = ("_groups", "_names", "_prefixes", "_resources", "_urls", "_verbs")

    def __init__(self, rule: rbac.PolicyRule) -> None:
        self._verbs = _set(rule.verbs or ())
        self._groups = _set(rule.api_groups)
        self._resources = _set(rule.resources)
        self._names = frozenset(rule.resource_names)
        self._urls = _set(rule.non_resource_urls)
        self._prefixes = tuple(url.rstrip("*") for url in rule.non_resource_urls if url.endswith("*"))

    def allows_resource(self, verb: str, group: str, resource: str, subresource: str, name: str) -> bool:
        """Tell whether the rule allows a verb on a resource. `resource` has its subresource behind a slash."""
        if self._verbs is not None and verb not in self._verbs:
            return False
        if self._groups is not None and group not in self._groups:
            return False
        resources = self._resources
        if (
            resources is not None
            and resource not in resources
            and not (subresource and f"*/{subresource}" in resources)
        ):
            return False
        return not self._names or name in self._names

    def allows_path(self, verb: str, path: str) -> bool:
        """Tell whether the rule allows a verb on a path that is no resource."""
        if self._verbs is not None and verb not in self._verbs:
            return False
        return self._urls is None or path in self._urls or path.startswith(self._prefixes)


def _set(values: Iterable[str]) -> frozenset[str] | None:
    result = frozenset(values)
    return None if ALL in result else result


def rule_allows(rule: CompiledRule, attributes: Attributes) -> bool:
    """Tell whether a rule allows what a user wants to do."""
    if not attributes.is_resource:
        return rule.allows_path(attributes.verb, attributes.path)
    resource = attributes.resource
    if attributes.subresource:
        resource = f"{resource}/{attributes.subresource}"
    return rule.allows_resource(attributes.verb, attributes.group, resource, attributes.subresource, attributes.name)


def uncovered(owner: Sequence[rbac.PolicyRule], wanted: Sequence[rbac.PolicyRule]) -> list[rbac.PolicyRule]:
    """Return the atoms of the wanted rules that no rule of the owner covers; [] if the owner may grant them all."""
    return [atom for rule in wanted for atom in breakdown(rule) if not any(_covers(held, atom) for held in owner)]


def breakdown(rule: rbac.PolicyRule) -> Iterator[rbac.PolicyRule]:
    """Yield rules with one verb on one thing each, that together allow what the rule does."""
    verbs = rule.verbs or []
    for group in rule.api_groups:
        for resource in rule.resources:
            for verb in verbs:
                if not rule.resource_names:
                    yield rbac.PolicyRule(verbs=[verb], api_groups=[group], resources=[resource])
                for name in rule.resource_names:
                    yield rbac.PolicyRule(verbs=[verb], api_groups=[group], resources=[resource], resource_names=[name])
    for url in rule.non_resource_urls:
        for verb in verbs:
            yield rbac.PolicyRule(verbs=[verb], non_resource_urls=[url])


def _covers(held: rbac.PolicyRule, atom: rbac.PolicyRule) -> bool:
    return (
        _holds(held.verbs or [], atom.verbs or [])
        and _holds(held.api_groups, atom.api_groups)
        and all(_covers_resource(held.resources, resource) for resource in atom.resources)
        and (not held.resource_names or (bool(atom.resource_names) and _has_all(held.resource_names, atom)))
        and all(any(_covers_url(mine, url) for mine in held.non_resource_urls) for url in atom.non_resource_urls)
    )


def _holds(held: Sequence[str], wanted: Sequence[str]) -> bool:
    return ALL in held or all(item in held for item in wanted)


def _has_all(held: Sequence[str], atom: rbac.PolicyRule) -> bool:
    return all(name in held for name in atom.resource_names)


def _covers_resource(held: Sequence[str], resource: str) -> bool:
    if ALL in held or resource in held:
        return True
    _, slash, subresource = resource.partition("/")
    return bool(slash) and f"*/{subresource}" in held


def _covers_url(held: str, url: str) -> bool:
    return held == url or (held.endswith("*") and url.startswith(held.rstrip("*")))


def compact(rules: Sequence[rbac.PolicyRule]) -> list[rbac.PolicyRule]:
    """Join atoms that differ only in the verb."""
    result: list[rbac.PolicyRule] = []
    simple: dict[tuple[str, str, tuple[str, ...]], rbac.PolicyRule] = {}
    for rule in rules:
        if (
            len(rule.resource_names) > 1
            or rule.non_resource_urls
            or len(rule.api_groups) != 1
            or len(rule.resources) != 1
        ):
            result.append(rule)
            continue
        key = (rule.api_groups[0], rule.resources[0], tuple(rule.resource_names))
        known = simple.get(key)
        if known is None:
            simple[key] = rbac.PolicyRule(
                verbs=list(rule.verbs or []),
                api_groups=list(rule.api_groups),
                resources=list(rule.resources),
                resource_names=list(rule.resource_names),
            )
        else:
            known.verbs = [*(known.verbs or []), *(rule.verbs or [])]
    return [*result, *simple.values()]


def describe(rule: rbac.PolicyRule) -> str:
    """Return a rule as messages show it."""
    fields = (
        ("APIGroups", rule.api_groups),
        ("Resources", rule.resources),
        ("NonResourceURLs", rule.non_resource_urls),
        ("ResourceNames", rule.resource_names),
        ("Verbs", rule.verbs or []),
    )
    parts = [f"{name}:[{' '.join(quote(value) for value in values)}]" for name, values in fields if values]
    return "{" + ", ".join(parts) + "}"
