"""Label and field selectors: from text or from a LabelSelector to an object that is compiled once and matches fast.

Grammar and complaints are those of k8s.io/apimachinery's packages labels, fields and meta/v1 (LabelSelector).
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from haven.apimachinery import meta
from haven.apimachinery.fielderrors import (
    ErrorList,
    FieldError,
    Path,
    aggregate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from haven.apimachinery.goformat import quote

__all__ = [
    "EVERYTHING",
    "FIELDS_EVERYTHING",
    "NOTHING",
    "FieldRequirement",
    "FieldSelector",
    "LabelSelector",
    "Requirement",
    "SelectorError",
    "escape_field_value",
    "format_label_selector",
    "from_label_selector",
    "from_labels",
    "label_key_errors",
    "label_value_errors",
    "parse_fields",
    "parse_labels",
    "requirement",
    "validate_label_selector",
    "validate_labels",
]

Labels = Mapping[str, str]


class SelectorError(ValueError):
    """The selector makes no sense; the text is upstream's and goes to the client as it is (400)."""


# ---- names of labels

_PART_MAX = 63
_PREFIX_MAX = 253
_KEY_FORMAT = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_SUBDOMAIN_FORMAT = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_key_part = re.compile(_KEY_FORMAT)
_label_value = re.compile(f"({_KEY_FORMAT})?")
_subdomain = re.compile(_SUBDOMAIN_FORMAT)

_KEY_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_KEY_FORMAT}')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'({_KEY_FORMAT})?')"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN_FORMAT}')"
)


@lru_cache(maxsize=4096)
def _label_key_errors(key: str) -> tuple[str, ...]:
    parts = key.split("/")
    errors: list[str] = []
    if len(parts) > 2:
        return (
            f"a valid label key {_KEY_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        )
    if len(parts) == 2:
        prefix = parts[0]
        if not prefix:
            errors.append("prefix part must be non-empty")
        else:
            if len(prefix.encode()) > _PREFIX_MAX:
                errors.append(f"prefix part must be no more than {_PREFIX_MAX} bytes")
            if not _subdomain.fullmatch(prefix):
                errors.append(f"prefix part {_SUBDOMAIN_RULE}")
    name = parts[-1]
    if not name:
        errors.append("name part must be non-empty")
    elif len(name.encode()) > _PART_MAX:
        errors.append(f"name part must be no more than {_PART_MAX} bytes")
    if not _key_part.fullmatch(name):
        errors.append(f"name part {_KEY_RULE}")
    return tuple(errors)


def label_key_errors(key: str) -> list[str]:
    """Return what is wrong with a label's key, or with any other qualified name; [] if nothing is."""
    return list(_label_key_errors(key))


def label_value_errors(value: str) -> list[str]:
    """Return what is wrong with a label's value; [] if nothing is."""
    errors: list[str] = []
    if len(value.encode()) > _PART_MAX:
        errors.append(f"must be no more than {_PART_MAX} bytes")
    if not _label_value.fullmatch(value):
        errors.append(_VALUE_RULE)
    return errors


# ---- label selectors

_BINARY_OPERATORS = ("in", "notin", "=", "==", "!=", "gt", "lt")
_OPERATORS = (*_BINARY_OPERATORS, "exists", "!")
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_INT64 = range(-(2**63), 2**63)


def _integer(text: str) -> int | None:
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if number in _INT64 else None


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. `operator` is one of in, notin, =, ==, !=, gt, lt, exists, ! (does not exist)."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"
            case "gt" | "lt":
                return f"{self.key}{'>' if self.operator == 'gt' else '<'}{self.values[0]}"
        return f"{self.key}{self.operator}{','.join(sorted(self.values))}"

    def compile(self) -> Callable[[Labels], bool]:
        """Return a function that tells whether labels meet this condition."""
        key = self.key
        match self.operator:
            case "exists":
                return lambda labels: key in labels
            case "!":
                return lambda labels: key not in labels
            case "in" | "=" | "==":
                if len(self.values) == 1:
                    value = self.values[0]
                    return lambda labels: labels.get(key) == value
                values = frozenset(self.values)
                return lambda labels: labels.get(key) in values
            case "notin" | "!=":
                if len(self.values) == 1:
                    value = self.values[0]
                    return lambda labels: labels.get(key) != value
                values = frozenset(self.values)
                return lambda labels: labels.get(key) not in values
        return self._compile_comparison()

    def _compile_comparison(self) -> Callable[[Labels], bool]:
        key = self.key
        bound = _integer(self.values[0])
        assert bound is not None, self
        greater = self.operator == "gt"

        def compare(labels: Labels) -> bool:
            text = labels.get(key)
            number = None if text is None else _integer(text)
            if number is None:
                return False
            return number > bound if greater else number < bound

        return compare


def requirement(key: str, operator: str, values: Sequence[str], path: Path | None = None) -> Requirement:
    """Return a checked condition; raise SelectorError with every complaint, fields below `path`."""
    errors: ErrorList = []
    values_path = path.child("values") if path else Path("values")
    if complaints := _label_key_errors(key):
        errors.append(invalid(path.child("key") if path else Path("key"), key, "; ".join(complaints)))
    errors += _count_errors(operator, values, path, values_path)
    for index, value in enumerate(values):
        if messages := label_value_errors(value):
            errors.append(invalid(values_path.index(index).key(key), value, "; ".join(messages)))
    if errors:
        raise SelectorError(aggregate(errors))
    return Requirement(key, operator, tuple(values))


def _count_errors(operator: str, values: Sequence[str], path: Path | None, values_path: Path) -> ErrorList:
    match operator:
        case "in" | "notin":
            if not values:
                return [invalid(values_path, list(values), "for 'in', 'notin' operators, values set can't be empty")]
        case "=" | "==" | "!=":
            if len(values) != 1:
                return [invalid(values_path, list(values), "exact-match compatibility requires one single value")]
        case "exists" | "!":
            if values:
                return [invalid(values_path, list(values), "values set must be empty for exists and does not exist")]
        case "gt" | "lt":
            errors: ErrorList = []
            if len(values) != 1:
                text = "for 'Gt', 'Lt' operators, exactly one value is required"
                errors.append(invalid(values_path, list(values), text))
            errors += [
                invalid(values_path.index(index), value, "for 'Gt', 'Lt' operators, the value must be an integer")
                for index, value in enumerate(values)
                if _integer(value) is None
            ]
            return errors
        case _:
            return [not_supported(path.child("operator") if path else Path("operator"), operator, sorted(_OPERATORS))]
    return []


class LabelSelector:
    """A conjunction of conditions on labels, sorted by key; `matches(labels)` is a plain compiled function."""

    __slots__ = ("matches", "requirements")

    matches: Callable[[Labels], bool]

    def __init__(self, requirements: Iterable[Requirement] = (), *, nothing: bool = False) -> None:
        self.requirements = tuple(sorted(requirements, key=lambda item: item.key))
        if nothing:
            self.matches = lambda labels: False
        else:
            self.matches = _all([item.compile() for item in self.requirements])

    @property
    def is_empty(self) -> bool:
        """Whether it matches everything by having no condition."""
        return not self.requirements and self is not NOTHING

    def exact(self, key: str) -> str | None:
        """Return the only value of a label that can match, or None if others can."""
        for item in self.requirements:
            if item.key == key:
                return item.values[0] if item.operator in ("=", "==", "in") and len(item.values) == 1 else None
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __repr__(self) -> str:
        return f"LabelSelector({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSelector) and self.requirements == other.requirements and (
            (self is NOTHING) == (other is NOTHING)
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash(self.requirements)


def _all(tests: list[Callable[[Labels], bool]]) -> Callable[[Labels], bool]:
    if not tests:
        return lambda labels: True
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda labels: first(labels) and second(labels)

    def every(labels: Labels) -> bool:
        for test in tests:  # noqa: SIM110  # A loop is twice as fast as all() with a generator.
            if not test(labels):
                return False
        return True

    return every


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


def from_labels(labels: Labels) -> LabelSelector:
    """Return the selector that wants all of these labels; no labels match everything. Nothing is checked."""
    return LabelSelector(Requirement(key, "=", (value,)) for key, value in labels.items()) if labels else EVERYTHING


_STRUCT_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_label_selector(selector: meta.LabelSelector | None) -> LabelSelector:
    """Return what an API object's LabelSelector means: None selects nothing, an empty one everything.

    Raise SelectorError if it is malformed.
    """
    if selector is None:
        return NOTHING
    if not selector.match_labels and not selector.match_expressions:
        return EVERYTHING
    items = [requirement(key, "=", [value]) for key, value in selector.match_labels.items()]
    for expression in selector.match_expressions:
        operator = _STRUCT_OPERATORS.get(expression.operator)
        if operator is None:
            raise SelectorError(f"{quote(expression.operator)} is not a valid label selector operator")
        items.append(requirement(expression.key, operator, expression.values))
    return LabelSelector(items)


def format_label_selector(selector: meta.LabelSelector | None) -> str:
    """Return a LabelSelector as tables show it."""
    try:
        return str(from_label_selector(selector)) or "<none>"
    except SelectorError:
        return "<error>"


def validate_labels(labels: Labels, path: Path) -> ErrorList:
    """Return what is wrong with a map of labels."""
    errors: ErrorList = []
    for key, value in labels.items():
        errors += [invalid(path, key, message) for message in _label_key_errors(key)]
        errors += [invalid(path, value, message) for message in label_value_errors(value)]
    return errors


def validate_label_selector(
    selector: meta.LabelSelector | None,
    path: Path,
    *,
    allow_invalid_values: bool = False,
    allow_unknown_operators: bool = False,
) -> ErrorList:
    """Return what is wrong with an API object's LabelSelector."""
    if selector is None:
        return []
    errors = validate_labels(selector.match_labels, path.child("matchLabels"))
    for index, expression in enumerate(selector.match_expressions):
        place = path.child("matchExpressions").index(index)
        errors += _expression_errors(expression, place, allow_unknown_operators)
        errors += [
            invalid(place.child("key"), expression.key, message) for message in _label_key_errors(expression.key)
        ]
        if not allow_invalid_values:
            errors += [
                invalid(place.child("values").index(number), value, message)
                for number, value in enumerate(expression.values)
                for message in label_value_errors(value)
            ]
    return errors


def _expression_errors(
    expression: meta.LabelSelectorRequirement, path: Path, allow_unknown_operators: bool
) -> list[FieldError]:
    if expression.operator in ("In", "NotIn"):
        if not expression.values:
            return [required(path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")]
    elif expression.operator in ("Exists", "DoesNotExist"):
        if expression.values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            return [forbidden(path.child("values"), text)]
    elif not allow_unknown_operators:
        return [invalid(path.child("operator"), expression.operator, "not a valid selector operator")]
    return []


# ---- the text form of label selectors

_token = re.compile(r"[ \t\r\n]*(?:(?P<end>\Z|\0)|(?P<symbol>[=!(),<>]+)|(?P<word>[^ \t\r\n=!(),<>\0]+))", re.ASCII)
_SYMBOLS = frozenset({")", ",", "!", "==", "=", ">", "<", "!=", "("})
_END, _WORD, _IN, _NOTIN = "end", "word", "in", "notin"
_COMPARISONS = {"in": "in", "=": "=", "==": "==", ">": "gt", "<": "lt", "notin": "notin", "!=": "!="}


def _scan(text: str) -> Iterator[tuple[str, str]]:
    """Yield (token, its text), an end token last. A symbol is the longest known beginning of a run of symbol signs."""
    position = 0
    while True:
        found = _token.match(text, position)
        assert found is not None, (text, position)
        if found.group("end") is not None:
            yield _END, ""
            return
        if (word := found.group("word")) is not None:
            yield (word if word in (_IN, _NOTIN) else _WORD), word
            position = found.end()
            continue
        run = found.group("symbol")
        symbol = run[:2] if run[:2] in _SYMBOLS else run[0]
        yield symbol, symbol
        position = found.end() - len(run) + len(symbol)


class _Parser:
    """A recursive descent over the tokens; in and notin are words except right after a key."""

    def __init__(self, text: str, path: Path | None) -> None:
        self._tokens = list(_scan(text))
        self._position = 0
        self._path = path

    def _peek(self) -> tuple[str, str]:
        token, text = self._tokens[min(self._position, len(self._tokens) - 1)]
        return (_WORD if token in (_IN, _NOTIN) else token), text

    def _take(self) -> tuple[str, str]:
        result = self._peek()
        self._position += 1
        return result

    def parse(self) -> list[Requirement]:
        result: list[Requirement] = []
        while True:
            token, text = self._peek()
            if token == _END:
                return result
            if token not in (_WORD, "!"):
                raise SelectorError(f"found '{text}', expected: !, identifier, or 'end of string'")
            try:
                result.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            token, text = self._take()
            if token == _END:
                return result
            if token != ",":
                raise SelectorError(f"found '{text}', expected: ',' or 'end of string'")
            token, text = self._peek()
            if token not in (_WORD, "!"):
                raise SelectorError(f"found '{text}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        token, key = self._take()
        absent = token == "!"
        if absent:
            token, key = self._take()
        if token != _WORD:
            raise SelectorError(f"found '{key}', expected: identifier")
        if complaints := _label_key_errors(key):
            raise SelectorError(str(invalid(self._path, key, "; ".join(complaints))))
        if absent:
            return requirement(key, "!", [], self._path)
        if self._peek()[0] in (_END, ","):
            return requirement(key, "exists", [], self._path)
        operator = self._operator()
        values = self._values() if operator in ("in", "notin") else self._value()
        return requirement(key, operator, sorted(values), self._path)

    def _operator(self) -> str:
        token, text = self._tokens[min(self._position, len(self._tokens) - 1)]
        self._position += 1
        operator = _COMPARISONS.get(token)
        if operator is None:
            raise SelectorError(f"found '{text}', expected: {', '.join(_BINARY_OPERATORS)}")
        return operator

    def _value(self) -> set[str]:
        if self._peek()[0] in (_END, ","):
            return {""}
        token, text = self._take()
        if token != _WORD:
            raise SelectorError(f"found '{text}', expected: identifier")
        return {text}

    def _values(self) -> set[str]:
        token, text = self._take()
        if token != "(":
            raise SelectorError(f"found '{text}' expected: '('")
        token, text = self._peek()
        if token == ")":
            self._take()
            return {""}
        if token not in (_WORD, ","):
            raise SelectorError(f"found '{text}', expected: ',', ')' or identifier")
        values = self._list()
        assert self._peek()[0] == ")", self._tokens
        self._take()
        return values

    def _list(self) -> set[str]:
        values: set[str] = set()
        while True:
            token, text = self._take()
            if token == _WORD:
                values.add(text)
                token, text = self._peek()
                if token == ")":
                    return values
                if token != ",":
                    raise SelectorError(f"found '{text}', expected: ',' or ')'")
            elif token == ",":
                if not values:
                    values.add("")
                token, _ = self._peek()
                if token in (")", ","):
                    values.add("")
                if token == ")":
                    return values
            else:
                raise SelectorError(f"found '{text}', expected: ',', or identifier")


def parse_labels(text: str, path: Path | None = None) -> LabelSelector:
    """Return the label selector that text describes; raise SelectorError."""
    if not text:
        return EVERYTHING
    return LabelSelector(_Parser(text, path).parse())


# ---- field selectors


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on one field. `operator` is = or != (== is read as =)."""

    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{escape_field_value(self.value)}"


class FieldSelector:
    """A conjunction of conditions on named fields; a field that an object lacks is ""."""

    __slots__ = ("requirements",)

    def __init__(self, requirements: Iterable[FieldRequirement] = ()) -> None:
        self.requirements = tuple(requirements)

    @property
    def is_empty(self) -> bool:
        """Whether it matches everything."""
        return not self.requirements

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Tell whether an object with these fields is selected."""
        return all((fields.get(item.field, "") == item.value) == (item.operator == "=") for item in self.requirements)

    def exact(self, field: str) -> str | None:
        """Return the only value of a field that can match, or None if others can."""
        for item in self.requirements:
            if item.field == field and item.operator == "=":
                return item.value
        return None

    def transform(self, change: Callable[[str, str], tuple[str, str]]) -> FieldSelector:
        """Return the selector with each (field, value) replaced; ("", "") drops the condition.

        `change` raises SelectorError for a field that cannot be selected by.
        """
        result: list[FieldRequirement] = []
        for item in self.requirements:
            field, value = change(item.field, item.value)
            if field or value:
                result.append(FieldRequirement(field, item.operator, value))
        return FieldSelector(result)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __repr__(self) -> str:
        return f"FieldSelector({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldSelector) and self.requirements == other.requirements

    def __hash__(self) -> int:
        return hash(self.requirements)


FIELDS_EVERYTHING = FieldSelector()

_term = re.compile(r"(?:[^\\,]|\\.)*(?:\\\Z)?", re.DOTALL)
_operator = re.compile("!=|==|=")


def escape_field_value(value: str) -> str:
    """Return a value as it has to be written in a field selector."""
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _unescape(text: str) -> str:
    if not any(char in text for char in "\\,="):
        return text
    result: list[str] = []
    chars = iter(text)
    for char in chars:
        if char == "\\":
            escaped = next(chars, "")
            if escaped not in ("\\", ",", "="):
                raise SelectorError(f"invalid field selector: invalid escape sequence: \\{escaped}")
            result.append(escaped)
        elif char in ",=":
            raise SelectorError(f"invalid field selector: unescaped character in value: {ord(char)}")
        else:
            result.append(char)
    return "".join(result)


def _terms(text: str) -> list[str]:
    terms: list[str] = []
    position = 0
    while True:
        found = _term.match(text, position)
        assert found is not None, (text, position)
        terms.append(found.group())
        position = found.end() + 1
        if position > len(text):
            return terms


def parse_fields(text: str) -> FieldSelector:
    """Return the field selector that text describes; raise SelectorError."""
    if not text:
        return FIELDS_EVERYTHING
    items: list[FieldRequirement] = []
    for term in sorted(_terms(text)):
        if not term:
            continue
        found = _operator.search(term)
        if found is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{term}'")
        sign = "!=" if found.group() == "!=" else "="
        items.append(FieldRequirement(term[: found.start()], sign, _unescape(term[found.end() :])))
    return FieldSelector(items)
