"""Puts the auditor together from a server's settings."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haven.apiserver.audit.logfile import LogFile, LogSettings
from haven.apiserver.audit.policy import parse_policy
from haven.apiserver.audit.recorder import Auditor, Sink
from haven.apiserver.audit.webhook import BatchSettings, SendFailed, WebhookLog
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.security import webhook_target
from haven.apiserver.settings import SecuritySettings
from haven.apiserver.webhooks.caller import CallFailed, WebhookCaller
from haven.clock import Clock

__all__ = ["Audit", "make_audit"]


@dataclass
class Audit:
    """The auditor of a server, what has to run for it, and what has to be closed."""

    auditor: Auditor
    log: LogFile | None = None
    webhook: WebhookLog | None = None
    works: list[Coroutine[Any, Any, None]] = field(default_factory=list)

    def losses(self) -> dict[str, int]:
        """Return how many events each back end lost."""
        lost = {} if self.log is None else {"log": self.log.failures}
        return lost if self.webhook is None else lost | {"webhook": self.webhook.dropped}

    async def close(self) -> None:
        """Finish writing."""
        if self.log is not None:
            await asyncio.to_thread(self.log.close)


def make_audit(settings: SecuritySettings, caller: WebhookCaller, clock: Clock) -> Audit | None:
    """Return what audits, None if nothing is to be audited; raise ConfigError or OSError."""
    if not settings.audit_policy_file:
        return None
    try:
        policy = parse_policy(Path(settings.audit_policy_file).read_bytes())
    except (ConfigError, OSError) as error:
        raise ConfigError(f"{error}: from file {settings.audit_policy_file}") from None
    sinks: list[Sink] = []
    audit = Audit(Auditor(policy, clock))
    if settings.audit_log_path:
        if settings.audit_log_format not in ("json", "legacy"):
            raise ConfigError(f"invalid audit log format {settings.audit_log_format}, allowed formats are legacy,json")
        audit.log = LogFile(
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
        audit.log.open()
        sinks.append(audit.log)
    if settings.audit_webhook_config_file:
        webhook = _webhook_log(settings, caller, clock)
        audit.webhook = webhook
        sinks.append(webhook)
        audit.works.append(webhook.run())
    audit.auditor.sinks = tuple(sinks)
    return audit if sinks else None


def _webhook_log(settings: SecuritySettings, caller: WebhookCaller, clock: Clock) -> WebhookLog:
    target = webhook_target(settings.audit_webhook_config_file)

    async def send(body: bytes) -> None:
        try:
            await caller.post(target, body, timeout_seconds=30.0, is_answered=False)
        except CallFailed as error:
            again = error.status is None or error.status.code in (429, 500, 502, 503, 504)
            raise SendFailed(str(error), again=again) from None

    batch = BatchSettings(
        buffer_events_max=settings.audit_webhook_batch_buffer_size,
        batch_events_max=settings.audit_webhook_batch_max_size,
        wait_seconds_max=settings.audit_webhook_batch_max_wait_seconds,
        batches_per_second_max=settings.audit_webhook_batch_throttle_qps,
        burst=settings.audit_webhook_batch_throttle_burst,
        initial_backoff_seconds=settings.audit_webhook_initial_backoff_seconds,
        event_bytes_max=settings.audit_webhook_truncate_max_event_size
        if settings.audit_webhook_truncate_enabled
        else 0,
    )
    return WebhookLog(send, batch, clock)
