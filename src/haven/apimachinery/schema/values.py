"""Whether a tree's values fit an OpenAPI v3 schema, with upstream's complaints.

The order in which complaints come, which of several alternatives' complaints are shown (those of the alternative that
agrees most) and the wording are those of kube-openapi's validator. Fields are visited in the order of their names.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from haven.apimachinery.cel.regexes import BadPatternError, translate
from haven.apimachinery.fielderrors import (
    ErrorList,
    FieldError,
    Path,
    go_json,
    invalid,
    not_supported,
    required,
    too_long,
    too_many,
    type_invalid,
)
from haven.apimachinery.goformat import quote, show
from haven.apimachinery.schema.correlation import Correlation
from haven.apimachinery.schema.formats import is_known_format, matches_format

__all__ = ["validate_values"]

OpenAPI = Mapping[str, Any]
_INT_OR_STRING = "x-kubernetes-int-or-string"
_KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
_RANGES = {"int32": (-(2**31), 2**31 - 1)}
_INT64 = (-(2**63), 2**63 - 1)
_NUMERIC = {"integer": ("int32", "int64"), "number": ("float", "double")}
_FLOAT32_MAX = 3.4028234663852886e38


def validate_values(
    tree: Any,
    schema: OpenAPI,
    *,
    prefix: Path | None = None,
    correlation: Correlation | None = None,
    is_default: bool = False,
) -> ErrorList:
    """Return every complaint. With a `correlation`, what did not change since the old object is not complained of.

    `prefix` is the place of the tree in its object. Upstream checks defaults by the schema as it is written: there,
    formats that mean nothing for the type are looked at, and int-or-string alone allows everything.
    """
    result = _Validator(prefix, as_written=is_default).value(tree, schema, "", correlation)
    return list(result.errors.values())


class _Result:
    """Complaints by their text (equal ones count once), and how many checks were made."""

    __slots__ = ("errors", "matches")

    def __init__(self) -> None:
        self.errors: dict[str, FieldError] = {}
        self.matches = 0

    def add(self, text: str, error: FieldError) -> None:
        self.errors.setdefault(text, error)

    def merge(self, other: _Result) -> None:
        for text, error in other.errors.items():
            self.errors.setdefault(text, error)
        self.matches += other.matches


class _Validator:
    def __init__(self, prefix: Path | None, *, as_written: bool) -> None:
        self._prefix = prefix
        self._as_written = as_written

    def _place(self, path: str) -> Path | None:
        name = path.removeprefix(".")
        if not name:
            return self._prefix
        return Path(name) if self._prefix is None else self._prefix.child(name)

    def value(self, value: Any, schema: OpenAPI, path: str, correlation: Correlation | None) -> _Result:
        """Check one value against its schema."""
        result = self._checked(value, schema, path, correlation)
        if result.errors and correlation is not None and correlation.unchanged:
            forgiven = _Result()
            forgiven.matches = result.matches
            return forgiven
        return result

    def _checked(self, value: Any, schema: OpenAPI, path: str, correlation: Correlation | None) -> _Result:
        result = _Result()
        types = _types(schema, self._as_written)
        if value is None:
            result.matches += 1
            if types and not schema.get("nullable"):
                expected = ",".join(types)
                text = f'{path} in body must be of type {expected}: "null"'
                result.add(text, type_invalid(self._place(path), "null", text))
                result.matches = 0
            self._enum(value, schema, path, result)
            return result
        form: str = (schema.get("format") or "") if self._as_written else _format(schema, types)
        if types or form:
            self._type(value, types, form, path, result)
            result.matches += 1
        self._combined(value, schema, path, result)
        result.matches += 1
        if isinstance(value, str):
            self._string(value, schema, path, result)
            result.matches += 1
            if form and is_known_format(form):
                if not matches_format(form, value):
                    text = f"{path} in body must be of type {form}: {quote(value)}"
                    result.add(text, type_invalid(self._place(path), value, text))
                result.matches += 1
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._number(value, schema, types, form, path, result)
            result.matches += 2
        elif isinstance(value, list):
            self._list(value, schema, path, correlation, result)
            result.matches += 2
        self._enum(value, schema, path, result)
        result.matches += 1
        if isinstance(value, dict):
            self._object(value, schema, path, correlation, result)
            result.matches += 1
        result.matches += 1
        return result

    # ---- the checks, in upstream's order

    def _type(self, value: Any, types: tuple[str, ...], form: str, path: str, result: _Result) -> None:
        kind = _KINDS[type(value)]
        fits = kind in types or (kind == "integer" and "number" in types)
        fits = fits or (kind == "number" and "integer" in types and _is_whole(value))
        plain = isinstance(value, str | list)
        if not plain and form and not fits and _go_format(value) != form:
            self._wrong_type(form, _go_format(value), path, result)
        elif not ("number" in types or "integer" in types) and form and plain:
            result.matches += 1
        elif not fits:
            self._wrong_type(",".join(types), kind, path, result)
        else:
            result.matches += 1

    def _wrong_type(self, expected: str, found: str, path: str, result: _Result) -> None:
        text = f"{path} in body must be of type {expected}: {quote(found)}"
        result.add(text, type_invalid(self._place(path), found, text))

    def _combined(self, value: Any, schema: OpenAPI, path: str, result: _Result) -> None:
        """Check allOf, anyOf, oneOf and not, where nothing is forgiven for not having changed."""
        any_of, one_of, all_of = schema.get("anyOf"), schema.get("oneOf"), schema.get("allOf")
        if any_of:
            best: _Result | None = None
            for one in any_of:
                found = self._checked(value, one, path, None)
                if not found.errors:
                    best = found
                    break
                if best is None or found.matches > best.matches:
                    best = found
            assert best is not None
            if best.errors:
                self._composite(f"{quote(path)} must validate at least one schema (anyOf)", result)
            result.merge(best)
        if one_of:
            self._one_of(value, one_of, path, result)
        if all_of:
            valid = 0
            inner = [self._checked(value, one, path, None) for one in all_of]
            for found in inner:
                valid += not found.errors
                result.merge(found)
            if valid != len(all_of):
                more = "" if valid else ". None validated"
                self._composite(f"{quote(path)} must validate all the schemas (allOf){more}", result)
        refused = schema.get("not")
        if refused is not None and not self._checked(value, refused, path, None).errors:
            self._composite(f"{quote(path)} must not validate the schema (not)", result)
        result.matches += 1

    def _one_of(self, value: Any, schemas: Sequence[OpenAPI], path: str, result: _Result) -> None:
        first: _Result | None = None
        best: _Result | None = None
        valid = 0
        for one in schemas:
            found = self._checked(value, one, path, None)
            if not found.errors:
                valid += 1
                best = None
                first = first or found
            elif not valid and (best is None or found.matches > best.matches):
                best = found
        if valid == 1:
            assert first is not None
            result.merge(first)
            return
        more = f"Found {valid} valid alternatives" if valid else "Found none valid"
        self._composite(f"{quote(path)} must validate one and only one schema (oneOf). {more}", result)
        if best is not None:
            result.merge(best)

    def _composite(self, text: str, result: _Result) -> None:
        result.add(text, invalid(self._prefix, "", text))

    def _string(self, value: str, schema: OpenAPI, path: str, result: _Result) -> None:
        longest, shortest, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
        if longest is not None and len(value) > longest:
            text = f"{path} in body should be at most {longest} chars long"
            result.add(text, too_long(self._place(path), "", longest))
        elif shortest is not None and len(value) < shortest:
            text = f"{path} in body should be at least {shortest} chars long"
            result.add(text, invalid(self._place(path), value, text))
        elif pattern:
            shown = pattern
            try:
                if translate(pattern).search(value):
                    return
            except BadPatternError as error:
                shown = f"{pattern}, but pattern is invalid: {error}"
            text = f"{path} in body should match '{shown}'"
            result.add(text, invalid(self._place(path), value, text))

    def _number(
        self, value: float, schema: OpenAPI, types: tuple[str, ...], form: str, path: str, result: _Result
    ) -> None:
        only = types[0] if len(types) == 1 else ""
        form = form if form in _NUMERIC.get(only, ()) else ""
        self._in_range(value, "Checked", only, form, path, result)
        factor, lowest, highest = schema.get("multipleOf"), schema.get("minimum"), schema.get("maximum")
        if factor is not None:
            bound = self._bound(value, factor, "MultipleOf", only, form, path, result)
            if bound <= 0:
                text = f"factor MultipleOf declared for {path} must be positive: {show(bound)}"
                result.add(text, invalid(self._place(path), bound, text))
            elif not _is_multiple(value, bound):
                text = f"{path} in body should be a multiple of {show(bound)}"
                result.add(text, invalid(self._place(path), _as_compared(value, bound), text))
        if lowest is not None:
            exclusive = bool(schema.get("exclusiveMinimum"))
            bound = self._bound(value, lowest, "Minimum boundary", only, form, path, result)
            if value < bound or (exclusive and value == bound):
                words = "greater than" if exclusive else "greater than or equal to"
                text = f"{path} in body should be {words} {show(bound)}"
                result.add(text, invalid(self._place(path), _as_compared(value, bound), text))
        if highest is not None:
            exclusive = bool(schema.get("exclusiveMaximum"))
            bound = self._bound(value, highest, "Maximum boundary", only, form, path, result)
            if value > bound or (exclusive and value == bound):
                words = "less than" if exclusive else "less than or equal to"
                text = f"{path} in body should be {words} {show(bound)}"
                result.add(text, invalid(self._place(path), _as_compared(value, bound), text))

    def _bound(self, value: float, limit: float, what: str, kind: str, form: str, path: str, result: _Result) -> float:
        """Return a limit as it is compared with: cut to an integer where the value is one and the limit fits."""
        if self._in_range(limit, what, kind, form, path, result) and type(value) is int:
            return int(limit)
        return float(limit)

    def _in_range(self, value: float, what: str, kind: str, form: str, path: str, result: _Result) -> bool:
        fits = True
        if kind == "integer":
            low, high = _RANGES.get(form, _INT64)
            fits = low <= value <= high and float(value).is_integer()
        elif form == "float":
            fits = abs(value) <= _FLOAT32_MAX
        if not fits:
            shown = f"with format {form} in {path}" if form else f"(default format) in {path}"
            self._composite(f"{what} value must be of type {kind} {shown}", result)
        return fits

    def _list(
        self, value: list[Any], schema: OpenAPI, path: str, correlation: Correlation | None, result: _Result
    ) -> None:
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                inner = correlation.index(index) if correlation is not None else None
                result.merge(self.value(item, items, f"{path}[{index}]", inner))
        fewest, most = schema.get("minItems"), schema.get("maxItems")
        if fewest is not None and len(value) < fewest:
            text = f"{path} in body should have at least {fewest} items"
            result.add(text, invalid(self._place(path), len(value), text))
        if most is not None and len(value) > most:
            text = f"{path} in body should have at most {most} items"
            result.add(text, too_many(self._place(path), len(value), most))
        if schema.get("uniqueItems") and len({go_json(item) for item in value}) < len(value):
            text = f"{path} in body shouldn't contain duplicates"
            result.add(text, invalid(self._place(path), "", text))

    def _enum(self, value: Any, schema: OpenAPI, path: str, result: _Result) -> None:
        allowed = schema.get("enum")
        if not allowed or any(_equals(value, one) for one in allowed):
            return
        shown = [one if isinstance(one, str) else go_json(one) for one in allowed]
        text = f"{path} in body should be one of [{' '.join(map(str, allowed))}]"
        result.add(text, not_supported(self._place(path), value, shown))

    def _object(
        self, value: dict[str, Any], schema: OpenAPI, path: str, correlation: Correlation | None, result: _Result
    ) -> None:
        fewest, most = schema.get("minProperties"), schema.get("maxProperties")
        if fewest is not None and len(value) < fewest:
            text = f"{path} in body should have at least {fewest} properties"
            result.add(text, invalid(self._place(path), len(value), text))
        if most is not None and len(value) > most:
            text = f"{path} in body should have at most {most} properties"
            result.add(text, too_many(self._place(path), len(value), most))
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for name in sorted(value) if extra is not None else ():
            if name in properties:
                continue
            if extra is False:
                text = f"{path}.{name} in body is a forbidden property"
                result.add(text, invalid(self._place(path), name, text))
            elif isinstance(extra, dict):
                inner = self._correlated(correlation, name, path)
                result.merge(self.value(value[name], extra, f"{path}.{name}", inner))
        for name in sorted(properties):
            if name in value:
                inner = self._correlated(correlation, name, path)
                spot = f"{path}.{name}" if path else name
                result.merge(self.value(value[name], properties[name], spot, inner))
        for name in schema.get("required") or ():
            if name not in value:
                result.add(f"{path}.{name} in body is required", required(self._place(f"{path}.{name}"), ""))

    @staticmethod
    def _correlated(correlation: Correlation | None, name: str, path: str) -> Correlation | None:
        if correlation is None or (not path and name in ("kind", "apiVersion")):
            return None
        return correlation.key(name)


def _types(schema: OpenAPI, as_written: bool) -> tuple[str, ...]:
    if not as_written and schema.get(_INT_OR_STRING):
        return ("integer", "string")
    kind = schema.get("type")
    return (kind,) if kind else ()


def _format(schema: OpenAPI, types: tuple[str, ...]) -> str:
    """Return the format if it means something for values of the type."""
    form: str = schema.get("format") or ""
    if not form:
        return ""
    kind = types[0] if len(types) == 1 else ""
    if kind in ("", "string"):
        return form if is_known_format(form) else ""
    return form if form in _NUMERIC.get(kind, ()) else ""


def _go_format(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return "int64" if isinstance(value, int) else "float64"


def _as_compared(value: float, bound: float) -> float:
    return value if type(bound) is int else float(value)


def _is_multiple(value: float, factor: float) -> bool:
    if type(value) is int and type(factor) is int:
        return value % factor == 0
    return _is_whole(1 / factor * value if factor < 1 else value / factor)


def _is_whole(value: float) -> bool:
    """Tell whether a float counts as an integer: JSON's are exact up to 53 bits, and rounding errors are forgiven."""
    if not abs(value) <= 2**53 - 1:
        return False
    whole = math.trunc(value)
    return value == whole or (whole != 0 and abs(value - whole) / (abs(value) + abs(whole)) < 1e-9)


def _equals(value: Any, allowed: Any) -> bool:
    if isinstance(value, bool) or isinstance(allowed, bool):
        return value is allowed
    if isinstance(value, int | float) and isinstance(allowed, int | float):
        return type(allowed)(value) == allowed  # A fraction is cut off to compare with an integer.
    return type(value) is type(allowed) and msgspec.json.encode(value, order="sorted") == msgspec.json.encode(
        allowed, order="sorted"
    )
