"""How a command fails: one sentence that says what is wrong and how to mend it."""

from __future__ import annotations

__all__ = ["Failure"]


class Failure(Exception):
    """Ends the command with a message and a non-zero exit status."""

    def __init__(self, message: str, *, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status
