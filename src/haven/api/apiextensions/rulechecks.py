"""Whether the rules in a definition's schema compile, make sense where they stand, and cannot cost too much.

The cost of a rule is what it can cost at most, times how often its node can be in one object; both follow from the
limits that the schema declares.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#resource-use-by-validation-functions
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from haven.api.apiextensions import v1
from haven.api.apiextensions.rules import CompiledRule, compile_node_rules, self_type_name
from haven.api.internalform import internal_form
from haven.apimachinery import serialization
from haven.apimachinery.cel.schematypes import Declared, declared, with_metadata
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, internal, invalid

__all__ = ["RULE_COST_MAX", "SCHEMA_COST_MAX", "check_rules"]

OpenAPI = Mapping[str, Any]

RULE_COST_MAX = 10_000_000
"""What one rule may cost for one object."""
SCHEMA_COST_MAX = 100_000_000
"""What all rules of a schema may cost for one object."""
_COST_MAX = 2**64 - 1
_SHOWN_MAX = 4
_RULES = "x-kubernetes-validations"
_EMBEDDED = "x-kubernetes-embedded-resource"
_NO_TYPES = (
    "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert "
    "structural schema to CEL declarations"
)
_NO_ELEMENT_TYPE = "failed to convert to declType for CEL validation rules"


def check_rules(
    schema: v1.JSONSchemaProps, path: Path, *, limit_each: bool = True, faulty: Sequence[str] = ()
) -> ErrorList:
    """Return every complaint about the rules of a structural schema.

    `limit_each` tells whether single rules may not cost too much: they may where the schema did not change. Rules at
    or above a `faulty` field are not looked at: what they see may not be what was meant.
    """
    checker = _Checker(limit_each=limit_each, faulty=faulty)
    tree = serialization.to_tree(schema)
    checker.walk(tree, path, _Scope(tree), None)
    return checker.errors + checker.total(path)


class _Scope:
    """A node of the schema as its rules see it; types are only worked out where rules need them."""

    __slots__ = ("_known", "_parent", "_seen", "_shown", "cardinality", "in_scope", "is_element", "schema")

    def __init__(
        self,
        schema: OpenAPI,
        parent: _Scope | None = None,
        cardinality: int | None = 1,
        *,
        shown: OpenAPI | None = None,
        is_element: bool = False,
    ) -> None:
        self.schema = schema
        self._parent = parent
        self._shown = shown if shown is not None else schema
        self.is_element = is_element
        self.cardinality = cardinality
        self.in_scope: bool = bool(schema.get(_RULES)) or (parent is not None and parent.in_scope)
        self._seen: Declared | None = None
        self._known = False

    def field(self, name: str, schema: OpenAPI) -> _Scope:
        """Return the scope of a field. What rules see of metadata from above is what metadata always has."""
        shown = schema
        if self.in_scope:
            above = with_metadata(dict(self._shown)) if self._is_resource else self._shown
            shown = (above.get("properties") or {}).get(name, schema)
        return _Scope(schema, self, self._inner_cardinality(), shown=shown)

    def element(self, schema: OpenAPI) -> _Scope:
        """Return the scope of the items of a list, or of a map's values."""
        return _Scope(schema, self, self._inner_cardinality(), is_element=True)

    def _inner_cardinality(self) -> int | None:
        most = _most_elements(self.schema)
        return None if self.cardinality is None or most is None else _times(self.cardinality, most)

    @property
    def _is_resource(self) -> bool:
        return self._parent is None or bool(self.schema.get(_EMBEDDED))

    @property
    def is_hidden(self) -> bool:
        """Whether the types above know no elements."""
        above = self._parent.seen if self.is_element and self._parent is not None else None
        return above is not None and above.element is None

    @property
    def seen(self) -> Declared | None:
        """The type of the node, whose name is its own; None if rules in scope cannot see it."""
        if not self._known:
            self._known = True
            hidden_above = self._parent is not None and self._parent.in_scope and self._parent.seen is None
            if self.in_scope and not hidden_above:
                self._seen = declared(dict(self._shown), self_type_name(), is_root=self._is_resource)
        return self._seen


def _most_elements(schema: OpenAPI) -> int | None:
    """Return how many values a node has at most; None if there is no limit."""
    kind = schema.get("type", "")
    if kind == "object" and schema.get("additionalProperties") is not None:
        most: int | None = schema.get("maxProperties")
    elif kind == "array":
        most = schema.get("maxItems")
    else:
        return 1
    return None if most is None else max(0, most)


def _times(cost: int, count: int) -> int:
    return min(cost * count, _COST_MAX)


class _Checker:
    def __init__(self, *, limit_each: bool, faulty: Sequence[str]) -> None:
        self.errors: ErrorList = []
        self._faulty = faulty
        self._limit_each = limit_each
        self._total = 0
        self._expensive: list[tuple[int, Path]] = []

    def walk(self, schema: OpenAPI, path: Path, scope: _Scope, uncorrelatable: Path | None) -> None:
        """Check what is in a node, then its own rules. `uncorrelatable` is the list whose items are not told apart."""
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            self.walk(extra, path.child("additionalProperties"), scope.element(extra), uncorrelatable)
        for name, sub in sorted((schema.get("properties") or {}).items()):
            place = path.child("properties").key(name)
            self.walk(sub, place, scope.field(name, sub), uncorrelatable)
        items = schema.get("items")
        if isinstance(items, dict):
            inner = uncorrelatable
            if schema.get("x-kubernetes-list-type") != "map" and inner is None:
                inner = path
            self.walk(items, path.child("items"), scope.element(items), inner)
        rules = schema.get(_RULES) or []
        if not rules or self._is_faulty(str(path)):
            return
        if scope.seen is None:
            self.errors.append(internal(path.child(_RULES), _NO_TYPES))
            return
        if scope.is_hidden:
            self.errors.append(internal(path.child(_RULES), _NO_ELEMENT_TYPE))
            return
        for index, compiled in enumerate(compile_node_rules(schema, rules, scope.seen)):
            self._rule(compiled, path.child(_RULES).index(index), scope, uncorrelatable)

    def _is_faulty(self, path: str) -> bool:
        return any(field == path or field.startswith((path + ".", path + "[")) for field in self._faulty)

    def _rule(self, compiled: CompiledRule, path: Path, scope: _Scope, uncorrelatable: Path | None) -> None:
        seen = scope.seen
        assert seen is not None
        count = scope.cardinality if scope.cardinality is not None else seen.max_cardinality
        if compiled.program is not None:
            self._cost(_times(compiled.program.estimate(seen)[1], count), "estimated rule cost", path.child("rule"))
        if compiled.error:
            shown = internal_form(serialization.convert(dict(compiled.rule), v1.ValidationRule))
            self.errors.append(invalid(path.child("rule"), shown, compiled.error))
        if compiled.message_error:
            shown = internal_form(serialization.convert(dict(compiled.rule), v1.ValidationRule))
            self.errors.append(invalid(path.child("messageExpression"), shown, compiled.message_error))
        elif compiled.message is not None:
            cost = compiled.message.estimate(seen)[1]
            self._cost(cost, "estimated messageExpression cost", path.child("messageExpression"))
        if compiled.uses_old:
            if uncorrelatable is not None:
                words = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelatable}"
                self.errors.append(invalid(path.child("rule"), compiled.rule.get("rule", ""), words))
        elif compiled.rule.get("optionalOldSelf") is not None:
            words = "may not be set if oldSelf is not used in rule"
            self.errors.append(invalid(path.child("optionalOldSelf"), compiled.rule["optionalOldSelf"], words))

    def _cost(self, cost: int, name: str, path: Path) -> None:
        if self._limit_each and cost > RULE_COST_MAX:
            self.errors.append(forbidden(path, _too_expensive(name, cost, RULE_COST_MAX)))
        self._total = min(self._total + cost, _COST_MAX)
        if cost >= SCHEMA_COST_MAX // 100:
            self._expensive = sorted([*self._expensive, (cost, path)], key=lambda one: -one[0])[:_SHOWN_MAX]

    def total(self, path: Path) -> ErrorList:
        """Complain if all rules together cost too much."""
        if self._total <= SCHEMA_COST_MAX:
            return []
        words = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        return [
            *(forbidden(place, words) for _, place in self._expensive),
            forbidden(path, _too_expensive(name, self._total, SCHEMA_COST_MAX)),
        ]


def _too_expensive(name: str, cost: int, most: int) -> str:
    factor = cost / most
    if factor > 100:
        shown = "more than 100x"
    elif factor < 1.5:
        shown = f"{factor:f}x"
    else:
        shown = f"{factor:.1f}x"
    return (
        f"{name} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and "
        "maxLength where arrays, maps, and strings are declared)"
    )
