"""The claims of a token as expressions see them: numbers are doubles, names that are no identifiers are escaped.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from haven.apimachinery.cel import values
from haven.apimachinery.cel.escaping import unescape

__all__ = ["ClaimsView"]


class ClaimsView(values.MapView):
    """An object of JSON."""

    __slots__ = ("_tree",)

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self._tree = tree

    def __len__(self) -> int:
        return len(self._tree)

    def find(self, key: Any) -> tuple[bool, Any]:
        if not isinstance(key, str):
            return False, None
        name = (unescape(key) or key) if "__" in key else key
        return (True, _seen(self._tree[name])) if name in self._tree else (False, None)

    def keys(self) -> Iterator[Any]:
        return iter(self._tree)

    def native(self) -> Any:
        return self._tree


def _seen(value: Any) -> Any:
    if isinstance(value, dict):
        return ClaimsView(value)
    if isinstance(value, list):
        return [_seen(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
