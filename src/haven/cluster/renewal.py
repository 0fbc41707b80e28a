"""Keeps a machine's certificates fresh while its processes run.

Looks a few times a day whether something is due (`pki.ensure`) and tells who uses the files. A server need not start
anew: `SSLContext.load_cert_chain` on the context in use serves the new certificate to every later connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from haven import telemetry
from haven.clock import Clock
from haven.cluster.pki import Pki, PkiError, PkiSettings, ensure

__all__ = ["CHECK_SECONDS", "FOLLOW_SECONDS", "Renewal", "follow"]

CHECK_SECONDS = 6 * 3600.0
"""Far below a third of the shortest life, so that a check or two may fail."""
FOLLOW_SECONDS = 60.0
_log = telemetry.logger("cluster")


class Renewal:
    """Renews certificates in time. `changed` is called, on the event loop, after files were written."""

    def __init__(self, settings: PkiSettings, clock: Clock, changed: Callable[[Pki], None] = lambda pki: None) -> None:
        self._settings = settings
        self._clock = clock
        self._changed = changed

    async def run(self) -> None:
        """Check again and again until cancelled."""
        while True:
            await self._clock.sleep(CHECK_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Renew what is due; a disk that refuses is complained about and tried again next time."""
        now = self._clock.now_seconds()
        try:
            # Making keys and writing files would hold up the event loop.
            pki = await asyncio.to_thread(ensure, self._settings, now)
        except (OSError, PkiError) as error:
            _log.warning("Certificates could not be renewed; the next check tries again.", error=str(error))
            return
        if pki.changed:
            _log.info("Certificates were renewed.", files=", ".join(pki.changed))
            self._changed(pki)


async def follow(files: Sequence[Path], clock: Clock, changed: Callable[[], None]) -> None:
    """Call `changed` whenever any of the files was written anew, by whichever process, until cancelled."""
    seen = _stamps(files)
    while True:
        await clock.sleep(FOLLOW_SECONDS)
        now = _stamps(files)
        if now != seen and all(now):
            seen = now
            changed()


def _stamps(files: Sequence[Path]) -> list[tuple[int, int] | None]:
    """Return what tells a file from its successor; None while there is none."""
    stamps: list[tuple[int, int] | None] = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_ino, found.st_mtime_ns))
    return stamps
