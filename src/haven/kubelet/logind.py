"""systemd-logind: asks it to delay a shutdown of the machine, and hears of one.

Talks D-Bus through libsystemd, which is on every machine that runs logind. A lock is a file descriptor: as long as it
is open the shutdown waits, at most InhibitDelayMaxUSec.
Source: https://systemd.io/INHIBITOR_LOCKS/ and man sd-bus
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["OVERRIDE", "SYSTEM_BUS", "Logind", "LogindUnavailable"]

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
OVERRIDE = Path("/etc/systemd/logind.conf.d/99-haven.conf")
_SERVICE, _OBJECT = b"org.freedesktop.login1", b"/org/freedesktop/login1"
_INTERFACE = b"org.freedesktop.login1.Manager"
_MATCH = (
    b"type='signal',interface='org.freedesktop.login1.Manager',member='PrepareForShutdown',"
    b"path='/org/freedesktop/login1'"
)
_HANDLER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class LogindUnavailable(Exception):
    """There is no logind here, or it does not answer."""


class _Error(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("message", ctypes.c_char_p), ("need_free", ctypes.c_int))


class Logind:
    """One connection to the bus. Calls block briefly; not for use by two threads at once."""

    def __init__(self, on_shutdown: Callable[[bool], None], address: str = SYSTEM_BUS) -> None:
        """Connect; `on_shutdown(True)` is called when the machine begins to shut down, False when it is called off.

        Raises LogindUnavailable.
        """
        try:
            self._library = ctypes.CDLL("libsystemd.so.0", use_errno=True)
        except OSError as error:
            raise LogindUnavailable(f"libsystemd cannot be loaded: {error}") from error
        self._on_shutdown = on_shutdown
        self._handler = _HANDLER(self._signalled)  # Kept: the library calls it as long as the connection lives.
        self._bus = ctypes.c_void_p()
        self._check(self._library.sd_bus_new(ctypes.byref(self._bus)), "bus")
        try:
            self._check(self._library.sd_bus_set_address(self._bus, address.encode()), "address")
            self._check(self._library.sd_bus_set_bus_client(self._bus, 1), "client")
            self._check(self._library.sd_bus_start(self._bus), f"the bus at {address}")
            added = self._library.sd_bus_add_match(self._bus, None, ctypes.c_char_p(_MATCH), self._handler, None)
            self._check(added, "the signal of a shutdown")
        except LogindUnavailable:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on; `process` when it is readable."""
        return int(self._library.sd_bus_get_fd(self._bus))

    def process(self) -> None:
        """Handle what has arrived; raises LogindUnavailable if the connection is lost."""
        while True:
            result = self._library.sd_bus_process(self._bus, None)
            self._check(result, "connection")
            if not result:
                return

    def delay_seconds(self) -> float:
        """Return how long a lock delays a shutdown at most."""
        value = ctypes.c_uint64()
        error = _Error()
        result = self._library.sd_bus_get_property_trivial(
            self._bus,
            ctypes.c_char_p(_SERVICE),
            ctypes.c_char_p(_OBJECT),
            ctypes.c_char_p(_INTERFACE),
            ctypes.c_char_p(b"InhibitDelayMaxUSec"),
            ctypes.byref(error),
            ctypes.c_char(b"t"),
            ctypes.byref(value),
        )
        self._check(result, "InhibitDelayMaxUSec", error)
        return value.value / 1e6

    def lock(self) -> int:
        """Take a lock that delays a shutdown; return its descriptor, to be closed when the machine may go down."""
        words = (b"shutdown", b"haven", b"Pods need time to end", b"delay")
        reply = self._call(_SERVICE, _OBJECT, _INTERFACE, b"Inhibit", b"ssss", *map(ctypes.c_char_p, words))
        try:
            descriptor = ctypes.c_int()
            read = self._library.sd_bus_message_read(reply, ctypes.c_char_p(b"h"), ctypes.byref(descriptor))
            self._check(read, "lock")
            return fcntl.fcntl(descriptor.value, fcntl.F_DUPFD_CLOEXEC, 0)  # The reply owns the original.
        finally:
            self._library.sd_bus_message_unref(reply)

    def ask_for_delay(self, seconds: float, override: Path = OVERRIDE) -> None:
        """Have logind allow longer delays; it reads its settings a moment later."""
        override.parent.mkdir(parents=True, exist_ok=True)
        override.write_text(f"[Login]\nInhibitDelayMaxSec={seconds:.0f}\n")
        reply = self._call(
            b"org.freedesktop.systemd1",
            b"/org/freedesktop/systemd1",
            b"org.freedesktop.systemd1.Manager",
            b"KillUnit",
            b"ssi",
            ctypes.c_char_p(b"systemd-logind.service"),
            ctypes.c_char_p(b"all"),
            ctypes.c_int(1),  # SIGHUP
        )
        self._library.sd_bus_message_unref(reply)

    def close(self) -> None:
        """End the connection."""
        if self._bus:
            self._library.sd_bus_flush_close_unref.restype = ctypes.c_void_p
            self._library.sd_bus_flush_close_unref(self._bus)
            self._bus = ctypes.c_void_p()

    def _call(
        self, service: bytes, path: bytes, interface: bytes, method: bytes, types: bytes, *arguments: object
    ) -> ctypes.c_void_p:
        reply, error = ctypes.c_void_p(), _Error()
        result = self._library.sd_bus_call_method(
            self._bus,
            ctypes.c_char_p(service),
            ctypes.c_char_p(path),
            ctypes.c_char_p(interface),
            ctypes.c_char_p(method),
            ctypes.byref(error),
            ctypes.byref(reply),
            ctypes.c_char_p(types),
            *arguments,
        )
        self._check(result, method.decode(), error)
        return reply

    def _signalled(self, message: int, _data: int, _error: int) -> int:
        is_beginning = ctypes.c_int()
        read = self._library.sd_bus_message_read(
            ctypes.c_void_p(message), ctypes.c_char_p(b"b"), ctypes.byref(is_beginning)
        )
        if read > 0:
            self._on_shutdown(bool(is_beginning.value))
        return 0

    def _check(self, result: int, what: str, error: _Error | None = None) -> None:
        if result >= 0:
            return
        text = error.message.decode() if error is not None and error.message else os.strerror(-result)
        if error is not None:
            self._library.sd_bus_error_free(ctypes.byref(error))
        raise LogindUnavailable(f"{what}: {text}")
