"""How two values differ, as upstream's messages about forbidden changes show it.

Both values are written as indented JSON in the internal spelling and compared line by line (unified, three lines of
context, no file names).
"""

from __future__ import annotations

import difflib
import json
from typing import Any

from haven.api.internalform import internal_form
from haven.apimachinery.fielderrors import HTML_ESCAPES

__all__ = ["spec_diff"]


def spec_diff(old: Any, new: Any, kind: str | None = None) -> str:
    """Return the lines that differ; "" if none does."""
    lines = difflib.unified_diff(_lines(old, kind), _lines(new, kind), n=3)
    return "".join(list(lines)[2:])


def _lines(value: Any, kind: str | None) -> list[str]:
    tree = json.loads(bytes(internal_form(value, kind)))
    text = json.dumps(tree, indent=1, ensure_ascii=False).translate(HTML_ESCAPES)
    return [f"{line}\n" for line in text.split("\n")]
