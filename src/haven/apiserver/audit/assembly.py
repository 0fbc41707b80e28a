"""Puts the auditor together from a server's settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haven.apiserver.audit.logfile import LogFile, LogSettings
from haven.apiserver.audit.policy import parse_policy
from haven.apiserver.audit.recorder import Auditor, Sink
from haven.apiserver.audit.webhook import BatchSettings, DirectLog, SendFailed, WebhookLog, fitting
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.security import webhook_target
from haven.apiserver.settings import SecuritySettings
from haven.apiserver.webhooks.caller import CallFailed, WebhookCaller
from haven.clock import Clock

__all__ = ["Audit", "make_audit"]


_MODES = ("batch", "blocking", "blocking-strict")
_VERSION = "audit.k8s.io/v1"
_FORMATS = ("legacy", "json")


@dataclass
class Audit:
    """The auditor of a server, what has to run for it, and what has to be closed."""

    auditor: Auditor
    log: LogFile | None = None
    buffer: WebhookLog | None = None
    """What waits for the log file."""
    webhook: WebhookLog | DirectLog | None = None
    works: list[Coroutine[Any, Any, None]] = field(default_factory=list)

    def losses(self) -> dict[str, int]:
        """Return how many events each back end lost."""
        lost = {} if self.log is None else {"log": self.log.failures}
        if self.buffer is not None:
            lost["buffered"] = self.buffer.dropped
        return lost if self.webhook is None else lost | {"webhook": self.webhook.dropped}

    async def close(self) -> None:
        """Finish writing."""
        if self.log is not None:
            await asyncio.to_thread(self.log.close)


class _Fitted:
    """A log that takes no large events."""

    def __init__(self, log: LogFile, limit: int) -> None:
        self._log = log
        self._limit = limit

    def write(self, events: Sequence[dict[str, Any]]) -> bool:
        kept = [fitting(event, self._limit) for event in events]
        self._log.failures += kept.count(None)
        return self._log.write([event for event in kept if event is not None]) and None not in kept


def make_audit(settings: SecuritySettings, caller: WebhookCaller, clock: Clock) -> Audit | None:
    """Return what audits, None if nothing is to be audited; raise ConfigError or OSError."""
    _check(settings)
    if not settings.audit_policy_file:
        return None
    try:
        policy = parse_policy(Path(settings.audit_policy_file).read_bytes())
    except (ConfigError, OSError) as error:
        raise ConfigError(f"loading audit policy file: {error}: from file {settings.audit_policy_file}") from None
    audit = Audit(Auditor(policy, clock))
    sinks: list[Sink] = []
    if settings.audit_log_path:
        sinks.append(_log_sink(settings, audit, clock))
    if settings.audit_webhook_config_file:
        sinks.append(_webhook_sink(settings, audit, caller, clock))
    audit.auditor.sinks = tuple(sinks)
    return audit if sinks else None


def _log_sink(settings: SecuritySettings, audit: Audit, clock: Clock) -> Sink:
    log = audit.log = LogFile(
        LogSettings(
            path=settings.audit_log_path,
            format=settings.audit_log_format,
            age_days_max=settings.audit_log_maxage,
            backups_max=settings.audit_log_maxbackup,
            size_megabytes_max=settings.audit_log_maxsize,
            compress=settings.audit_log_compress,
        ),
        clock,
    )
    log.open()
    limit = settings.audit_log_truncate_max_event_size if settings.audit_log_truncate_enabled else 0
    if settings.audit_log_mode != "batch":
        audit.auditor.is_strict = audit.auditor.is_strict or settings.audit_log_mode == "blocking-strict"
        return _Fitted(log, limit) if limit else log

    async def append(data: bytes) -> None:
        if not await asyncio.to_thread(log.append, data):
            raise SendFailed("the file cannot be written", again=False)

    batch = BatchSettings(
        buffer_events_max=settings.audit_log_batch_buffer_size,
        batch_events_max=settings.audit_log_batch_max_size,
        wait_seconds_max=settings.audit_log_batch_max_wait_seconds,
        batches_per_second_max=settings.audit_log_batch_throttle_qps,
        burst=settings.audit_log_batch_throttle_burst,
        throttled=settings.audit_log_batch_throttle_enable,
        event_bytes_max=limit,
        batch_bytes_max=settings.audit_log_truncate_max_batch_size if limit else 0,
    )
    audit.buffer = WebhookLog(append, batch, clock, line=log.line, join=b"".join)
    audit.works.append(audit.buffer.run())
    return audit.buffer


def _webhook_sink(settings: SecuritySettings, audit: Audit, caller: WebhookCaller, clock: Clock) -> Sink:
    target = webhook_target(settings.audit_webhook_config_file)

    async def send(body: bytes) -> None:
        try:
            await caller.post(target, body, timeout_seconds=30.0, is_answered=False)
        except CallFailed as error:
            raise SendFailed(str(error), again=True) from None  # Whatever it was, it may be better the next time.

    limit = settings.audit_webhook_truncate_max_event_size if settings.audit_webhook_truncate_enabled else 0
    if settings.audit_webhook_mode != "batch":
        audit.auditor.is_strict = audit.auditor.is_strict or settings.audit_webhook_mode == "blocking-strict"
        backoff = settings.audit_webhook_initial_backoff_seconds
        direct = DirectLog(send, audit.auditor.under_way, event_bytes_max=limit, wait_seconds=backoff, clock=clock)
        audit.webhook = direct
        return direct
    batch = BatchSettings(
        buffer_events_max=settings.audit_webhook_batch_buffer_size,
        batch_events_max=settings.audit_webhook_batch_max_size,
        wait_seconds_max=settings.audit_webhook_batch_max_wait_seconds,
        batches_per_second_max=settings.audit_webhook_batch_throttle_qps,
        burst=settings.audit_webhook_batch_throttle_burst,
        initial_backoff_seconds=settings.audit_webhook_initial_backoff_seconds,
        throttled=settings.audit_webhook_batch_throttle_enable,
        in_order=False,
        event_bytes_max=limit,
        batch_bytes_max=settings.audit_webhook_truncate_max_batch_size if limit else 0,
    )
    webhook = audit.webhook = WebhookLog(send, batch, clock)
    audit.works.append(webhook.run())
    return webhook


def _check(settings: SecuritySettings) -> None:
    """Raise ConfigError, in upstream's words, for what makes no sense."""
    wrong: list[str] = []
    for plugin, is_used in (("log", settings.audit_log_path), ("webhook", settings.audit_webhook_config_file)):
        if not is_used:
            continue

        def value(name: str, plugin: str = plugin) -> Any:
            return getattr(settings, f"audit_{plugin}_{name}")

        if value("mode") not in _MODES:
            wrong.append(f'invalid audit {plugin} mode {value("mode")}, allowed modes are "{",".join(_MODES)}"')
        if value("mode") == "batch":
            wrong += _batch_errors(plugin, value)[:1]
        event, batch = value("truncate_max_event_size"), value("truncate_max_batch_size")
        if event <= 0:
            wrong.append(f"invalid audit truncate {plugin} max event size {event}, must be a positive number")
        elif batch < event:
            text = f"must be greater than max event size ({event})"
            wrong.append(f"invalid audit truncate {plugin} max batch size {batch}, {text}")
        if value("version") != _VERSION:
            wrong.append(f'invalid group version, allowed versions are ["{_VERSION}"]')
    if settings.audit_log_path:
        if settings.audit_log_format not in _FORMATS:
            allowed = ",".join(_FORMATS)
            wrong.append(f'invalid audit log format {settings.audit_log_format}, allowed formats are "{allowed}"')
        for name in ("maxage", "maxbackup", "maxsize"):
            number = getattr(settings, f"audit_log_{name}")
            if number < 0:
                wrong.append(f"--audit-log-{name} {number} can't be a negative number")
    if wrong:
        raise ConfigError(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")


def _batch_errors(plugin: str, value: Callable[[str], Any]) -> list[str]:
    wrong = [
        f"invalid audit batch {plugin} {shown} {value(name)}, must be a positive number"
        for name, shown in (("batch_buffer_size", "buffer size"), ("batch_max_size", "max batch size"))
        if value(name) <= 0
    ]
    if value("batch_throttle_enable"):
        wrong += [
            f"invalid audit batch {plugin} throttle {shown} {value(name):g}, must be a positive number"
            for name, shown in (("batch_throttle_qps", "QPS"), ("batch_throttle_burst", "burst"))
            if value(name) <= 0
        ]
    return wrong
