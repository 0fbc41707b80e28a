"""What becomes of containerd and its client when who started them is killed at a bad moment."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from haven.clock import SystemClock
from haven.kubelet.containerd import Containerd, ContainerdSettings, command_lines, run

SLEEP = "import sys, time; print('started', flush=True); time.sleep(600)"


def test_a_daemon_is_known_though_its_starter_was_killed_before_it_wrote_the_pid_down(tmp_path: Path) -> None:
    containerd = Containerd(ContainerdSettings(root=tmp_path / "root", state=tmp_path / "state"), SystemClock())
    other = Containerd(ContainerdSettings(root=tmp_path / "other", state=tmp_path / "state"), SystemClock())
    command = [sys.executable, "-c", SLEEP, "--config", str(containerd.settings.config_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"started\n"

        found = containerd.pid, other.pid
        daemon.kill()

    assert found == (daemon.pid, 0)
    assert containerd.pid == 0


async def test_who_stops_waiting_for_a_command_ends_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    os.mkfifo(mark)
    script = f"import pathlib, time; pathlib.Path({str(mark)!r}).write_text('started'); time.sleep(600)"
    waiting = asyncio.create_task(run([sys.executable, "-c", script, str(mark)]))
    assert await asyncio.to_thread(mark.read_text) == "started"

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert not [line for _, line in command_lines() if line.endswith(f"{mark}\0".encode())]


async def test_a_command_tells_its_exit_status_and_all_that_it_said() -> None:
    code, said = await run(["sh", "-c", "echo out; echo err >&2; exit 3"])

    assert (code, said) == (3, "out\nerr")
