"""Ports for servers that tests start: none that the kernel may give to an outgoing connection meanwhile."""

from __future__ import annotations

import itertools
import os
import socket

__all__ = ["free_port"]

_FIRST, _COUNT = 15_000, 15_000  # Below every system's range of ephemeral ports.
_next = itertools.count(os.getpid() * 101)  # So that processes at the same time begin at different places.


def free_port() -> int:
    """Return a port of the loopback that nobody uses, and that this process has not returned before."""
    for number in itertools.islice(_next, _COUNT):
        port = _FIRST + number % _COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port of the loopback is free")
