"""What authentication, authorization, audit and encryption count, under upstream's metric names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from haven.apiserver.audit.assembly import Audit
from haven.apiserver.audit.policy import LEVELS
from haven.apiserver.configfiles import FollowedFile
from haven.apiserver.decisions import Decisions
from haven.apiserver.security import Guard

if TYPE_CHECKING:
    from haven.apiserver.encryption.runner import Encryption

__all__ = ["SecurityMetrics"]


class SecurityMetrics(Decisions, Collector):
    """The chain's counters, and those of what guards it."""

    def __init__(self, audit: Audit | None, guard: Guard, encryption: Encryption | None) -> None:
        super().__init__()
        self._audit = audit
        self._guard = guard
        self._encryption = encryption

    def collect(self) -> Iterator[CounterMetricFamily]:
        attempts = CounterMetricFamily(
            "authentication_attempts", "Requests whose sender was looked for.", labels=("result",)
        )
        attempts.add_metric(("success",), self.identified)
        attempts.add_metric(("failure",), self.unidentified)
        yield attempts
        asked = CounterMetricFamily("authorization_attempts", "Requests that were judged.", labels=("result",))
        for result, count in (("allowed", self.allowed), ("denied", self.denied), ("no-opinion", self.undecided)):
            asked.add_metric((result,), count)
        yield asked
        if self._audit is not None:
            yield from self._of_audit(self._audit)
        for name, file in self._files():
            family = CounterMetricFamily(
                f"apiserver_{name}_config_controller_automatic_reloads", "Changed files.", labels=("status",)
            )
            family.add_metric(("success",), file.reloads)
            family.add_metric(("failure",), file.failures)
            yield family

    def _of_audit(self, audit: Audit) -> Iterator[CounterMetricFamily]:
        events = CounterMetricFamily("apiserver_audit_event", "Audit events that were written.")
        events.add_metric((), audit.auditor.emitted)
        yield events
        levels = CounterMetricFamily("apiserver_audit_level", "Requests by how they are audited.", labels=("level",))
        for name, level in LEVELS.items():
            levels.add_metric((name,), audit.auditor.events[level])
        yield levels
        errors = CounterMetricFamily("apiserver_audit_error", "Events that were lost.", labels=("plugin",))
        for plugin, lost in audit.losses().items():
            errors.add_metric((plugin,), lost)
        yield errors

    def _files(self) -> Iterator[tuple[str, FollowedFile]]:
        yield from self._guard.followed.items()
        if self._encryption is not None:
            yield "encryption", self._encryption.file
