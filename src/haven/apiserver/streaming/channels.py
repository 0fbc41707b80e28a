"""The WebSocket protocols of exec and attach: one connection, a channel number in front of each message.

Channels: 0 stdin, 1 stdout, 2 stderr, 3 the outcome, 4 terminal size; v5 adds 255 n, "channel n ends".
Source: https://kubernetes.io/docs/reference/using-api/deprecation-guide/ and KEP-4006.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

__all__ = ["PROTOCOLS", "Message", "Protocol", "protocol_of"]

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_CLOSE = 255
# In the order of preference; "" is a client that names none.
PROTOCOLS = (
    "v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io",
    "v4.base64.channel.k8s.io", "base64.channel.k8s.io",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes for a channel; with `ends`, the channel's sender is done."""

    channel: int
    data: bytes
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one protocol writes messages."""

    is_text: bool
    tells_status: bool  # From v4 on the outcome is a Status in JSON; before, the error's text or nothing.
    tells_ends: bool

    def read(self, data: bytes | str) -> Message | None:
        """Return what a client sent; None for an empty message, which only keeps the connection alive."""
        if not data:
            return None
        if self.is_text:
            text = data if isinstance(data, str) else data.decode("ascii", "replace")
            if not text[0].isdigit():
                return None
            return Message(int(text[0]), base64.b64decode(text[1:] + "=" * (-len(text[1:]) % 4)))
        raw = data.encode() if isinstance(data, str) else data
        if self.tells_ends and raw[0] == _CLOSE:
            return Message(raw[1], b"", ends=True) if len(raw) == 2 else None
        return Message(raw[0], raw[1:])

    def write(self, channel: int, data: bytes) -> bytes | str:
        """Return a message for the client."""
        if self.is_text:
            return str(channel) + base64.b64encode(data).decode()
        return bytes((channel,)) + data


def protocol_of(name: str | None) -> Protocol:
    """Return a protocol by the name that was agreed on; none is the oldest one."""
    name = name or ""
    return Protocol(
        is_text="base64" in name, tells_status=name.startswith(("v4", "v5")), tells_ends=name.startswith("v5")
    )
