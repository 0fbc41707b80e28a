"""Modules that are imported at their first use: large ones that a server may do without until it is ready, or for good.

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = deferred("aiohttp")
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

__all__ = ["deferred"]


class _Deferred(ModuleType):
    """Stands for a module; what was asked for once is found without detour afterwards."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # Asked by tools that look at what they find, not by whoever uses the module.
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


def deferred(name: str) -> Any:
    """Return what stands for a module, by its whole name."""
    return _Deferred(name)
