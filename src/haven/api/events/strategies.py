"""How Events of events.k8s.io are written: by the rules of the stored core kind, but stricter.

Source: the behaviour of pkg/registry/core/event.
"""

from __future__ import annotations

from typing import Any

from haven.api.core.validation.event import validate_new_event, validate_new_event_update
from haven.api.events.conversion import to_core
from haven.api.strategy import Strategy

__all__ = ["STRATEGIES"]

STRATEGIES: dict[str, Strategy[Any]] = {
    "events": Strategy(
        validate=lambda new: validate_new_event(to_core(new)),
        validate_update=lambda new, old: validate_new_event_update(to_core(new), to_core(old)),
        allow_create_on_update=True,
        complaint_group="",  # Upstream's one kind of Event is the core one.
        selectable_fields={
            "reason": lambda event: event.reason,
            "regarding.kind": lambda event: event.regarding.kind,
            "regarding.namespace": lambda event: event.regarding.namespace,
            "regarding.name": lambda event: event.regarding.name,
            "regarding.uid": lambda event: event.regarding.uid,
            "regarding.apiVersion": lambda event: event.regarding.api_version,
            "regarding.resourceVersion": lambda event: event.regarding.resource_version,
            "regarding.fieldPath": lambda event: event.regarding.field_path,
            "reportingController": lambda event: event.reporting_controller,
            "type": lambda event: event.type,
        },
    )
}
