"""Label selectors as objects: conditions that are compiled once and match fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from haven.apimachinery.fielderrors import ErrorList, Path, aggregate, invalid, not_supported
from haven.apimachinery.gonumbers import NotANumber, parse_int
from haven.apimachinery.selectors.errors import SelectorError
from haven.apimachinery.selectors.names import label_key_errors, label_value_errors

__all__ = [
    "BINARY_OPERATORS",
    "EVERYTHING",
    "NOTHING",
    "LabelSelector",
    "Labels",
    "Requirement",
    "from_labels",
    "requirement",
]

Labels = Mapping[str, str]

BINARY_OPERATORS = ("in", "notin", "=", "==", "!=", "gt", "lt")
_OPERATORS = (*BINARY_OPERATORS, "exists", "!")


def _integer(text: str) -> int | None:
    try:
        return parse_int(text)
    except NotANumber:
        return None


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
    if complaints := label_key_errors(key):
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
