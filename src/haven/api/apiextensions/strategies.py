"""CustomResourceDefinitions: defaults, what is wrong with them, how they are written.

What all versions have alike (schema, subresources, columns, selectable fields) is complained of at the place where
older versions of the API had it, as upstream does.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from haven.api.apiextensions import v1
from haven.api.apiextensions.defaults import has_unpruned_defaults
from haven.api.apiextensions.fieldpaths import BadFieldPathError, follow_path
from haven.api.apiextensions.schemas import (
    ROOT_FIELDS_BESIDE_STATUS,
    has_defaults,
    has_rules,
    unfit_beside_status,
    unrecognized_formats,
    validate_schema,
)
from haven.api.internalform import internal_form
from haven.api.strategy import Strategy
from haven.api.webhookclients import validate_ca_bundle, validate_webhook_service, validate_webhook_url
from haven.apimachinery import serialization
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    go_json,
    invalid,
    not_supported,
    required,
    too_many,
)
from haven.apimachinery.goformat import quote, show
from haven.apimachinery.validation.names import (
    byte_length,
    dns1035_label_errors,
    dns1123_subdomain_errors,
    dns_subdomain_name,
)
from haven.apimachinery.validation.objectmeta import (
    validate_immutable,
    validate_object_meta,
    validate_object_meta_update,
)

__all__ = ["STRATEGIES", "approval_state"]

CRD = v1.CustomResourceDefinition

_SPEC = Path("spec")
_SCOPES = ("Cluster", "Namespaced")
_CONVERTERS = ("None", "Webhook")
_REVIEW_VERSIONS = ("v1", "v1beta1")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_APPROVED = "api-approved.kubernetes.io"
_MAX_SELECTABLE = 8
_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_AS_LABEL = "may have mixed case, but should otherwise match: "


def _default(crd: CRD) -> None:
    spec, names = crd.spec, crd.spec.names
    if not names.singular:
        names.singular = names.kind.lower()
    if not names.list_kind and names.kind:
        names.list_kind = names.kind + "List"
    if spec.conversion is None:
        spec.conversion = v1.CustomResourceConversion(strategy="None")
    webhook = spec.conversion.webhook
    if webhook is not None and webhook.client_config is not None:
        service = webhook.client_config.service
        if service is not None and service.port is None:
            service.port = 443
    if not crd.status.stored_versions:
        _remember_storage_version(crd)


def _remember_storage_version(crd: CRD) -> None:
    stored = crd.status.stored_versions or []
    for version in crd.spec.versions or ():
        if version.storage:
            if version.name not in stored:
                crd.status.stored_versions = [*stored, version.name]
            return


def _create(new: CRD) -> None:
    new.status = v1.CustomResourceDefinitionStatus()
    new.metadata.generation = 1
    _remember_storage_version(new)


def _update(new: CRD, old: CRD) -> None:
    new.status = msgspec.structs.replace(old.status)
    if new.spec != old.spec:
        new.metadata.generation = old.metadata.generation + 1
    _remember_storage_version(new)


def _check(new: CRD) -> ErrorList:
    wanted = f"{new.spec.names.plural}.{new.spec.group}"

    def name_rule(name: str, prefix: bool = False) -> tuple[str, ...]:
        unfit = tuple(dns_subdomain_name(name, prefix))
        return unfit if name == wanted else (*unfit, 'must be spec.names.plural+"."+spec.group')

    errors = validate_object_meta(new.metadata, namespaced=False, name_rule=name_rule)
    return errors + _check_spec(new) + _check_rest(new, None)


def _check_update(new: CRD, old: CRD) -> ErrorList:
    errors = validate_object_meta_update(new.metadata, old.metadata) + _check_spec(new, old)
    if any(one.type == "Established" and one.status == "True" for one in old.status.conditions or ()):
        errors += validate_immutable(new.spec.scope, old.spec.scope, _SPEC.child("scope"))
        errors += validate_immutable(new.spec.names.kind, old.spec.names.kind, _SPEC.child("names", "kind"))
    errors += validate_immutable(new.spec.group, old.spec.group, _SPEC.child("group"))
    errors += validate_immutable(new.spec.names.plural, old.spec.names.plural, _SPEC.child("names", "plural"))
    return errors + _check_rest(new, old)


def _check_rest(new: CRD, old: CRD | None) -> ErrorList:
    errors = _names(new.status.accepted_names, Path("status", "acceptedNames"))
    errors += _stored_versions(new, Path("status", "storedVersions"))
    errors += _approval(new, old)
    if new.spec.preserve_unknown_fields and not (old is not None and old.spec.preserve_unknown_fields):
        words = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        )
        errors.append(invalid(_SPEC.child("preserveUnknownFields"), True, words))
    return errors


def _stored_versions(crd: CRD, path: Path) -> ErrorList:
    stored = crd.status.stored_versions
    if not stored:
        return [invalid(path, None, "must have at least one stored version")]
    errors: ErrorList = []
    left = {name: index for index, name in enumerate(stored)}
    for version in crd.spec.versions or []:
        if version.storage and version.name not in left:
            errors.append(invalid(path, stored, f"must have the storage version {version.name}"))
        left.pop(version.name, None)
    for name, index in left.items():
        words = (
            f"missing from spec.versions; {name} was previously a storage version, and must remain in "
            "spec.versions until a storage migration ensures no data remains persisted in "
            f"{name} and removes {name} from status.storedVersions"
        )
        errors.append(invalid(path.index(index), name, words))
    return errors


def _approval(new: CRD, old: CRD | None) -> ErrorList:
    group = new.spec.group
    protected = group in ("k8s.io", "kubernetes.io") or group.endswith((".k8s.io", ".kubernetes.io"))
    if not protected:
        return []
    state = approval_state(new)
    if old is not None and approval_state(old)[0] == state[0]:
        return []
    place = Path("metadata", "annotations").key(_APPROVED)
    if state[0] == "missing":
        return [required(place, state[1])]
    if state[0] == "invalid":
        return [invalid(place, new.metadata.annotations[_APPROVED], state[1])]
    return []


def approval_state(crd: CRD) -> tuple[str, str]:
    """Return (missing, invalid, bypassed or approved; why): definitions in Kubernetes' own groups need an approval."""
    text = crd.metadata.annotations.get(_APPROVED, "")
    see = "see https://github.com/kubernetes/enhancements/pull/1111"
    if not text:
        return "missing", f'protected groups must have approval annotation "{_APPROVED}", {see}'
    if text.startswith("unapproved"):
        return "bypassed", f"not approved: {quote(text)}"
    scheme, _, rest = text.partition("://")
    if scheme and rest.partition("/")[0]:
        return "approved", f"approved in {text}"
    said = f'protected groups must have approval annotation "{_APPROVED}" with either a URL or a reason starting with'
    return "invalid", f'{said} "unapproved", {see}'


def _check_spec(crd: CRD, old: CRD | None = None) -> ErrorList:
    spec = crd.spec
    versions = spec.versions or []
    errors = _group(spec.group)
    if not spec.scope:
        errors.append(required(_SPEC.child("scope"), ""))
    elif spec.scope not in _SCOPES:
        errors.append(not_supported(_SPEC.child("scope"), spec.scope, _SCOPES))
    old_versions = old.spec.versions or [] if old is not None else []
    if old is None or all(_schema(version) is not None for version in old_versions):
        for index, version in enumerate(versions):
            if _schema(version) is None:
                place = _SPEC.child("versions").index(index).child("schema", "openAPIV3Schema")
                errors.append(required(place, ""))
    if spec.preserve_unknown_fields and any(has_defaults(one) for version in versions if (one := _schema(version))):
        words = "must be false in order to use defaults in the schema"
        errors.append(invalid(_SPEC.child("preserveUnknownFields"), True, words))
    pruned = old is None or not _has_unpruned_defaults(old)
    common, own = _hoisted(versions)
    with_status = {version.name: _has_status(version) for version in reversed(versions)}
    for index, version in enumerate(own):
        place = _SPEC.child("versions").index(index)
        if complaints := dns1035_label_errors(version.name):
            errors.append(invalid(place.child("name"), version.name, ",".join(complaints)))
        changed = not _same_schema(versions[index], old)
        errors += _version(version, place, with_status[version.name], pruned=pruned, changed=changed)
    errors += _version_list(own, is_given=spec.versions is not None)
    if versions and versions[0].name and (complaints := dns1035_label_errors(versions[0].name)):
        errors.append(invalid(_SPEC.child("version"), versions[0].name, ",".join(complaints)))
    names = spec.names
    for name, value in (
        ("plural", names.plural), ("singular", names.singular), ("kind", names.kind), ("listKind", names.list_kind)
    ):  # fmt: skip
        if not value:
            errors.append(required(_SPEC.child("names", name), ""))
    errors += _names(names, _SPEC.child("names"))
    changed = not all(_same_schema(version, old) for version in versions)
    errors += _contents(common, _SPEC, "validation", any(with_status.values()), pruned=pruned, changed=changed)
    if spec.preserve_unknown_fields and spec.conversion is not None and spec.conversion.strategy != "None":
        words = "must be None if spec.preserveUnknownFields is true"
        errors.append(invalid(_SPEC.child("conversion", "strategy"), spec.conversion.strategy, words))
    if spec.conversion is not None:
        errors += _conversion(spec.conversion, old, _SPEC.child("conversion"))
    return errors


def _group(group: str) -> ErrorList:
    path = _SPEC.child("group")
    if not group:
        return [required(path, "")]
    if complaints := dns1123_subdomain_errors(group):
        return [invalid(path, group, ",".join(complaints))]
    if "." not in group:
        return [invalid(path, group, "should be a domain with at least one dot")]
    return []


def _schema(version: v1.CustomResourceDefinitionVersion) -> v1.JSONSchemaProps | None:
    return version.schema.open_apiv3_schema if version.schema is not None else None


_Version = v1.CustomResourceDefinitionVersion


def _has_status(version: _Version) -> bool:
    return version.subresources is not None and version.subresources.status is not None


def _hoisted(versions: Sequence[_Version]) -> tuple[_Version, list[_Version]]:
    """Return what all versions have alike, and the versions without that."""
    common = _Version()
    own = [msgspec.structs.replace(version) for version in versions]
    if not own:
        return common, own
    for name in ("schema", "subresources", "additional_printer_columns", "selectable_fields"):
        first = getattr(versions[0], name)
        if all(getattr(version, name) == first for version in versions):
            setattr(common, name, first)
            for version in own:
                setattr(version, name, getattr(_Version(), name))
    return common, own


def _version_list(versions: Sequence[_Version], *, is_given: bool) -> ErrorList:
    errors: ErrorList = []
    path = _SPEC.child("versions")
    shown = [internal_form(version) for version in versions] if is_given else None
    if len({version.name for version in versions}) < len(versions):
        errors.append(invalid(path, shown, "must contain unique version names"))
    if sum(version.storage for version in versions) != 1:
        errors.append(invalid(path, shown, "must have exactly one version marked as storage version"))
    return errors


def _has_unpruned_defaults(crd: CRD) -> bool:
    schemas = [_schema(version) for version in crd.spec.versions or []]
    return any(has_unpruned_defaults(serialization.to_tree(schema)) for schema in schemas if schema is not None)


def _same_schema(version: _Version, old: CRD | None) -> bool:
    """Tell whether a version had this schema before."""
    before = old.spec.versions or [] if old is not None else []
    return any(one.name == version.name and one.schema == version.schema for one in before)


def _version(version: _Version, path: Path, has_status: bool, *, pruned: bool, changed: bool) -> ErrorList:
    said = version.deprecation_warning
    shown = msgspec.Raw(go_json(said).encode())
    errors = [
        invalid(path.child("deprecationWarning"), shown, text) for text in _warning_complaints(version.deprecated, said)
    ]
    return errors + _contents(version, path, "schema", has_status, pruned=pruned, changed=changed)


def _warning_complaints(deprecated: bool, warning: str | None) -> list[str]:
    if warning is None:
        return []
    if not deprecated:
        return ["can only be set for deprecated versions"]
    found = []
    if byte_length(warning) > 256:
        found.append("must be <= 256 characters long")
    if not warning:
        found.append("must not be an empty string")
    for index, letter in enumerate(warning):
        if not letter.isprintable():
            words = "must only contain printable UTF-8 characters; non-printable character found at index"
            found.append(f"{words} {byte_length(warning[:index])}")
            break
    return found


def _contents(
    version: _Version, path: Path, schema_name: str, has_status: bool, *, pruned: bool, changed: bool
) -> ErrorList:
    errors: ErrorList = []
    schema = _schema(version)
    if schema is not None:
        place = path.child(schema_name)
        if has_status:
            errors += _root_beside_status(schema, place)
        place = place.child("openAPIV3Schema")
        found = validate_schema(schema, place, require_pruned_defaults=pruned, is_faulty=bool(errors))
        errors += found.errors
        if not found.hide_rules and has_rules(schema):
            # Few definitions have rules; the engine is large.
            from haven.api.apiextensions.rulechecks import check_rules

            errors += check_rules(schema, place, limit_each=changed, faulty=found.faulty)
    if version.subresources is not None and version.subresources.scale is not None:
        errors += _scale(version.subresources.scale, path.child("subresources"))
    for index, column in enumerate(version.additional_printer_columns):
        errors += _column(column, path.child("additionalPrinterColumns").index(index))
    if version.selectable_fields:
        where = "validations.schema is" if schema_name == "validation" else "`version.schema.openAPIV3Schema` is not"
        place = path.child("selectableFields")
        if version.schema is None or (schema is None and schema_name != "validation"):
            errors.append(invalid(place, "", f"may only be set when {where} included"))
        else:
            errors += _selectable(version.selectable_fields, schema, place)
    return errors


def _root_beside_status(schema: v1.JSONSchemaProps, path: Path) -> ErrorList:
    """Complain of what a status on its own could not be checked against: only properties are taken apart."""
    complaint = unfit_beside_status(schema)
    if complaint is None:
        return []
    words = "allowed {} the root of the schema if the status subresource is enabled"
    if complaint == "type":
        words = f'only "object" is {words.format("as the type at")}'
        return [invalid(path.child("openAPIV3Schema.type"), schema.type, words)]
    words = f"only {show(list(ROOT_FIELDS_BESIDE_STATUS))} fields are {words.format('at')}"
    return [invalid(path.child("openAPIV3Schema"), internal_form(schema), words)]


def _scale(scale: v1.CustomResourceSubresourceScale, path: Path) -> ErrorList:
    errors: ErrorList = []
    for name, value, roots in (
        ("specReplicasPath", scale.spec_replicas_path, (".spec",)),
        ("statusReplicasPath", scale.status_replicas_path, (".status",)),
        ("labelSelectorPath", scale.label_selector_path, (".spec", ".status")),
    ):
        place = path.child(f"scale.{name}")
        if not value:
            if len(roots) == 1:
                errors.append(required(place, ""))
            continue
        if not value.startswith("."):
            errors.append(invalid(place, value, "must be a simple json path starting with ."))
        elif not value.startswith(tuple(root + "." for root in roots)):
            under = roots[0] if len(roots) == 1 else f"either {' or '.join(roots)}"
            errors.append(invalid(place, value, f"should be a json path under {under}"))
    return errors


def _column(column: v1.CustomResourceColumnDefinition, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not column.name:
        errors.append(required(path.child("name"), ""))
    types = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not column.type:
        errors.append(required(path.child("type"), types))
    elif column.type not in _COLUMN_TYPES:
        errors.append(invalid(path.child("type"), column.type, types))
    if column.format and column.format not in _COLUMN_FORMATS:
        errors.append(invalid(path.child("format"), column.format, f"must be one of {','.join(_COLUMN_FORMATS)}"))
    place = path.child("JSONPath")
    if not column.json_path:
        errors.append(required(place, ""))
    elif not column.json_path.startswith("."):
        errors.append(invalid(place, column.json_path, "must be a simple json path starting with ."))
    return errors


def _selectable(fields: Sequence[v1.SelectableField], schema: v1.JSONSchemaProps | None, path: Path) -> ErrorList:
    errors: ErrorList = []
    known: set[str] = set()
    for index, field in enumerate(fields):
        place, text = path.index(index).child("jsonPath"), field.json_path
        if not text:
            errors.append(required(place, ""))
            continue
        try:
            first, shown, found = follow_path(text, schema or v1.JSONSchemaProps(), with_brackets=False)
        except BadFieldPathError as error:
            errors.append(invalid(place, text, f"is an invalid path: {error}"))
            continue
        if first == "metadata":
            errors.append(invalid(place, text, "must not point to fields in metadata"))
        if found.type not in ("string", "boolean", "integer"):
            words = (
                "must point to a field of type string, boolean or integer. "
                "Enum string fields and strings with formats are allowed."
            )
            errors.append(invalid(place, text, words))
        if shown in known:
            errors.append(duplicate(place, text))
        known.add(shown)
    if len(known) > _MAX_SELECTABLE:
        errors.append(too_many(path, len(known), _MAX_SELECTABLE))
    return errors


def _names(names: v1.CustomResourceDefinitionNames, path: Path) -> ErrorList:
    errors: ErrorList = []
    for name, value in (("plural", names.plural), ("singular", names.singular)):
        if value and (complaints := dns1035_label_errors(value)):
            errors.append(invalid(path.child(name), value, ",".join(complaints)))
    for name, value in (("kind", names.kind), ("listKind", names.list_kind)):
        if value and (complaints := dns1035_label_errors(value.lower())):
            errors.append(invalid(path.child(name), value, _AS_LABEL + ",".join(complaints)))
    errors += _labels(names.short_names, path.child("shortNames"))
    if names.kind and names.kind == names.list_kind:
        errors.append(invalid(path.child("listKind"), names.list_kind, "kind and listKind may not be the same"))
    return errors + _labels(names.categories, path.child("categories"))


def _labels(values: Sequence[str], path: Path) -> ErrorList:
    return [
        invalid(path.index(index), value, ",".join(complaints))
        for index, value in enumerate(values)
        if (complaints := dns1035_label_errors(value))
    ]


def _conversion(conversion: v1.CustomResourceConversion, old: CRD | None, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not conversion.strategy:
        errors.append(required(path.child("strategy"), ""))
    elif conversion.strategy not in _CONVERTERS:
        errors.append(not_supported(path.child("strategy"), conversion.strategy, _CONVERTERS))
    webhook = conversion.webhook
    client = webhook.client_config if webhook is not None else None
    versions = (webhook.conversion_review_versions if webhook is not None else None) or []
    place, spot = path.child("webhookClientConfig"), path.child("conversionReviewVersions")
    if conversion.strategy != "Webhook":
        words = "should not be set when strategy is not set to Webhook"
        errors += [forbidden(place, words)] if client is not None else []
        return errors + ([forbidden(spot, words)] if versions else [])
    if client is None:
        errors.append(required(place, "required when strategy is set to Webhook"))
    else:
        errors += _client(client, place)
        if client.ca_bundle and old is not None and not _may_be_unsound(old):
            errors += validate_ca_bundle(client.ca_bundle, place.child("caBundle"))
    return errors + _review_versions(versions, old, spot)


def _may_be_unsound(old: CRD) -> bool:
    """Tell whether authorities need not be readable: those of a new definition, and where they were not before."""
    if not any(one.type == "Established" and one.status == "True" for one in old.status.conditions or ()):
        return True
    webhook = old.spec.conversion.webhook if old.spec.conversion is not None else None
    client = webhook.client_config if webhook is not None else None
    return client is not None and bool(client.ca_bundle and validate_ca_bundle(client.ca_bundle, _SPEC))


def _client(client: v1.WebhookClientConfig, path: Path) -> ErrorList:
    service = client.service
    if (client.url is None) == (service is None):
        return [required(path, "exactly one of url or service is required")]
    if client.url is not None:
        return validate_webhook_url(client.url, path.child("url"))
    assert service is not None
    port = service.port or 0
    return validate_webhook_service(service.name, service.namespace, service.path, port, path.child("service"))


def _review_versions(versions: Sequence[str], old: CRD | None, path: Path) -> ErrorList:
    if not versions:
        return [required(path, "")]
    errors: ErrorList = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(invalid(path.index(index), version, "duplicate version"))
            continue
        errors += [invalid(path.index(index), version, text) for text in dns1035_label_errors(version)]
    before = old.spec.conversion if old is not None else None
    known = (before.webhook.conversion_review_versions if before is not None and before.webhook else None) or ["v1"]
    if not set(versions) & set(_REVIEW_VERSIONS) and set(known) & set(_REVIEW_VERSIONS):
        words = f"must include at least one of {', '.join(_REVIEW_VERSIONS)}"
        errors.append(invalid(path, list(versions), words))
    return errors


def _update_status(new: CRD, old: CRD) -> None:
    new.spec = old.spec  # The metadata may be changed here too, as upstream lets it be.


def _check_status(new: CRD, old: CRD) -> ErrorList:
    errors = validate_object_meta_update(new.metadata, old.metadata)
    return errors + _names(new.status.accepted_names, Path("status", "acceptedNames"))


def _warnings(new: CRD, old: CRD | None) -> list[str]:
    """Warn of formats that mean nothing, unless they were there before."""
    known = set(_formats(old)) if old is not None else set()
    return [f"unrecognized format {quote(name)}" for name in _formats(new) if name not in known]


def _formats(crd: CRD) -> list[str]:
    schemas = [_schema(version) for version in _hoisted_schemas(crd)]
    return [name for schema in schemas if schema is not None for name in unrecognized_formats(schema)]


def _hoisted_schemas(crd: CRD) -> list[_Version]:
    common, own = _hoisted(crd.spec.versions or [])
    return [common, *own]


def _mark_deleted(crd: CRD) -> None:
    """Keep a deleted definition until its instances are gone."""
    if _CLEANUP not in crd.metadata.finalizers:
        crd.metadata.finalizers = [*crd.metadata.finalizers, _CLEANUP]
    terminating = v1.CustomResourceDefinitionCondition(
        type="Terminating",
        status="True",
        last_transition_time=crd.metadata.deletion_timestamp,
        reason="InstanceDeletionPending",
        message="CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    )
    others = [one for one in crd.status.conditions or () if one.type != "Terminating"]
    crd.status.conditions = [*others, terminating]


STRATEGIES: dict[str, Strategy[Any]] = {
    "customresourcedefinitions": Strategy(
        default=_default,
        prepare_for_create=_create,
        prepare_for_update=_update,
        validate=_check,
        validate_update=_check_update,
        name_errors=lambda name: list(dns_subdomain_name(name, False)),
        has_generation=True,
        mark_deleted=_mark_deleted,
        warnings=_warnings,
        subresources={
            "status": Strategy(default=_default, prepare_for_update=_update_status, validate_update=_check_status)
        },
        allow_unconditional_update=False,
    )
}
