"""Between the Events of the core group and those of events.k8s.io: one stored kind, two spellings.

Source: the behaviour of pkg/apis/events/v1.
"""

from __future__ import annotations

from haven.api.core import v1 as core_v1
from haven.api.events import v1

__all__ = ["from_core", "to_core"]


def to_core(event: v1.Event) -> core_v1.Event:
    """Return an Event of events.k8s.io/v1 as one of v1; parts are shared."""
    series = event.series
    return core_v1.Event(
        metadata=event.metadata,
        involved_object=event.regarding,
        reason=event.reason,
        message=event.note,
        source=event.deprecated_source,
        first_timestamp=event.deprecated_first_timestamp,
        last_timestamp=event.deprecated_last_timestamp,
        count=event.deprecated_count,
        type=event.type,
        event_time=event.event_time,
        series=None
        if series is None
        else core_v1.EventSeries(count=series.count, last_observed_time=series.last_observed_time),
        action=event.action,
        related=event.related,
        reporting_component=event.reporting_controller,
        reporting_instance=event.reporting_instance,
    )


def from_core(event: core_v1.Event) -> v1.Event:
    """Return an Event of v1 as one of events.k8s.io/v1; parts are shared."""
    series = event.series
    return v1.Event(
        metadata=event.metadata,
        regarding=event.involved_object,
        reason=event.reason,
        note=event.message,
        deprecated_source=event.source,
        deprecated_first_timestamp=event.first_timestamp,
        deprecated_last_timestamp=event.last_timestamp,
        deprecated_count=event.count,
        type=event.type,
        event_time=event.event_time,
        series=None
        if series is None
        else v1.EventSeries(count=series.count, last_observed_time=series.last_observed_time),
        action=event.action,
        related=event.related,
        reporting_controller=event.reporting_component,
        reporting_instance=event.reporting_instance,
    )
