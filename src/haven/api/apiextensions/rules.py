"""The x-kubernetes-validations of a schema: compiled once, evaluated for every object.

A rule sees its node as `self`, and as `oldSelf` what stood there before, where old and new can be told to be the same.
All evaluations for one object share a budget. What did not change may go on breaking rules that do not look at the
old value.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from haven.apimachinery.cel import types
from haven.apimachinery.cel.attributes import Again, Frame
from haven.apimachinery.cel.environment import Environment, Outcome, Program
from haven.apimachinery.cel.errors import CelError, CompileError, ProgramError
from haven.apimachinery.cel.escaping import escape
from haven.apimachinery.cel.schematypes import Declared, declared
from haven.apimachinery.cel.values import Optional
from haven.apimachinery.fielderrors import (
    OMIT,
    ErrorList,
    FieldError,
    Path,
    duplicate,
    forbidden,
    invalid,
    required,
)
from haven.apimachinery.goformat import quote
from haven.apimachinery.schema.correlation import Correlation, by_keys, item_key

__all__ = ["BUDGET", "CompiledRule", "RuleNode", "compile_node_rules", "compile_rules", "self_type_name"]

Tree = dict[str, Any]
OpenAPI = Mapping[str, Any]

BUDGET = 10_000_000
"""What all rules together may cost for one object."""
_MESSAGE_BYTES_MAX = 5 * 1024
_RULES = "x-kubernetes-validations"
_EMBEDDED = "x-kubernetes-embedded-resource"
_NO_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"
_step = re.compile(r"\.(?P<dotted>[^.\[\]']+)|\['(?P<quoted>(?:[^'\\]|\\.)*)'\]")
_names = itertools.count(1)


def self_type_name() -> str:
    """Return a name for the type of `self` that nobody can come to rely on."""
    return f"selfType{next(_names)}"


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule: its program, or why there is none. `path` is where its complaints are put, below its node."""

    rule: OpenAPI
    program: Program | None = None
    error: str = ""
    message: Program | None = None
    message_error: str = ""
    path: str = ""

    @property
    def uses_old(self) -> bool:
        """Whether the rule looks at the old value."""
        return self.program is not None and "oldSelf" in self.program.references

    @property
    def is_old_optional(self) -> bool:
        """Whether the rule also runs where there is no old value."""
        return bool(self.rule.get("optionalOldSelf"))

    @property
    def shown(self) -> str:
        """How complaints name the rule."""
        message: str = self.rule.get("message") or ""
        return (message or self.rule.get("rule", "")).strip()


def compile_node_rules(schema: OpenAPI, rules: list[OpenAPI], seen: Declared) -> list[CompiledRule]:
    """Compile the rules of one node of a schema, which expressions see as `seen`."""
    plain = Environment({"self": seen.type, "oldSelf": seen.type}, [seen])
    optional = Environment({"self": seen.type, "oldSelf": types.optional_type(seen.type)}, [seen])
    return [_compile(schema, rule, optional if rule.get("optionalOldSelf") else plain) for rule in rules]


def _compile(schema: OpenAPI, rule: OpenAPI, environment: Environment) -> CompiledRule:
    text = rule.get("rule") or ""
    if not text.strip():
        return CompiledRule(rule)
    try:
        program = environment.compile(text)
    except ProgramError as error:
        return CompiledRule(rule, error=f"program instantiation failed: {error}")
    except CompileError as error:
        return CompiledRule(rule, error=f"compilation failed: {error}")
    if program.output_type != types.BOOL:
        return CompiledRule(rule, error="cel expression must evaluate to a bool")
    compiled = CompiledRule(rule, program, path=_normalized(rule.get("fieldPath") or "", schema))
    expression = rule.get("messageExpression") or ""
    if not expression:
        return compiled
    try:
        message = environment.compile(expression)
    except ProgramError as error:
        return replace(compiled, message_error=f"messageExpression instantiation failed: {error}")
    except CompileError as error:
        return replace(compiled, message_error=f"messageExpression compilation failed: {error}")
    if message.output_type != types.STRING:
        return replace(compiled, message_error="messageExpression must evaluate to a string")
    return replace(compiled, message=message)


def _normalized(path: str, schema: OpenAPI) -> str:
    """Return a fieldPath as complaints show it; "" if it leads nowhere."""
    place: Path | None = None
    position, node = 0, schema
    while position < len(path):
        found = _step.match(path, position)
        if found is None:
            return ""
        position = found.end()
        name = found["dotted"] or re.sub(r"\\(.)", r"\1", found["quoted"] or "")
        properties, extra = node.get("properties") or {}, node.get("additionalProperties")
        if name in properties:
            place, node = (Path(name) if place is None else place.child(name)), properties[name]
        elif isinstance(extra, dict) and not properties:
            place, node = (place or Path()).key(name), extra
        else:
            return ""
    return str(place) if place is not None else ""


# ---- all rules of a schema


@dataclass(slots=True)
class RuleNode:
    """A node of a schema with its rules and those below it."""

    schema: OpenAPI
    seen: Declared | None
    rules: list[CompiledRule] = field(default_factory=list)
    failure: str = ""
    items: RuleNode | None = None
    extra: RuleNode | None = None
    properties: dict[str, RuleNode] = field(default_factory=dict)
    all_of: list[RuleNode] = field(default_factory=list)

    def evaluate(
        self,
        new: Tree,
        old: Tree | None,
        *,
        correlation: Correlation | None = None,
        path: Path | None = None,
    ) -> tuple[ErrorList, list[str]]:
        """Return (complaints about an object, those that are forgiven as warnings because nothing changed)."""
        run = _Run()
        run.node(self, new, old, _Ratchet(correlation, None, is_root=correlation is not None), path)
        return run.errors, run.warnings


def compile_rules(schema: OpenAPI, *, is_root: bool = True) -> RuleNode | None:
    """Return the rules of a schema; None if it has none."""
    if not _has_rules(schema):
        return None
    return _node(schema, schema, declared(dict(schema), self_type_name(), is_root=is_root))


def _has_rules(schema: OpenAPI) -> bool:
    inner = [*(schema.get("properties") or {}).values(), *(schema.get("allOf") or [])]
    inner += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    return bool(schema.get(_RULES)) or any(map(_has_rules, inner))


def _node(ruled: OpenAPI, schema: OpenAPI, seen: Declared | None) -> RuleNode | None:
    """Return the rules of `ruled` for values of `schema`: both are the same, but within allOf."""
    node = RuleNode(schema, seen)
    rules = ruled.get(_RULES) or []
    if rules and seen is None:
        node.failure = "failed to convert to declType for CEL validation rules"
    elif rules and seen is not None:
        node.rules = compile_node_rules(schema, rules, seen)
    element = seen.element if seen is not None else None
    if isinstance(ruled.get("items"), dict) and isinstance(schema.get("items"), dict):
        node.items = _node(ruled["items"], schema["items"], element)
    if isinstance(ruled.get("additionalProperties"), dict) and isinstance(schema.get("additionalProperties"), dict):
        node.extra = _node(ruled["additionalProperties"], schema["additionalProperties"], element)
    known = schema.get("properties") or {}
    for name, sub in (ruled.get("properties") or {}).items():
        if name not in known or not _has_rules(sub):
            continue
        escaped = escape(name)
        if escaped is not None:
            inner = (seen.fields or {}).get(escaped) if seen is not None else None
        else:
            inner = declared(dict(known[name]), self_type_name(), is_root=bool(known[name].get(_EMBEDDED)))
        if inner is not None and (found := _node(sub, known[name], inner)) is not None:
            node.properties[name] = found
    for one in ruled.get("allOf") or []:
        if (found := _node(one, schema, seen)) is not None:
            node.all_of.append(found)
    has_any = node.rules or node.failure or node.items or node.extra or node.properties or node.all_of
    return node if has_any else None


# ---- evaluation


@dataclass(frozen=True, slots=True)
class _Ratchet:
    """Tells whether a complaint is about something that did not change."""

    current: Correlation | None
    parent: Correlation | None
    is_root: bool = False

    @property
    def forgives(self) -> bool:
        found = self.current if self.current is not None else self.parent
        return found is not None and found.unchanged

    def key(self, name: str) -> _Ratchet:
        if self.current is None:
            return self
        if self.is_root and name in ("apiVersion", "kind"):
            return _Ratchet(None, None)
        return _Ratchet(self.current.key(name), self.current)

    def index(self, index: int) -> _Ratchet:
        return self if self.current is None else _Ratchet(self.current.index(index), self.current)

    def within_all_of(self) -> _Ratchet:
        return _Ratchet(None, self.parent)


class _Exhausted(Exception):
    """Nothing more may be evaluated."""


class _Run:
    """One evaluation of all rules for one object."""

    def __init__(self) -> None:
        self.errors: ErrorList = []
        self.warnings: list[str] = []
        self._budget = BUDGET

    def node(self, node: RuleNode, new: Any, old: Any, ratchet: _Ratchet, path: Path | None) -> None:
        try:
            self._node(node, new, old, ratchet, path)
        except _Exhausted:
            return

    def _node(self, node: RuleNode, new: Any, old: Any, ratchet: _Ratchet, path: Path | None) -> None:
        if new is None:
            return
        if node.failure:
            text = f"rule compiler initialization error: {node.failure}"
            self.errors.append(invalid(path, node.schema.get("type", ""), text))
        elif node.rules:
            self._rules(node, new, old, ratchet, path)
        for one in node.all_of:
            self._node(one, new, old, ratchet.within_all_of(), path)
        if isinstance(new, list):
            self._list(node, new, old, ratchet, path)
        elif isinstance(new, dict):
            self._map(node, new, old, ratchet, path)

    def _list(self, node: RuleNode, new: list[Any], old: Any, ratchet: _Ratchet, path: Path | None) -> None:
        if node.items is None:
            return
        keyed = node.schema.get("x-kubernetes-list-type") == "map"
        names = tuple(node.schema.get("x-kubernetes-list-map-keys") or ())
        before = by_keys(old, node.schema) if keyed and isinstance(old, list) else {}
        for index, item in enumerate(new):
            key = item_key(item, names) if keyed else None
            found = before.get(key) if key is not None else None
            self._node(node.items, item, found, ratchet.index(index), (path or Path()).index(index))

    def _map(self, node: RuleNode, new: Tree, old: Any, ratchet: _Ratchet, path: Path | None) -> None:
        before = old if isinstance(old, dict) else {}
        for name, item in new.items():
            if node.extra is not None:
                self._node(node.extra, item, before.get(name), ratchet.key(name), (path or Path()).key(name))
            sub = node.properties.get(name)
            if sub is not None:
                place = Path(name) if path is None else path.child(name)
                self._node(sub, item, before.get(name), ratchet.key(name), place)

    # ---- the rules of one node

    def _rules(self, node: RuleNode, new: Any, old: Any, ratchet: _Ratchet, path: Path | None) -> None:
        kind = node.schema.get("type", "")
        if self._budget <= 0:
            self.errors.append(invalid(path, kind, _NO_BUDGET))
            raise _Exhausted
        assert node.seen is not None
        shown_new = _shown(node.seen, new)
        shown_old = _shown(node.seen, old) if old is not None else None
        for compiled in node.rules:
            if compiled.error:
                self.errors.append(invalid(path, kind, f"rule compile error: {compiled.error}"))
                continue
            if compiled.program is None or (compiled.uses_old and old is None and not compiled.is_old_optional):
                continue
            variables: dict[str, Any] = {"self": shown_new}
            if compiled.is_old_optional:
                known = isinstance(shown_old, Again)
                variables["oldSelf"] = shown_old if known else Optional(shown_old) if old is not None else Optional()
            elif old is not None:
                variables["oldSelf"] = shown_old
            outcome = compiled.program.evaluate(variables)
            self._pay(outcome, kind, path, _NO_BUDGET)
            if outcome.failure is not None:
                self._failed(compiled, outcome, kind, path)
            elif outcome.value is not True:
                plain = {"self": shown_new} | ({"oldSelf": shown_old} if old is not None else {})
                self._broken(compiled, node, new, plain, ratchet, path)

    def _pay(self, outcome: Outcome, kind: str, path: Path | None, words: str) -> None:
        if outcome.cost > self._budget:
            self.errors.append(invalid(path, kind, words))
            raise _Exhausted
        self._budget -= outcome.cost

    def _failed(self, compiled: CompiledRule, outcome: Outcome, kind: str, path: Path | None) -> None:
        failure = outcome.failure or ""
        if outcome.is_over_limit:
            words = "no further validation rules will be run due to call cost exceeds limit for rule"
            self.errors.append(invalid(path, kind, f"'{failure}': {words}: {compiled.shown}"))
            raise _Exhausted
        if failure.startswith("no such overload"):
            words = "call arguments did not match a supported operator, function or macro signature for rule"
            self.errors.append(invalid(path, kind, f"'{failure}': {words}: {compiled.shown}"))
        else:
            self.errors.append(invalid(path, kind, f"{failure} evaluating rule: {compiled.shown}"))

    def _broken(
        self,
        compiled: CompiledRule,
        node: RuleNode,
        new: Any,
        variables: dict[str, Any],
        ratchet: _Ratchet,
        path: Path | None,
    ) -> None:
        """Complain of a rule that does not hold."""
        kind = node.schema.get("type", "")
        place = path
        if compiled.path:
            place = Path(compiled.path) if path is None else path.child(compiled.path)
        detail = self._message(compiled, variables, kind, place, ratchet) if compiled.message is not None else ""
        if not detail:
            message: str = compiled.rule.get("message") or ""
            detail = message.strip() if message else f"failed rule: {compiled.shown}"
        value = OMIT if kind in ("object", "array") else new
        self._complain(_for_reason(compiled.rule.get("reason"), place, value, detail), compiled, ratchet)

    def _complain(self, error: FieldError, compiled: CompiledRule, ratchet: _Ratchet) -> None:
        if not compiled.uses_old and ratchet.forgives:
            self.warnings.append(str(error))
        else:
            self.errors.append(error)

    def _message(
        self, compiled: CompiledRule, variables: dict[str, Any], kind: str, path: Path | None, ratchet: _Ratchet
    ) -> str:
        """Return what the messageExpression says; "" if it says nothing that can be shown."""
        assert compiled.message is not None
        outcome = compiled.message.evaluate(variables)
        wrong = ""
        if outcome.cost > self._budget:
            wrong = (
                "messageExpression evaluation failed due to running out of cost budget, no further validation rules "
                "will be run"
            )
        elif outcome.is_over_limit:
            text = quote(compiled.message.expression)
            wrong = (
                f"no further validation rules will be run due to call cost exceeds limit for messageExpression: {text}"
            )
        if wrong:
            self._complain(invalid(path, kind, wrong), compiled, ratchet)
            raise _Exhausted
        self._budget -= outcome.cost
        text = outcome.value.strip() if isinstance(outcome.value, str) else ""
        return "" if len(text.encode()) > _MESSAGE_BYTES_MAX or "\n" in text else text


def _shown(seen: Declared, tree: Any) -> Any:
    """Return a value as rules see it: one of another type than declared fails whenever it is used."""
    try:
        return seen.value(tree)
    except CelError as error:
        message = error.message

        def fail(_frame: Frame) -> Any:
            raise CelError(message)

        return Again(fail)


def _for_reason(reason: str | None, path: Path | None, value: Any, detail: str) -> FieldError:
    if reason == "FieldValueForbidden":
        return forbidden(path, detail)
    if reason == "FieldValueRequired":
        return required(path, detail)
    if reason == "FieldValueDuplicate":
        return duplicate(path, value)
    return invalid(path, value, detail)
