"""Keeps the ways in which each resource is stored, as a file says; watches the file and the plugins.

Source: https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from haven import telemetry
from haven.apiserver.configfiles import ConfigError, FollowedFile
from haven.apiserver.encryption.ciphers import AesCbc, AesGcm, Secretbox
from haven.apiserver.encryption.configuration import KmsProvider, Provider, ResourceProviders, parse_encryption
from haven.apiserver.encryption.kms import Envelope
from haven.apiserver.encryption.meter import EncryptionMeter
from haven.apiserver.encryption.transformers import ENCRYPTED, Chain, Identity, Prefixed, Transformer
from haven.clock import Clock

__all__ = ["Encryption"]

RELOAD_SECONDS = 60.0
POLL_SECONDS = 60.0
POLL_SECONDS_WHEN_ILL = 10.0
_CIPHERS: dict[str, Callable[[bytes], Transformer]] = {"aesgcm": AesGcm, "aescbc": AesCbc, "secretbox": Secretbox}
_log = telemetry.logger("apiserver")


class Encryption:
    """Tells how a resource is stored. `load` first; `follow` and `poll` have to run."""

    def __init__(
        self, path: str, clock: Clock, *, automatic_reload: bool, meter: EncryptionMeter | None = None
    ) -> None:
        self._clock = clock
        self._meter = meter
        self._automatic_reload = automatic_reload
        self._file = FollowedFile(Path(path), self._apply, clock=clock, every_seconds=RELOAD_SECONDS, tries_again=True)
        self._is_loaded = False
        self._chains: list[tuple[ResourceProviders, list[Prefixed]]] = []
        self._known: dict[tuple[str, str], Transformer | None] = {}
        self._envelopes: dict[KmsProvider, Envelope] = {}

    @property
    def envelopes(self) -> list[Envelope]:
        """The plugins in use, for health checks."""
        return list(self._envelopes.values())

    def load(self) -> None:
        """Read the file and ask its plugins for the first time; raise ConfigError. Blocks while plugins answer."""
        self._file.load()
        self._is_loaded = True

    def of(self, group: str, plural: str) -> Transformer | None:
        """Return how a resource is stored; None if it is stored as it is."""
        key = (group, plural)
        if key not in self._known:
            ways = [way for providers, ways in self._chains if providers.concerns(group, plural) for way in ways]
            found = Chain(ways) if ways else None
            if found is not None and self._meter is not None:
                found = found.counted(partial(self._meter.transformed, f"{plural}.{group}" if group else plural))
            self._known[key] = found
        return self._known[key]

    def checks(self) -> dict[str, Callable[[], Awaitable[str]]]:
        """Return the health checks of the plugins, by upstream's names; each returns "" or what is wrong."""
        return {"kms-providers": self._problem} if self._automatic_reload or self._envelopes else {}

    async def _problem(self) -> str:
        """Ask those plugins of which it is not known how they are by now; return what is wrong."""
        wrong = []
        for index, envelope in enumerate(self.envelopes):
            if envelope.is_outdated:
                await asyncio.to_thread(envelope.refresh)
            if envelope.problem:
                wrong.append(f"kms-provider-{index}: {envelope.problem}")
        return wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]" if wrong else ""

    @property
    def file(self) -> FollowedFile:
        """The file that says all this."""
        return self._file

    async def run(self) -> None:
        """Follow the file (if that is wanted) and the plugins, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._automatic_reload:
                tasks.create_task(self._follow(), name="encryption-file")
            tasks.create_task(self._poll(), name="kms-plugins")

    async def look(self) -> None:
        """Take over the file if it has changed."""
        await self._file.look()

    async def _follow(self) -> None:
        while True:
            await self._clock.sleep(RELOAD_SECONDS)
            await self.look()

    async def _poll(self) -> None:
        while True:
            ill = any(envelope.problem for envelope in self.envelopes)
            await self._clock.sleep(POLL_SECONDS_WHEN_ILL if ill else POLL_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Ask every plugin how it is."""
        for envelope in self.envelopes:
            await asyncio.to_thread(envelope.refresh)
            if envelope.problem:
                _log.error("A KMS plugin is not well.", name=envelope.name, error=envelope.problem)

    def _apply(self, data: bytes) -> None:
        configured = parse_encryption(data)
        envelopes: dict[KmsProvider, Envelope] = {}
        for item in configured:
            for provider in item.providers:
                if isinstance(provider, KmsProvider):
                    envelopes[provider] = self._envelopes.get(provider) or self._connect(provider)
        chains = [(item, [_way(provider, envelopes) for provider in item.providers]) for item in configured]
        self._envelopes, self._chains = envelopes, chains
        self._known.clear()

    def _connect(self, provider: KmsProvider) -> Envelope:
        from haven.apiserver.encryption.kmsdriver import KmsPlugin

        meter = self._meter
        count = partial(meter.called, provider.name) if meter is not None else None
        plugin = KmsPlugin(provider.endpoint, provider.timeout_seconds, count)
        envelope = Envelope(provider.name, plugin, self._clock, meter)
        envelope.refresh()
        if envelope.problem and self._is_loaded:
            raise ConfigError(f"health check for new transformers failed: {envelope.problem}")
        if envelope.problem:  # It may come later than we.
            _log.error("A KMS plugin is not well.", name=envelope.name, error=envelope.problem)
        return envelope


def _way(provider: Provider, envelopes: dict[KmsProvider, Envelope]) -> Prefixed:
    if isinstance(provider, KmsProvider):
        return Prefixed(ENCRYPTED + f"kms:v2:{provider.name}:".encode(), envelopes[provider])
    if provider.kind == "identity":
        return Prefixed(b"", Identity())
    keys = [Prefixed(f"{name}:".encode(), _CIPHERS[provider.kind](secret)) for name, secret in provider.keys]
    cipher = "Secretbox" if provider.kind == "secretbox" else "AES"
    missing = f"no matching key was found for the provided {cipher} transformer"
    return Prefixed(ENCRYPTED + f"{provider.kind}:v1:".encode(), Chain(keys, missing))
