"""What is wrong with an Event.

Both groups serve the same stored kind; the core group holds it to older, laxer rules. Complaints of events.k8s.io
name the core fields too, because upstream checks the internal type.
Source: the behaviour of pkg/apis/core/validation (events).
"""

from __future__ import annotations

from haven.api.core import v1
from haven.api.core.validation.metadata import validate_meta, validate_meta_update, validate_qualified_name
from haven.api.internalform import internal_form
from haven.apimachinery import times
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required
from haven.apimachinery.validation.names import byte_length, dns1123_subdomain_errors
from haven.apimachinery.validation.objectmeta import validate_immutable

__all__ = ["validate_core_event", "validate_core_event_update", "validate_new_event", "validate_new_event_update"]

_TEXT_MAX = 128
_NOTE_MAX = 1024
_ZERO_TIME = "0001-01-01T00:00:00Z"


def validate_core_event(event: v1.Event) -> ErrorList:
    """Check an Event of v1."""
    return _legacy(event, "reportingComponent")


def validate_core_event_update(new: v1.Event, _old: v1.Event) -> ErrorList:
    """Check a changed Event of v1: nothing is immutable there."""
    return _legacy(new, "reportingComponent")


def validate_new_event(event: v1.Event) -> ErrorList:
    """Check an Event of events.k8s.io/v1, given as the core type."""
    errors = _legacy(event, "reportingController")
    errors += validate_meta(event.metadata, namespaced=True)
    errors += _series(event)
    if not event.event_time:
        errors.append(required(Path("eventTime"), ""))
    if event.type not in ("Normal", "Warning"):
        errors.append(invalid(Path("type"), "", f"has invalid value: {event.type}"))
    unset = "needs to be unset"
    if event.first_timestamp:
        errors.append(invalid(Path("firstTimestamp"), "", unset))
    if event.last_timestamp:
        errors.append(invalid(Path("lastTimestamp"), "", unset))
    if event.count:
        errors.append(invalid(Path("count"), "", unset))
    if event.source.component or event.source.host:
        errors.append(invalid(Path("source"), "", unset))
    return errors


def validate_new_event_update(new: v1.Event, old: v1.Event) -> ErrorList:
    """Check a changed Event of events.k8s.io/v1, given as the core type: only its series changes."""
    errors = _legacy(new, "reportingController")
    errors += validate_meta_update(new.metadata, old.metadata)
    if new.series != old.series:
        errors += _series(new)
    if new.involved_object != old.involved_object:
        errors += validate_immutable(1, 0, Path("involvedObject"), internal_form(new.involved_object))
    errors += validate_immutable(new.reason, old.reason, Path("reason"))
    errors += validate_immutable(new.message, old.message, Path("message"))
    if new.source != old.source:
        errors += validate_immutable(1, 0, Path("source"), internal_form(new.source))
    errors += validate_immutable(new.first_timestamp, old.first_timestamp, Path("firstTimestamp"))
    errors += validate_immutable(new.last_timestamp, old.last_timestamp, Path("lastTimestamp"))
    errors += validate_immutable(new.count, old.count, Path("count"))
    errors += validate_immutable(new.reason, old.reason, Path("reason"))
    errors += validate_immutable(new.type, old.type, Path("type"))
    if _micros(new.event_time) != _micros(old.event_time):
        errors += validate_immutable(new.event_time, old.event_time, Path("eventTime"))
    errors += validate_immutable(new.action, old.action, Path("action"))
    if new.related != old.related:
        shown = internal_form(new.related, "*ObjectReference")
        errors += validate_immutable(1, 0, Path("related"), shown)
    errors += validate_immutable(new.reporting_component, old.reporting_component, Path("reportingController"))
    errors += validate_immutable(new.reporting_instance, old.reporting_instance, Path("reportingInstance"))
    return errors


def _micros(time: str | None) -> int | None:
    return int(times.parse(time) * 1e6) if time else None


def _series(event: v1.Event) -> ErrorList:
    if event.series is None:
        return []
    errors: ErrorList = []
    if event.series.count < 2:
        errors.append(invalid(Path("series.count"), "", "should be at least 2"))
    if not event.series.last_observed_time:
        errors.append(required(Path("series.lastObservedTime"), ""))
    return errors


def _legacy(event: v1.Event, controller_field: str) -> ErrorList:
    errors: ErrorList = []
    namespace = event.metadata.namespace
    about = event.involved_object.namespace
    if not event.event_time:
        is_elsewhere = namespace not in ("", "default") if not about else namespace != about
    else:
        is_elsewhere = not about and namespace not in ("default", "kube-system")
    if is_elsewhere:
        errors.append(invalid(Path("involvedObject", "namespace"), about, "does not match event.namespace"))
    if event.event_time:
        if not event.reporting_component:
            errors.append(required(Path(controller_field), ""))
        errors += validate_qualified_name(event.reporting_component, Path(controller_field))
        if not event.reporting_instance:
            errors.append(required(Path("reportingInstance"), ""))
        errors += _at_most(event.reporting_instance, _TEXT_MAX, "reportingInstance")
        if not event.action:
            errors.append(required(Path("action"), ""))
        errors += _at_most(event.action, _TEXT_MAX, "action")
        if not event.reason:
            errors.append(required(Path("reason"), ""))
        errors += _at_most(event.reason, _TEXT_MAX, "reason")
        errors += _at_most(event.message, _NOTE_MAX, "message")
    for text in dns1123_subdomain_errors(namespace):
        errors.append(invalid(Path("namespace"), namespace, text))
    return errors


def _at_most(text: str, length: int, field: str) -> ErrorList:
    if byte_length(text) <= length:
        return []
    return [invalid(Path(field), "", f"can have at most {length} characters")]
