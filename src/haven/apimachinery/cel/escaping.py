"""Property names that are no CEL identifiers are written escaped: foo-bar is foo__dash__bar, namespace is
__namespace__.

Source:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["RESERVED", "escape", "unescape"]

RESERVED: Final = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_SPECIAL: Final = re.compile(r"__|[-./]")
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*", re.ASCII)
_ESCAPED: Final = re.compile(r"_{2}[^_]+_{2}")
_TEXTS: Final = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_MEANT: Final = {"underscores": "__", "dot": ".", "dash": "-", "slash": "/"}


def escape(name: str) -> str | None:
    """Return how an expression names a property; None if it can not."""
    if name in RESERVED:
        return f"__{name}__"
    if _PLAIN.fullmatch(name) is None and not re.fullmatch(r"[./-][A-Za-z0-9_./-]*", name, re.ASCII):
        return None
    return _SPECIAL.sub(lambda match: _TEXTS[match.group()], name)


def unescape(name: str) -> str | None:
    """Return the property that an expression's field names; None if it names none."""
    if "__" not in name:
        return name
    bad = False

    def replaced(match: re.Match[str]) -> str:
        nonlocal bad
        inside = match.group()[2:-2]
        if inside in _MEANT:
            return _MEANT[inside]
        bad = bad or inside not in RESERVED or match.group() != name
        return inside

    out = _ESCAPED.sub(replaced, name)
    return None if bad else out
