"""What authentication, authorization, audit and encryption count, under upstream's metric names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from haven.apiserver.audit.assembly import Audit
from haven.apiserver.audit.policy import LEVELS
from haven.apiserver.authorization.interface import Verdict
from haven.apiserver.authorization.webhook import WebhookAuthorizer, WebhookCounts
from haven.apiserver.configfiles import FollowedFile
from haven.apiserver.decisions import DOUBLED, FILTER, Decisions
from haven.apiserver.security import Guard
from haven.metrics.families import Registry

if TYPE_CHECKING:
    from haven.apiserver.encryption.runner import Encryption

__all__ = ["SecurityMetrics"]

_DECISIONS = {Verdict.ALLOW: "allowed", Verdict.DENY: "denied"}


class SecurityMetrics(Decisions):
    """The chain's counters, and those of what guards it. `identity` is that of the server, of which a hash is shown."""

    def __init__(
        self, registry: Registry, audit: Audit | None, guard: Guard, encryption: Encryption | None, identity: str
    ) -> None:
        super().__init__()
        self._registry = registry
        self._audit = audit
        self._guard = guard
        self._encryption = encryption
        self._identity_hash = f"sha256:{hashlib.sha256(identity.encode()).hexdigest()}"
        registry.add_collector(self._collect)

    def _collect(self) -> None:
        registry = self._registry
        attempts = registry["authentication_attempts"]
        attempts.set(("success",), self.identified)
        attempts.set(("error",), self.unidentified)
        others = self.identified - sum(self.users.values())
        for name, number in (*self.users.items(), ("other", others)):
            if number:
                registry["authenticated_user_requests"].set((name,), number)
        identifying = registry["authentication_duration_seconds"]
        identifying.show(("success",), self.identifying.coarser(DOUBLED))
        identifying.show(("error",), self.identifying_failed.coarser(DOUBLED))
        filters = registry["apiserver_request_filter_duration_seconds"]
        filters.show(("authentication",), self.identifying.merged(self.identifying_failed).coarser(FILTER))
        judged = self.allowed.merged(self.denied).merged(self.undecided)
        for result, found in (("allowed", self.allowed), ("denied", self.denied), ("no-opinion", self.undecided)):
            if number := sum(found.counts):
                registry["authorization_attempts_total"].set((result,), number)
                registry["authorization_duration_seconds"].show((result,), found.coarser(DOUBLED))
        filters.show(("authorization",), judged.coarser(FILTER))
        self._of_authorizers()
        self._of_impersonations()
        if self._audit is not None:
            self._of_audit(self._audit)
        for name, file in self._files():
            self._of_file(name, file)

    def _of_authorizers(self) -> None:
        decisions = self._registry["apiserver_authorization_decisions_total"]
        for ((kind, name), verdict), number in self._guard.authorizer.decisions.items():
            decisions.set((_DECISIONS[verdict], name, kind), number)
        for authorizer in self._guard.authorizer.authorizers:
            if isinstance(authorizer, WebhookAuthorizer):
                self._of_webhook(authorizer.name, authorizer.counts)

    def _of_webhook(self, name: str, counts: WebhookCounts) -> None:
        registry, prefix = self._registry, "apiserver_authorization"
        for result, found in counts.results.items():
            registry[f"{prefix}_webhook_evaluations_total"].set((name, result), sum(found.counts))
            registry[f"{prefix}_webhook_duration_seconds"].show((name, result), found)
        for result, number in counts.fail_open.items():
            registry[f"{prefix}_webhook_evaluations_fail_open_total"].set((name, result), number)
        if sum(counts.conditions.counts):
            conditions, kind = f"{prefix}_match_condition", "Webhook"
            registry[f"{conditions}_evaluation_seconds"].show((name, kind), counts.conditions)
            if counts.exclusions:
                registry[f"{conditions}_exclusions_total"].set((name, kind), counts.exclusions)
            if counts.condition_errors:
                registry[f"{conditions}_evaluation_errors_total"].set((name, kind), counts.condition_errors)

    def _of_impersonations(self) -> None:
        prefix = "apiserver_impersonation"
        for name, counted in (("attempts", self.impersonations), ("authorization_attempts", self.impersonation_checks)):
            for (mode, decision), found in counted.items():
                self._registry[f"{prefix}_{name}_total"].set((decision, mode), sum(found.counts))
                self._registry[f"{prefix}_{name}_duration_seconds"].show((decision, mode), found)

    def _of_audit(self, audit: Audit) -> None:
        registry = self._registry
        registry["apiserver_audit_event_total"].set((), audit.auditor.emitted)
        registry["apiserver_audit_requests_rejected_total"].set((), audit.auditor.rejected)
        for name, level in LEVELS.items():
            if audit.auditor.events[level]:
                registry["apiserver_audit_level_total"].set((name,), audit.auditor.events[level])
        for plugin, lost in audit.losses().items():
            registry["apiserver_audit_error_total"].set((plugin,), lost)

    def _of_file(self, name: str, file: FollowedFile) -> None:
        registry, prefix = self._registry, f"apiserver_{name}_config_controller"
        own = self._identity_hash
        info = registry[f"{prefix}_last_config_info"]
        info.clear()
        if file.digest:
            info.set((own, f"sha256:{file.digest}"), 1)
        for status, number, moment in (
            ("success", file.reloads, file.reloaded_at),
            ("failure", file.failures, file.failed_at),
        ):
            if number:
                registry[f"{prefix}_automatic_reloads_total"].set((own, status), number)
            if moment:
                registry[f"{prefix}_automatic_reload_last_timestamp_seconds"].set((own, status), moment)

    def _files(self) -> Iterator[tuple[str, FollowedFile]]:
        yield from self._guard.followed.items()
        if self._encryption is not None:
            yield "encryption", self._encryption.file
