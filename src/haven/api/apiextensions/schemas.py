"""What is wrong with the schema of a custom resource: it must be structural, and stay within what is supported.

Whether expressions compile is not looked at here.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/ and the
behaviour of apiextensions-apiserver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from msgspec.structs import replace as replace_struct

from haven.api.apiextensions import v1
from haven.api.apiextensions.defaults import validate_defaults
from haven.api.apiextensions.fieldpaths import BadFieldPathError, follow_path
from haven.apimachinery import serialization
from haven.apimachinery.cel.regexes import BadPatternError, translate
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.schema.formats import unrecognized_format

__all__ = [
    "ROOT_FIELDS_BESIDE_STATUS",
    "SchemaFindings",
    "has_defaults",
    "has_rules",
    "structural_errors",
    "unfit_beside_status",
    "unrecognized_formats",
    "validate_schema",
]

Schema = v1.JSONSchemaProps

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_EMBEDDED = "x-kubernetes-embedded-resource"
_PRESERVE = "x-kubernetes-preserve-unknown-fields"


class _Level(Enum):
    ROOT = "at the root"
    ITEM = "for specified array items"
    FIELD = "for specified object fields"


@dataclass(slots=True)
class SchemaFindings:
    """What is wrong with a schema, its rules aside."""

    errors: ErrorList
    faulty: list[str]
    """The fields that complaints are about which keep rules at them, and above, from being looked at."""
    hide_rules: bool = False
    """Whether no rule can be looked at."""


def validate_schema(
    schema: Schema, path: Path, *, require_pruned_defaults: bool = True, is_faulty: bool = False
) -> SchemaFindings:
    """Check a schema that describes objects; `is_faulty` tells that it was complained of before."""
    errors: ErrorList = []
    if schema.nullable:
        errors.append(forbidden(path.child("nullable"), "nullable cannot be true at the root"))
    unsupported = _has_unsupported(schema)
    structural: ErrorList = []
    if not unsupported:
        structural = sorted(_structural(schema, _Level.ROOT, path) + _completeness(schema, path), key=str)
        if not structural:
            tree = serialization.to_tree(schema)
            structural = validate_defaults(tree, path, require_pruned=require_pruned_defaults)
        errors += structural
    own = _supported(schema, path, _Place(is_root=True))
    errors += own
    if unsupported and not errors and not is_faulty and _names_another_draft(schema):
        errors.append(invalid(path, "", "OpenAPIV3Schema 'schema' is not supported"))
    return SchemaFindings(errors, [one.field for one in own], unsupported or bool(structural))


def _names_another_draft(schema: Schema) -> bool:
    inner = [*schema.properties.values(), *schema.all_of, *schema.any_of, *schema.one_of]
    inner += [one for one in (_one(schema.items), _extra(schema), schema.not_) if one is not None]
    return bool(schema.schema) or any(map(_names_another_draft, inner))


ROOT_FIELDS_BESIDE_STATUS = (
    "Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum",
    "MaxLength", "MinLength", "Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items",
    "Properties", "ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations",
)  # fmt: skip
"""What the root may have where the status has an endpoint of its own, as the complaint names it."""

_BEFORE_TYPE = ("id", "schema", "ref")
_NOT_BESIDE_STATUS = (
    "nullable", "default", "enum", "max_properties", "min_properties", "all_of", "one_of", "any_of", "not_",
    "additional_properties", "pattern_properties", "dependencies", "additional_items", "definitions",
    "x_kubernetes_embedded_resource", "x_kubernetes_int_or_string", "x_kubernetes_list_map_keys",
    "x_kubernetes_list_type", "x_kubernetes_map_type",
)  # fmt: skip


def unfit_beside_status(schema: Schema) -> str | None:
    """Return what the root of a schema may not have beside a status endpoint: "type", another field, or None."""
    empty = Schema()

    def first(names: tuple[str, ...]) -> str | None:
        return next((name for name in names if getattr(schema, name) != getattr(empty, name)), None)

    if (found := first(_BEFORE_TYPE)) is not None:
        return found
    if schema.type and schema.type != "object":
        return "type"
    return first(_NOT_BESIDE_STATUS)


def has_defaults(schema: Schema) -> bool:
    """Tell whether a schema has a default anywhere."""
    inner = [*schema.properties.values(), *schema.all_of, *schema.any_of, *schema.one_of]
    inner += [one for one in (_one(schema.items), _extra(schema), schema.not_) if one is not None]
    return schema.default is not None or any(map(has_defaults, inner))


def has_rules(schema: Schema) -> bool:
    """Tell whether a schema has x-kubernetes-validations anywhere."""
    inner = [*schema.properties.values(), *schema.all_of]
    inner += [one for one in (_one(schema.items), _extra(schema)) if one is not None]
    return bool(schema.x_kubernetes_validations) or any(map(has_rules, inner))


def unrecognized_formats(schema: Schema) -> list[str]:
    """Return the formats in a schema that mean nothing for values of their type."""
    found = [schema.format] if schema.format and unrecognized_format(schema.type, schema.format) else []
    inner = [*schema.all_of, *schema.one_of, *schema.any_of, *schema.properties.values()]
    inner += [one for one in (_one(schema.items), _extra(schema), schema.not_) if one is not None]
    return found + [name for one in inner for name in unrecognized_formats(one)]


def structural_errors(schema: Schema, path: Path) -> ErrorList:
    """Check only whether a schema is structural."""
    if _has_unsupported(schema):
        return []
    return sorted(_structural(schema, _Level.ROOT, path) + _completeness(schema, path), key=str)


# ---- structural schemas


def _one(items: Schema | list[Schema] | None) -> Schema | None:
    return items if isinstance(items, Schema) else None


def _extra(schema: Schema) -> Schema | None:
    return schema.additional_properties if isinstance(schema.additional_properties, Schema) else None


def _has_unsupported(schema: Schema) -> bool:
    """Tell whether a schema cannot be read as a structural one."""
    own = (
        schema.id or schema.schema or schema.additional_items is not None or schema.pattern_properties
        or schema.definitions or schema.dependencies or schema.ref or (isinstance(schema.items, list) and schema.items)
        or schema.x_kubernetes_preserve_unknown_fields is False
    )  # fmt: skip
    inner = [*schema.properties.values(), *schema.all_of, *schema.any_of, *schema.one_of]
    inner += [one for one in (_one(schema.items), _extra(schema), schema.not_) if one is not None]
    return bool(own) or any(_has_unsupported(one) for one in inner)


def _structural(schema: Schema, level: _Level, path: Path) -> ErrorList:
    errors: ErrorList = []
    items, extra = _one(schema.items), _extra(schema)
    if schema.type == "array" and items is None:
        errors.append(required(path.child("items"), "must be specified"))
    if items is not None:
        errors += _structural(items, _Level.ITEM, path.child("items"))
    for name, one in schema.properties.items():
        errors += _structural(one, _Level.FIELD, path.child("properties").key(name))
    if schema.additional_properties is not None:
        if level is _Level.ROOT:
            errors.append(forbidden(path.child("additionalProperties"), "must not be used at the root"))
        if extra is not None:
            errors += _structural(extra, _Level.FIELD, path.child("additionalProperties"))
    errors += _extensions(schema, path)
    errors += _values(
        schema, path, _is_int_or_string(schema), bool(schema.all_of) and _is_int_or_string(schema.all_of[0])
    )
    errors += _type(schema, level, path)
    if schema.x_kubernetes_embedded_resource and schema.additional_properties is not None:
        words = f"must not be used if {_EMBEDDED} is set"
        errors.append(forbidden(path.child("additionalProperties"), words))
    if level is _Level.ROOT and schema.type and schema.type != "object":
        errors.append(invalid(path.child("type"), schema.type, "must be object at the root"))
    return errors + _object_fields(schema, level, path)


def _extensions(schema: Schema, path: Path) -> ErrorList:
    errors: ErrorList = []
    words = "must be false if x-kubernetes-int-or-string is true"
    if schema.x_kubernetes_int_or_string and schema.x_kubernetes_preserve_unknown_fields:
        errors.append(invalid(path.child(_PRESERVE), True, words))
    if schema.x_kubernetes_int_or_string and schema.x_kubernetes_embedded_resource:
        errors.append(invalid(path.child(_EMBEDDED), True, words))
    return errors


def _type(schema: Schema, level: _Level, path: Path) -> ErrorList:
    place = path.child("type")
    if schema.x_kubernetes_embedded_resource and schema.type != "object":
        words = f"must be object if {_EMBEDDED} is true"
        return [invalid(place, schema.type, words) if schema.type else required(place, words)]
    if schema.type or schema.x_kubernetes_int_or_string or schema.x_kubernetes_preserve_unknown_fields:
        return []
    return [required(place, f"must not be empty {level.value}")]


def _object_fields(schema: Schema, level: _Level, path: Path) -> ErrorList:
    errors: ErrorList = []
    place = path.child("properties")
    is_object = level is _Level.ROOT or schema.x_kubernetes_embedded_resource
    for name in ("kind", "apiVersion"):
        one = schema.properties.get(name)
        if one is not None and is_object and one.type != "string":
            errors.append(invalid(place.key(name).child("type"), one.type, "must be string"))
    metadata = schema.properties.get("metadata")
    if metadata is not None:
        if is_object and metadata.type != "object":
            errors.append(invalid(place.key("metadata").child("type"), metadata.type, "must be object"))
        if level is _Level.ROOT and not _restricts_names_only(metadata):
            words = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            errors.append(forbidden(place.key("metadata"), words))
    preserves = schema.x_kubernetes_preserve_unknown_fields
    if schema.x_kubernetes_embedded_resource and not preserves and not schema.properties:
        words = f"must not be empty if {_EMBEDDED} is true without {_PRESERVE}"
        errors.append(required(place, words))
    return errors


def _restricts_names_only(metadata: Schema) -> bool:
    properties = {} if set(metadata.properties) <= {"name", "generateName"} else metadata.properties
    return Schema(type=metadata.type, default=metadata.default, properties=properties) == Schema(
        type=metadata.type,
        default=metadata.default,
    ) and not _differs(metadata)


def _differs(metadata: Schema) -> bool:
    """Tell whether anything but the type, properties and default is given."""
    return Schema(type=metadata.type, default=metadata.default, properties=metadata.properties) != metadata


def _is_int_or_string(schema: Schema) -> bool:
    given = [
        replace_struct(one, additional_properties=None) if one.additional_properties is False else one
        for one in schema.any_of
    ]
    return given == [Schema(type="integer"), Schema(type="string")]


def _values(schema: Schema, path: Path, skip_any: bool, skip_first_all: bool) -> ErrorList:
    errors: ErrorList = []
    for index, one in enumerate(() if skip_any else schema.any_of):
        errors += _nested(one, path.child("anyOf").index(index), False, allow_rules=False)
    for index, one in enumerate(schema.all_of):
        errors += _nested(one, path.child("allOf").index(index), skip_first_all and index == 0, allow_rules=False)
    for index, one in enumerate(schema.one_of):
        errors += _nested(one, path.child("oneOf").index(index), False, allow_rules=False)
    if schema.not_ is not None:
        errors += _nested(schema.not_, path.child("not"), False, allow_rules=False)
    if schema.pattern and (why := _pattern_complaint(schema.pattern)):
        words = f"must be a valid regular expression, but isn't: {why}"
        errors.append(invalid(path.child("pattern"), schema.pattern, words))
    return errors


def _pattern_complaint(pattern: str) -> str:
    """Return what Go says of a bad regular expression; "" if it is good."""
    try:
        translate(pattern)
    except BadPatternError as error:
        return str(error)
    return ""


def _nested(schema: Schema, path: Path, skip_any: bool, *, allow_rules: bool) -> ErrorList:
    errors = _values(schema, path, skip_any, False)
    items = _one(schema.items)
    if items is not None:
        errors += _nested(items, path.child("items"), False, allow_rules=allow_rules)
    for name, one in schema.properties.items():
        errors += _nested(one, path.child("properties").key(name), False, allow_rules=allow_rules)
    undefined, empty, false = "must be undefined", "must be empty", "must be false"
    for name, is_given, words in (
        ("type", schema.type, empty),
        ("additionalProperties", schema.additional_properties not in (None, False), undefined),
        ("default", schema.default is not None, undefined),
        ("title", schema.title, empty),
        ("description", schema.description, empty),
        ("nullable", schema.nullable, false),
        (_PRESERVE, schema.x_kubernetes_preserve_unknown_fields, false),
        (_EMBEDDED, schema.x_kubernetes_embedded_resource, false),
        ("x-kubernetes-int-or-string", schema.x_kubernetes_int_or_string, false),
        ("x-kubernetes-list-map-keys", schema.x_kubernetes_list_map_keys, empty),
        ("x-kubernetes-list-type", schema.x_kubernetes_list_type is not None, undefined),
        ("x-kubernetes-map-type", schema.x_kubernetes_map_type is not None, undefined),
        ("x-kubernetes-validations", schema.x_kubernetes_validations and not allow_rules, empty),
    ):
        if is_given:
            errors.append(forbidden(path.child(name), f"{words} to be structural"))
    if "metadata" in schema.properties:
        words = "must not be specified in a nested context"
        errors.append(forbidden(path.child("properties").key("metadata"), words))
    return errors


def _completeness(schema: Schema, path: Path) -> ErrorList:
    """Complain of what the root's value validations restrict without it being specified outside of them."""
    return _junctors_complete(schema, schema, path, path)


def _junctors_complete(nested: Schema, schema: Schema, path: Path, spot: Path) -> ErrorList:
    """`spot` is where the restriction is, `path` where the schema it restricts is, or should be."""
    errors: ErrorList = []
    if nested.not_ is not None:
        errors += _complete(nested.not_, schema, path, spot.child("not"))
    for name, several in (("allOf", nested.all_of), ("anyOf", nested.any_of), ("oneOf", nested.one_of)):
        for index, one in enumerate(several):
            errors += _complete(one, schema, path, spot.child(name).index(index))
    return errors


def _complete(nested: Schema, schema: Schema | None, path: Path, spot: Path) -> ErrorList:
    if schema is None:
        return [required(path, f"because it is defined in {spot}")]
    errors = _junctors_complete(nested, schema, path, spot)
    items = _one(nested.items)
    if items is not None:
        errors += _complete(items, _one(schema.items), path.child("items"), spot.child("items"))
    for name, one in nested.properties.items():
        place = path.child("properties").key(name)
        errors += _complete(one, schema.properties.get(name), place, spot.child("properties").key(name))
    return errors


# ---- what is supported


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a schema is: at the root, within the metadata of an object, where defaults are not wanted."""

    is_root: bool = False
    in_metadata: bool = False
    no_defaults: str = ""


def _supported(schema: Schema, path: Path, place: _Place) -> ErrorList:
    errors = _own(schema, path, place)
    inner = replace(place, is_root=False)
    if schema.unique_items:
        words = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errors.append(forbidden(path.child("uniqueItems"), words))
    extra = schema.additional_properties
    if extra is not None:
        spot = path.child("additionalProperties")
        if schema.properties and extra is not True:
            errors.append(forbidden(spot, "additionalProperties and properties are mutual exclusive"))
        if isinstance(extra, Schema):
            why = "inside additionalProperties applying to object metadata" if place.in_metadata else place.no_defaults
            errors += _supported(extra, spot, replace(inner, no_defaults=why))
    for name in sorted(schema.properties):
        below = inner
        if (place.is_root or schema.x_kubernetes_embedded_resource) and name in ("metadata", "kind", "apiVersion"):
            why = f"in top-level {name}" if place.is_root else place.no_defaults
            below = replace(inner, in_metadata=True, no_defaults=why)
        errors += _supported(schema.properties[name], path.child("properties").key(name), below)
    if schema.not_ is not None:
        errors += _supported(schema.not_, path.child("not"), inner)
    for word, several in (("allOf", schema.all_of), ("oneOf", schema.one_of), ("anyOf", schema.any_of)):
        for index, one in enumerate(several):
            errors += _supported(one, path.child(word).index(index), inner)
    for name in sorted(schema.definitions):
        errors += _supported(schema.definitions[name], path.child("definitions").key(name), inner)
    items = schema.items
    if isinstance(items, Schema):
        errors += _supported(items, path.child("items"), inner)
    elif items is not None:
        for index, one in enumerate(items):
            errors += _supported(one, path.child("items").index(index), inner)
    for name, wanted in schema.dependencies.items():
        if isinstance(wanted, Schema):
            errors += _supported(wanted, path.child("dependencies").key(name), inner)
    return errors + _maps(schema, path) + _lists(schema, path) + _rules(schema, path)


def _own(schema: Schema, path: Path, place: _Place) -> ErrorList:
    errors: ErrorList = []
    if schema.type and schema.type not in _TYPES:
        errors.append(not_supported(path.child("type"), schema.type, _TYPES))
    if schema.default is not None and place.no_defaults:
        errors.append(forbidden(path.child("default"), f"must not be set {place.no_defaults}"))
    for name, is_given in (
        ("id", schema.id),
        ("additionalItems", schema.additional_items is not None),
        ("patternProperties", schema.pattern_properties),
        ("definitions", schema.definitions),
        ("dependencies", schema.dependencies),
        ("$ref", schema.ref is not None),
    ):
        if is_given:
            errors.append(forbidden(path.child(name), f"{name} is not supported"))
    if schema.type == "null":
        words = "type cannot be set to null, use nullable as an alternative"
        errors.append(forbidden(path.child("type"), words))
    if isinstance(schema.items, list) and schema.items:
        errors.append(forbidden(path.child("items"), "items must be a schema object and not an array"))
    if place.in_metadata and schema.x_kubernetes_embedded_resource:
        errors.append(forbidden(path.child(_EMBEDDED), "must not be used inside of resource meta"))
    return errors


def _wrong_type(schema: Schema, wanted: str, because: str, path: Path) -> ErrorList:
    if schema.type == wanted:
        return []
    words = f"must be {wanted} if {because} is specified"
    place = path.child("type")
    return [invalid(place, schema.type, words) if schema.type else required(place, words)]


def _maps(schema: Schema, path: Path) -> ErrorList:
    errors: ErrorList = []
    if schema.x_kubernetes_preserve_unknown_fields is False:
        errors.append(invalid(path.child(_PRESERVE), False, "must be true or undefined"))
    kind = schema.x_kubernetes_map_type
    if kind is None:
        return errors
    errors += _wrong_type(schema, "object", "x-kubernetes-map-type", path)
    if kind not in ("atomic", "granular"):
        errors.append(not_supported(path.child("x-kubernetes-map-type"), kind, ("atomic", "granular")))
    return errors


def _lists(schema: Schema, path: Path) -> ErrorList:
    errors: ErrorList = []
    kind, keys, items = schema.x_kubernetes_list_type, schema.x_kubernetes_list_map_keys, _one(schema.items)
    place = path.child("x-kubernetes-list-type")
    if kind is not None:
        wrong = _wrong_type(schema, "array", "x-kubernetes-list-type", path)
        errors += wrong
        if kind == "set" and items is not None and not wrong:
            errors += _set_items(items, path.child("items"))
        if kind not in ("atomic", "set", "map"):
            errors.append(not_supported(place, kind, ("atomic", "set", "map")))
    if keys and kind != "map":
        words = "must be map if x-kubernetes-list-map-keys is non-empty"
        errors.append(required(place, words) if kind is None else invalid(place, kind, words))
    if kind == "map":
        errors += _map_list(schema, items, path)
    if kind in ("set", "map") and items is not None:
        errors += _key_fields(kind, keys, items, path.child("items"))
    return errors


def _set_items(items: Schema, path: Path) -> ErrorList:
    words = "must be atomic as item of a list with x-kubernetes-list-type=set"
    kind = items.x_kubernetes_list_type
    if items.type == "array" and kind not in (None, "atomic"):
        return [invalid(path.child("x-kubernetes-list-type"), kind, words)]
    if items.type == "object" and items.x_kubernetes_map_type != "atomic":
        return [invalid(path.child("x-kubernetes-map-type"), kind, words)]
    return []


def _map_list(schema: Schema, items: Schema | None, path: Path) -> ErrorList:
    keys, place = schema.x_kubernetes_list_map_keys, path.child("x-kubernetes-list-map-keys")
    errors: ErrorList = []
    if not keys:
        errors.append(required(place, "must not be empty if x-kubernetes-list-type is map"))
    if items is None:
        words = "must have a schema if x-kubernetes-list-type is map"
        return [*errors, required(path.child("items"), words)] if schema.items is None else errors
    if items.type != "object":
        words = "must be object if parent array's x-kubernetes-list-type is map"
        return [*errors, invalid(path.child("items", "type"), items.type, words)]
    for index, key in enumerate(keys):
        one = items.properties.get(key)
        if one is None:
            errors.append(invalid(place, keys, "entries must all be names of item properties"))
        elif one.type in ("array", "object"):
            spot = path.child("items", "properties").key(key).child("type")
            words = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            errors.append(invalid(spot, items.type, words))
        if key in keys[:index]:
            errors.append(invalid(place, keys, "must not contain duplicate entries"))
    return errors


def _key_fields(kind: str, keys: list[str], items: Schema, path: Path) -> ErrorList:
    errors: ErrorList = []
    if items.nullable:
        words = f"cannot be nullable when x-kubernetes-list-type is {kind}"
        errors.append(forbidden(path.child("nullable"), words))
    for key in keys if kind == "map" else ():
        one, place = items.properties.get(key), path.child("properties").key(key)
        if one is None:
            continue
        this = "this property is in x-kubernetes-list-map-keys, so it"
        if key not in items.required and one.default is None:
            errors.append(required(place.child("default"), f"{this} must have a default or be a required property"))
        if one.nullable:
            errors.append(forbidden(place.child("nullable"), f"{this} cannot be nullable"))
    return errors


def _rules(schema: Schema, path: Path) -> ErrorList:
    errors: ErrorList = []
    for index, rule in enumerate(schema.x_kubernetes_validations):
        place = path.child("x-kubernetes-validations").index(index)
        text, message = rule.rule.strip(), rule.message.strip()
        if not text:
            errors.append(required(place.child("rule"), "rule is not specified"))
        elif rule.message and not message:
            errors.append(invalid(place.child("message"), rule.message, "must be non-empty if specified"))
        elif _has_newlines(message):
            errors.append(invalid(place.child("message"), rule.message, "must not contain line breaks"))
        elif _has_newlines(text) and not message:
            words = "message must be specified if rule contains line breaks"
            errors.append(required(place.child("message"), words))
        if rule.message_expression and not rule.message_expression.strip():
            words = "messageExpression must be non-empty if specified"
            errors.append(required(place.child("messageExpression"), words))
        if rule.reason is not None and rule.reason not in _REASONS:
            errors.append(not_supported(place.child("reason"), rule.reason, _REASONS))
        if rule.field_path and not rule.field_path.strip():
            errors.append(invalid(place.child("fieldPath"), rule.field_path, "must be non-empty if specified"))
        if _has_newlines(rule.field_path):
            errors.append(invalid(place.child("fieldPath"), rule.field_path, "must not contain line breaks"))
        if rule.field_path and not _leads_somewhere(rule.field_path, schema):
            errors.append(invalid(place.child("fieldPath"), rule.field_path, "must be a valid path"))
    return errors


def _leads_somewhere(field_path: str, schema: Schema) -> bool:
    if _has_unsupported(schema):
        return True  # Nobody can tell.
    try:
        follow_path(field_path, schema)
    except BadFieldPathError:
        return False
    return True


def _has_newlines(text: str) -> bool:
    return "\n" in text or "\r" in text
