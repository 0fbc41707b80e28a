"""Say what is wrong with a text that is no expression, in the words of the generated grammar.

cel-go and cel-cpp generate their parsers from one grammar with one tool, so they word syntax errors alike. The native
library is loaded only here, that is, only once somebody writes an expression that does not parse.
"""

import re
from typing import Final

from haven.apimachinery.cel.errors import Issue

__all__ = ["issues_of"]

_ERROR: Final = re.compile(r"^ERROR: <input>:(-?\d+):(-?\d+): (.*)$", re.MULTILINE)


def issues_of(source: str) -> list[Issue]:
    """Return the syntax errors of a text."""
    from cel_expr_python import cel

    try:
        cel.NewEnv().compile(source)
    except RuntimeError as error:
        text = str(error).removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]").replace(r"\u003F", "?")
        issues = [
            Issue(int(line), int(column) - 1, message)
            for line, column, message in _ERROR.findall(text)
            if message.startswith("Syntax error")
        ]
        if issues:
            return issues
    return [Issue(1, 0, "Syntax error: the expression can not be parsed")]
