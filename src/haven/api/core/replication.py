"""ReplicationControllers and PodTemplates: defaults, what is wrong with them, how they are written.

Source: the behaviour of pkg/apis/core and pkg/registry/core.
"""

from __future__ import annotations

from typing import Any

from haven.api.core import v1
from haven.api.core.pod_defaults import default_pod_template
from haven.api.core.podwarnings import name_warnings, template_warnings
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.core.validation.pod import PodOptions, pod_options, validate_pod_template_spec
from haven.api.givenempty import given
from haven.api.statuschecks import validate_counters, validate_not_more
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.validation.names import dns1123_subdomain_errors
from haven.apimachinery.validation.objectmeta import validate_not_negative

__all__ = ["POD_TEMPLATE", "REPLICATION_CONTROLLER"]

_SPEC = Path("spec")


def _default(controller: v1.ReplicationController) -> None:
    spec = controller.spec
    if spec.template is not None:
        labels = spec.template.metadata.labels
        if labels:
            spec.selector = spec.selector or dict(labels)
            controller.metadata.labels = controller.metadata.labels or dict(labels)
        default_pod_template(spec.template)
    if spec.replicas is None:
        spec.replicas = 1


def _validate_spec(spec: v1.ReplicationControllerSpec, options: PodOptions) -> ErrorList:
    errors = validate_not_negative(spec.min_ready_seconds, _SPEC.child("minReadySeconds"))
    if not spec.selector:
        errors.append(required(_SPEC.child("selector"), ""))
    if spec.replicas is None:
        errors.append(required(_SPEC.child("replicas"), ""))
    else:
        errors += validate_not_negative(spec.replicas, _SPEC.child("replicas"))
    path = _SPEC.child("template")
    template = spec.template
    if template is None:
        return [*errors, required(path, "")]
    labels = template.metadata.labels
    if spec.selector and not spec.selector.items() <= labels.items():
        words = "`selector` does not match template `labels`"
        errors.append(invalid(path.child("metadata", "labels"), given(labels), words))
    errors += validate_pod_template_spec(template, path, options)
    if template.spec.restart_policy != "Always":
        place = path.child("spec", "restartPolicy")
        errors.append(not_supported(place, template.spec.restart_policy, ("Always",)))
    if template.spec.active_deadline_seconds is not None:
        words = "activeDeadlineSeconds in ReplicationController is not Supported"
        errors.append(forbidden(path.child("spec", "activeDeadlineSeconds"), words))
    return errors


def _template_options(old: v1.PodTemplateSpec | None) -> PodOptions:
    return pod_options(old.spec if old is not None else None, is_pod=False)


def _long_name(name: str, is_prefix: bool) -> list[str]:
    """The newer rule for names: a prefix is not looked at, and lengths count bytes."""
    if is_prefix:
        return []
    return [text.replace("characters", "bytes") if "no more" in text else text for text in _name_errors(name)]


def _validate(controller: v1.ReplicationController) -> ErrorList:
    errors = validate_meta(controller.metadata, namespaced=True, name_rule=_long_name)
    return errors + _validate_spec(controller.spec, _template_options(None))


def _validate_update(new: v1.ReplicationController, old: v1.ReplicationController) -> ErrorList:
    return validate_meta_update(new.metadata, old.metadata) + _validate_spec(
        new.spec, _template_options(old.spec.template)
    )


def _validate_status_update(new: v1.ReplicationController, old: v1.ReplicationController) -> ErrorList:
    status = new.status
    counters = (
        ("fully_labeled_replicas", "fullyLabeledReplicas"),
        ("ready_replicas", "readyReplicas"),
        ("available_replicas", "availableReplicas"),
    )
    errors = validate_meta_update(new.metadata, old.metadata)
    generation = ("observed_generation", "observedGeneration")
    errors += validate_counters(status, (("replicas", "replicas"), *counters, generation))
    errors += validate_not_more(status, counters, status.replicas, "cannot be greater than status.replicas")
    words = "cannot be greater than readyReplicas"
    return errors + validate_not_more(status, counters[2:], status.ready_replicas, words)


def _create(new: v1.ReplicationController) -> None:
    new.status = v1.ReplicationControllerStatus()
    new.metadata.generation = 1


def _update(new: v1.ReplicationController, old: v1.ReplicationController) -> None:
    new.status = old.status
    if new.spec != old.spec:
        new.metadata.generation = old.metadata.generation + 1


def _update_status(new: v1.ReplicationController, old: v1.ReplicationController) -> None:
    new.spec = old.spec


def _warnings(new: v1.ReplicationController, old: v1.ReplicationController | None) -> list[str]:
    path = _SPEC.child("template")
    if old is None:
        return name_warnings(new.metadata.name) + template_warnings(new.spec.template, path)
    # Upstream looks at the template that was, and so do its clients.
    return template_warnings(old.spec.template, path) if new.metadata.generation != old.metadata.generation else []


def _name_errors(name: str) -> list[str]:
    return list(dns1123_subdomain_errors(name))


REPLICATION_CONTROLLER: Strategy[Any] = Strategy(
    default=_default,
    prepare_for_create=_create,
    validate=_validate,
    prepare_for_update=_update,
    validate_update=_validate_update,
    warnings=_warnings,
    name_errors=_name_errors,
    has_generation=True,
    selectable_fields={"status.replicas": lambda item: str(item.status.replicas)},
    subresources={
        "status": Strategy(default=_default, prepare_for_update=_update_status, validate_update=_validate_status_update)
    },
)


def _default_pod_template(template: v1.PodTemplate) -> None:
    default_pod_template(template.template)


def _validate_pod_template(template: v1.PodTemplate) -> ErrorList:
    path = Path("template")
    return validate_meta(template.metadata, namespaced=True) + validate_pod_template_spec(template.template, path)


def _validate_pod_template_update(new: v1.PodTemplate, old: v1.PodTemplate) -> ErrorList:
    options = _template_options(old.template)
    errors = validate_meta_update(new.metadata, old.metadata)
    return errors + validate_pod_template_spec(new.template, Path("template"), options)


def _create_pod_template(new: v1.PodTemplate) -> None:
    new.metadata.generation = 1


def _update_pod_template(new: v1.PodTemplate, old: v1.PodTemplate) -> None:
    if new.template != old.template:
        new.metadata.generation = old.metadata.generation + 1


def _pod_template_warnings(new: v1.PodTemplate, old: v1.PodTemplate | None) -> list[str]:
    if old is not None and old.metadata.generation == new.metadata.generation:
        return []
    return template_warnings(new.template, Path("template"))


POD_TEMPLATE: Strategy[Any] = Strategy(
    default=_default_pod_template,
    prepare_for_create=_create_pod_template,
    validate=_validate_pod_template,
    prepare_for_update=_update_pod_template,
    validate_update=_validate_pod_template_update,
    warnings=_pod_template_warnings,
    name_errors=_name_errors,
    has_generation=True,
)
