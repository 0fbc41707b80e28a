"""What can go wrong with an expression: it does not compile, it fails, it costs too much.

The texts are what clients see, so they follow cel-go's: each compile error names a place and shows the line with a
mark.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["CelError", "CompileError", "CostLimitError", "Issue", "ProgramError", "issues_text", "line_and_column"]

ISSUES_MAX: Final = 100
_SNIPPET_LENGTH_MAX: Final = 16384


class CelError(Exception):
    """Evaluation failed. `&&`, `||`, and macros that end early may absorb it; what is left is the rule's failure."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CostLimitError(Exception):
    """Evaluation was cut off: it cost more than it may. Nothing absorbs this."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


class CompileError(Exception):
    """The expression can not be used; str() is what upstream shows after "compilation failed: "."""


class ProgramError(CompileError):
    """The expression is well typed, but no program: a constant part of it can only fail."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One complaint about the source; line counts from 1, column from 0 in code points; -1 for no place."""

    line: int
    column: int
    message: str


def line_and_column(source: str, offset: int) -> tuple[int, int]:
    """Return the line (from 1) and column (from 0) of a code point."""
    if offset < 0:
        return -1, -1
    line = source.count("\n", 0, offset) + 1
    start = source.rfind("\n", 0, offset) + 1
    return line, offset - start


def issues_text(source: str, issues: list[Issue]) -> str:
    """Return all complaints, sorted by place, each with its line and a mark below it."""
    shown = sorted(issues[:ISSUES_MAX], key=lambda issue: (issue.line, issue.column))
    texts = [_shown(source, issue) for issue in shown]
    if len(issues) > ISSUES_MAX:
        texts.append(f"{len(issues) - ISSUES_MAX} more errors were truncated")
    return "\n".join(texts)


def _shown(source: str, issue: Issue) -> str:
    if not source:
        return f"ERROR: <input>:1:0: {issue.message}"
    text = f"ERROR: <input>:{issue.line}:{issue.column + 1}: {issue.message}"
    lines = source.split("\n")
    if not 1 <= issue.line <= len(lines):
        return text
    snippet = lines[issue.line - 1].replace("\t", " ")
    if len(snippet.encode()) > _SNIPPET_LENGTH_MAX:
        return text
    dots = "".join("．" if ord(char) > 127 else "." for char in snippet[: issue.column])
    wide = issue.column < len(snippet) and ord(snippet[issue.column]) > 127
    return f"{text}\n | {snippet}\n | {dots}{'＾' if wide else '^'}"
