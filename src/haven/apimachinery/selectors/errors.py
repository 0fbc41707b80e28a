"""The one complaint of this package."""

from __future__ import annotations

__all__ = ["SelectorError"]


class SelectorError(ValueError):
    """The selector makes no sense; the text is upstream's and goes to the client as it is (400)."""
