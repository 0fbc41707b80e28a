"""The machine's shutdown over a real message bus: a stand-in for systemd-logind answers on it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from haven.kubelet.logind import Logind, LogindUnavailable

pytestmark = pytest.mark.e2e

CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
<allow own="*"/></policy></busconfig>
"""
_FILTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed")
    socket, configuration = tmp_path / "bus", tmp_path / "bus.conf"
    configuration.write_text(CONFIGURATION.format(path=socket))
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    daemon.stdout.readline()  # It listens.
    yield f"unix:path={socket}"
    daemon.kill()
    daemon.wait()


class LogindStandIn:
    """Answers InhibitDelayMaxUSec, Inhibit and KillUnit as systemd does; keeps the other end of the lock."""

    def __init__(self, address: str) -> None:
        self.library = library = ctypes.CDLL("libsystemd.so.0")
        self.calls: list[str] = []
        self.delay = 5_000_000
        self.lock_end, self._given = os.pipe()
        os.set_blocking(self.lock_end, False)
        self.bus = ctypes.c_void_p()
        self._filter = _FILTER(self._answer)
        assert library.sd_bus_new(ctypes.byref(self.bus)) >= 0
        assert library.sd_bus_set_address(self.bus, address.encode()) >= 0
        assert library.sd_bus_set_bus_client(self.bus, 1) >= 0
        assert library.sd_bus_start(self.bus) >= 0
        for name in (b"org.freedesktop.login1", b"org.freedesktop.systemd1"):
            assert library.sd_bus_request_name(self.bus, ctypes.c_char_p(name), ctypes.c_uint64(0)) >= 0
        assert library.sd_bus_add_filter(self.bus, None, self._filter, None) >= 0
        self._stopping = threading.Event()
        self._signals: list[int] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def tell(self, *, is_beginning: bool) -> None:
        self._signals.append(int(is_beginning))

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            while self._signals:
                self.library.sd_bus_emit_signal(
                    self.bus, ctypes.c_char_p(b"/org/freedesktop/login1"),
                    ctypes.c_char_p(b"org.freedesktop.login1.Manager"), ctypes.c_char_p(b"PrepareForShutdown"),
                    ctypes.c_char_p(b"b"), ctypes.c_int(self._signals.pop(0)),
                )  # fmt: skip
            while self.library.sd_bus_process(self.bus, None) > 0:
                pass
            self.library.sd_bus_wait(self.bus, ctypes.c_uint64(20_000))

    def _answer(self, message: int, _data: int, _error: int) -> int:
        library, this = self.library, ctypes.c_void_p(message)
        library.sd_bus_message_get_member.restype = ctypes.c_char_p
        member = library.sd_bus_message_get_member(this)
        reply = library.sd_bus_reply_method_return
        match member:
            case b"Get":
                reply(this, ctypes.c_char_p(b"v"), ctypes.c_char_p(b"t"), ctypes.c_uint64(self.delay))
            case b"Inhibit":
                reply(this, ctypes.c_char_p(b"h"), ctypes.c_int(self._given))
                os.close(self._given)
            case b"KillUnit":
                self.delay = 90_000_000
                reply(this, None)
            case _:
                return 0
        self.calls.append(member.decode())
        return 1

    @property
    def is_locked(self) -> bool:
        try:
            return os.read(self.lock_end, 1) != b""
        except BlockingIOError:
            return True


def test_a_lock_delays_the_shutdown_until_it_is_closed_and_the_signal_is_heard(bus: str, tmp_path: Path) -> None:
    standing = LogindStandIn(bus)
    heard: list[bool] = []
    try:
        logind = Logind(heard.append, bus)

        assert logind.delay_seconds() == 5
        logind.ask_for_delay(90, tmp_path / "conf.d" / "override.conf")
        assert logind.delay_seconds() == 90
        assert (tmp_path / "conf.d" / "override.conf").read_text() == "[Login]\nInhibitDelayMaxSec=90\n"
        lock = logind.lock()
        assert standing.is_locked
        standing.tell(is_beginning=True)
        standing.tell(is_beginning=False)
        _wait_heard(logind, heard, 2)
        assert heard == [True, False]
        os.close(lock)
        assert not standing.is_locked
        logind.close()
    finally:
        standing.stop()


def test_where_no_bus_is_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(LogindUnavailable, match="No such file or directory"):
        Logind(lambda _: None, f"unix:path={tmp_path}/nowhere").delay_seconds()


def _wait_heard(logind: Logind, heard: list[bool], count: int) -> None:
    import select

    while len(heard) < count:
        ready, _, _ = select.select([logind.fileno()], [], [], 120.0)
        assert ready, "nothing came over the bus"
        logind.process()
