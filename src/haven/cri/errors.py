"""What can go wrong in a container runtime: one class per gRPC status that a caller treats differently.

Source: https://grpc.io/docs/guides/status-codes/
"""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "DeadlineExceeded",
    "InvalidArgument",
    "NotFound",
    "RuntimeFailure",
    "Unavailable",
    "Unimplemented",
]


class RuntimeFailure(Exception):
    """The runtime refused or failed a call. `message` is its own text, `code` the gRPC status name."""

    code = "Unknown"

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        if code:
            self.code = code

    @property
    def rpc_text(self) -> str:
        """The error as Go's gRPC status prints it, which upstream's events and messages quote."""
        return f"rpc error: code = {self.code} desc = {self.message}"


class NotFound(RuntimeFailure):
    """The sandbox, container or image does not exist."""

    code = "NotFound"


class AlreadyExists(RuntimeFailure):
    """The name (pod, attempt) is reserved by another sandbox or container."""

    code = "AlreadyExists"


class InvalidArgument(RuntimeFailure):
    """The runtime cannot do what the configuration asks; trying again changes nothing."""

    code = "InvalidArgument"


class DeadlineExceeded(RuntimeFailure):
    """The command or call took longer than its limit."""

    code = "DeadlineExceeded"


class Unimplemented(RuntimeFailure):
    """This runtime is too old for the call."""

    code = "Unimplemented"


class Unavailable(RuntimeFailure):
    """The runtime does not answer: it is starting, dead, or its socket is wrong. Wait and retry."""

    code = "Unavailable"
