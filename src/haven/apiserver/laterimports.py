"""What a server did without until it was ready (haven.deferred) is imported once it is, so that no client waits for it.

In a thread and in pieces: a request that comes meanwhile waits for some milliseconds at most.
"""

from __future__ import annotations

import asyncio
import importlib

__all__ = ["NEEDLESS_BEFORE_READY", "import_rest", "imported_rest"]

NEEDLESS_BEFORE_READY = ("aiohttp", "joserfc")
"""Large packages: for upgrades and calls that the server makes, and for tokens of OpenID issuers."""
_PIECES = ("email.parser", "attr", "yarl", "aiohttp.web", "joserfc.jws", "joserfc.jwk", "haven.apiserver.http.upgrades")


def import_rest() -> None:
    """Import it."""
    for name in _PIECES:
        importlib.import_module(name)


async def imported_rest() -> None:
    """The same, in a thread beside the loop."""
    for name in _PIECES:
        await asyncio.to_thread(importlib.import_module, name)
