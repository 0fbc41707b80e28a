"""Expands $(NAME) in commands, arguments, environment values and subpaths; $$ stands for a dollar sign.

A reference to an unknown name stays as it is written.
Source: https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["MissingVariable", "expand", "expand_strictly"]

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


class MissingVariable(Exception):
    """A path names a variable that the container does not have."""


def expand(text: str, *variables: Mapping[str, str]) -> str:
    """Return the text with references replaced; the first mapping that has a name wins."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        for mapping in variables:
            if name in mapping:
                return mapping[name]
        return match[0]

    return _REFERENCE.sub(value, text)


def expand_strictly(text: str, variables: Mapping[str, str]) -> str:
    """Like `expand`, but raise MissingVariable for an unknown name, or one whose value is empty."""
    for match in _REFERENCE.finditer(text):
        if match[1] is not None and not variables.get(match[1]):
            raise MissingVariable(f"missing value for {match[1]!r}".replace("'", '"'))
    return expand(text, variables)
