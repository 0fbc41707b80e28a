"""The rules of a custom resource's version: what its definition's schema and subresources ask for.

Source: apiextensions-apiserver's strategies of custom resources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from haven.api.strategy import Strategy
from haven.apimachinery import serialization
from haven.apimachinery.fielderrors import ErrorList, ErrorType, Path, invalid
from haven.apimachinery.goformat import quote, show
from haven.apimachinery.schema.coercion import as_stored
from haven.apimachinery.schema.correlation import Correlation, same
from haven.apimachinery.schema.embedded import validate_embedded
from haven.apimachinery.schema.listtypes import validate_lists
from haven.apimachinery.schema.values import validate_values
from haven.apimachinery.unstructured import Unstructured
from haven.apimachinery.validation.names import dns_subdomain_name, qualified_name_errors
from haven.apimachinery.validation.objectmeta import validate_object_meta, validate_object_meta_update
from haven.apiserver.customresources.bodies import Unpruned, whole_numbers
from haven.apiserver.customresources.definition import Version
from haven.apiserver.customresources.meter import CustomMeter
from haven.apiserver.customresources.rules import Rules

__all__ = ["custom_strategy", "nested"]

Tree = dict[str, Any]
_NO_RULES_CHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)
_BLOCKING = frozenset(
    {ErrorType.NOT_SUPPORTED, ErrorType.REQUIRED, ErrorType.TOO_LONG, ErrorType.TOO_MANY, ErrorType.TYPE_INVALID}
)
_STANDARD_FINALIZERS = frozenset({"orphan", "foregroundDeletion", "kubernetes"})
_INT32_MAX = 2**31 - 1


def custom_strategy(version: Version, rules: Rules | None, meter: CustomMeter) -> Strategy[Unstructured]:
    """Return the rules of a version; `rules` are its x-kubernetes-validations."""
    checks = _Checks(version, rules, meter)
    status = Strategy[Unstructured](
        prepare_for_update=_update_status,
        validate_update=checks.status,
        canonicalize=checks.canonicalize,
        forgiven=checks.forgiven,
        allow_unconditional_update=False,
    )
    return Strategy(
        prepare_for_create=checks.prepare_create,
        prepare_for_update=checks.prepare_update,
        validate=checks.create,
        validate_update=checks.update,
        canonicalize=checks.canonicalize,
        warnings=_finalizer_warnings,
        forgiven=checks.forgiven,
        name_errors=lambda name: list(dns_subdomain_name(name, False)),
        allow_create_on_update=False,
        allow_unconditional_update=False,
        has_generation=True,
        selectable_fields={path.removeprefix("."): _reader(path) for path in version.selectable},
        subresources={"status": status},
    )


def _update_status(new: Unstructured, old: Unstructured) -> None:
    """Let only the status through."""
    had = "status" in new.content
    status, owners = new.content.get("status"), new.metadata.managed_fields
    copied = serialization.copy(old)
    revision = new.metadata.resource_version
    made = type(new.content)
    new.metadata, new.content = copied.metadata, made(copied.content)
    new.metadata.managed_fields = owners
    new.metadata.resource_version = revision
    if had:
        new.content["status"] = status
    else:
        new.content.pop("status", None)


class _Checks:
    def __init__(self, version: Version, rules: Rules | None, meter: CustomMeter) -> None:
        self._version = version
        self._meter = meter
        self._open_api: Mapping[str, Any] = version.open_api or {}
        self._rules = rules
        self._forgiven: list[str] = []

    # ---- preparation

    def prepare_create(self, new: Unstructured) -> None:
        if self._version.has_status:
            new.content.pop("status", None)
        new.metadata.generation = 1

    def prepare_update(self, new: Unstructured, old: Unstructured) -> None:
        if self._version.has_status:
            if "status" in old.content:
                new.content["status"] = old.content["status"]
            else:
                new.content.pop("status", None)
        if (new.kind, new.api_version) != (old.kind, old.api_version) or not same(new.content, old.content):
            new.metadata.generation = old.metadata.generation + 1

    def canonicalize(self, new: Unstructured) -> None:
        if isinstance(new.content, Unpruned):
            new.content = {**new.content}
            as_stored(new.content, self._version.open_api)
        whole_numbers(new.content)

    # ---- validation

    def create(self, new: Unstructured) -> ErrorList:
        tree = new.tree()
        errors = self._type_meta(new)
        if not errors:
            namespaced = self._version.resource.namespaced
            errors = validate_object_meta(new.metadata, namespaced=namespaced, name_rule=dns_subdomain_name)
            errors += validate_values(tree, self._open_api) if self._version.open_api is not None else []
            errors += self._scale_spec(tree) + self._scale_status(tree)
        errors += validate_embedded(tree, self._open_api)
        errors += validate_lists(tree, self._open_api)
        return errors + self._ruled(errors, tree, None, None)

    def update(self, new: Unstructured, old: Unstructured) -> ErrorList:
        tree, before = new.tree(), old.tree()
        correlation = Correlation(tree, before, self._open_api)
        errors = self._type_meta(new)
        if not errors:
            errors = validate_object_meta_update(new.metadata, old.metadata)
            if self._version.open_api is not None:
                errors += validate_values(tree, self._open_api, correlation=correlation)
            errors += self._scale_spec(tree) + self._scale_status(tree)
        errors += validate_embedded(tree, self._open_api)
        if not validate_lists(before, self._open_api):
            errors += validate_lists(tree, self._open_api)
        errors = errors + self._ruled(errors, tree, before, correlation)
        self._meter.compared(correlation.spent.seconds)
        return errors

    def status(self, new: Unstructured, old: Unstructured) -> ErrorList:
        tree, before = new.tree(), old.tree()
        correlation = Correlation(tree, before, self._open_api)
        errors = self._type_meta(new)
        if not errors:
            errors = validate_object_meta_update(new.metadata, old.metadata)
            schema = (self._open_api.get("properties") or {}).get("status")
            if "status" in tree and schema is not None:
                inner = correlation.key("status")
                errors += validate_values(tree["status"], schema, prefix=Path("status"), correlation=inner)
            errors += self._scale_status(tree)
        found = validate_lists(tree, self._open_api)
        if found and not validate_lists(before, self._open_api):
            errors += found
        errors = errors + self._ruled(errors, tree, before, correlation)
        self._meter.compared(correlation.spent.seconds)
        return errors

    def _ruled(self, errors: ErrorList, tree: Tree, before: Tree | None, correlation: Correlation | None) -> ErrorList:
        if self._rules is None:
            return []
        if any(error.type in _BLOCKING for error in errors):
            return [invalid(None, None, _NO_RULES_CHECKED)]
        errors, self._forgiven = self._rules.evaluate(tree, before, correlation)
        return errors

    def forgiven(self) -> list[str]:
        """Return, once, which rules the last object broke as it did before."""
        found, self._forgiven = self._forgiven, []
        return found

    def _type_meta(self, new: Unstructured) -> ErrorList:
        resource, errors = self._version.resource, []
        if new.kind != resource.kind:
            errors.append(invalid(Path("kind"), new.kind, f"must be {resource.kind}"))
        if new.api_version != resource.api_version:
            errors.append(invalid(Path("apiVersion"), new.api_version, f"must be {resource.api_version}"))
        return errors

    def _scale_spec(self, tree: Tree) -> ErrorList:
        scale = self._version.scale
        return _replicas(tree, scale.spec_replicas_path) if scale is not None else []

    def _scale_status(self, tree: Tree) -> ErrorList:
        scale = self._version.scale
        if scale is None:
            return []
        errors = _replicas(tree, scale.status_replicas_path)
        if scale.label_selector_path is not None:
            _, wrong = nested(tree, scale.label_selector_path, str)
            if wrong:
                errors.append(invalid(Path(scale.label_selector_path), "", wrong))
        return errors


_GO_TYPES = {str: "string", int: "int64"}
_GO_VALUES = {
    dict: "map[string]interface {}", list: "[]interface {}", str: "string", bool: "bool", int: "int64",
    float: "float64", type(None): "<nil>",
}  # fmt: skip


def nested(tree: Tree, path: str, wanted: type[Any]) -> tuple[Any, str]:
    """Return (the value at a simple path or None, what is wrong on the way)."""
    names = path.removeprefix(".").split(".")
    value: Any = tree
    for index, name in enumerate(names):
        if not isinstance(value, dict):
            at = ".".join(names[: index + 1])
            kind = _GO_VALUES[type(value)]
            return (
                None,
                f".{at} accessor error: {show(value)} is of the type {kind}, expected map[string]interface{{}}",
            )
        if name not in value:
            return None, ""
        value = value[name]
    if type(value) is not wanted:
        kind = _GO_VALUES[type(value)]
        at = ".".join(names)
        return None, f".{at} accessor error: {show(value)} is of the type {kind}, expected {_GO_TYPES[wanted]}"
    return value, ""


def _replicas(tree: Tree, path: str) -> ErrorList:
    found, wrong = nested(tree, path, int)
    place = Path(path)
    if wrong:
        return [invalid(place, 0, wrong)]
    replicas = found or 0
    if replicas < 0:
        return [invalid(place, replicas, "should be a non-negative integer")]
    if replicas > _INT32_MAX:
        return [invalid(place, replicas, f"should be less than or equal to {_INT32_MAX}")]
    return []


def _finalizer_warnings(new: Unstructured, old: Unstructured | None) -> list[str]:
    added = set(new.metadata.finalizers) - set(old.metadata.finalizers if old is not None else ())
    result: list[str] = []
    for name in sorted(added):
        result += [f"metadata.finalizers: {quote(name)}: {text}" for text in qualified_name_errors(name)]
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            path = " including a path (/)" if "." in name else ""
            result.append(
                f"metadata.finalizers: {quote(name)}: prefer a domain-qualified finalizer name{path} to avoid "
                "accidental conflicts with other finalizer writers"
            )
    return result


def _reader(path: str) -> Callable[[Any], str]:
    names = path.removeprefix(".").split(".")

    def read(obj: Unstructured) -> str:
        value: Any = obj.content
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return "" if value is None else show(value)

    return read
