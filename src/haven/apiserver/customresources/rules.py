"""The x-kubernetes-validations of a version's schema, compiled when the first object is checked."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from haven.apimachinery.fielderrors import ErrorList
from haven.apimachinery.schema.correlation import Correlation
from haven.apiserver.customresources.definition import Version

if TYPE_CHECKING:
    from haven.api.apiextensions.rules import RuleNode

__all__ = ["Rules", "rules_for"]

Tree = dict[str, Any]


class Rules:
    """The rules of one schema."""

    def __init__(self, open_api: Tree) -> None:
        self._open_api = open_api

    @cached_property
    def _compiled(self) -> RuleNode | None:
        # The engine is large, and a server may never see a definition with rules.
        from haven.api.apiextensions.rules import compile_rules

        return compile_rules(self._open_api)

    def evaluate(self, new: Tree, old: Tree | None, correlation: Correlation | None) -> tuple[ErrorList, list[str]]:
        """Return (complaints, those that are forgiven because nothing changed there)."""
        if self._compiled is None:
            return [], []
        return self._compiled.evaluate(new, old, correlation=correlation)


def rules_for(version: Version) -> Rules | None:
    """Return a version's rules; None if it has none."""
    if version.open_api is None or not _has_rules(version.open_api):
        return None
    return Rules(version.open_api)


def _has_rules(schema: Tree) -> bool:
    inner = [*(schema.get("properties") or {}).values(), *(schema.get("allOf") or [])]
    inner += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    return bool(schema.get("x-kubernetes-validations")) or any(map(_has_rules, inner))
