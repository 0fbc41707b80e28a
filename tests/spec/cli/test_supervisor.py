"""The supervisor keeps its children running and stops them in reverse order."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from haven.cli.supervisor import Child, Plan, start_detached


def wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def a_child(name: str, folder: Path, *, crash: bool = False) -> Child:
    script = (
        f"import signal,sys,time,pathlib\n"
        f"trace = open({str(folder / 'trace')!r}, 'a', 1)\n"
        f"print('start {name}', file=trace)\n"
        + (
            "sys.exit(3)\n"
            if crash
            else f"signal.signal(signal.SIGTERM, lambda *a: (print('stop {name}', file=trace), sys.exit(0)))\n"
            f"signal.pause()\n"
        )
    )
    return Child(name, (sys.executable, "-c", script), str(folder / f"{name}.log"))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trace").touch()
    return tmp_path


def start(folder: Path, *children: Child) -> int:
    plan = Plan(children, str(folder / "state.json"), str(folder / "pid"))
    return start_detached(plan, folder / "supervisor.log")


def traced(folder: Path) -> list[str]:
    return (folder / "trace").read_text().splitlines()


def test_children_stop_in_reverse_order_and_leave_no_files(folder: Path) -> None:
    pid = start(folder, a_child("one", folder), a_child("two", folder))
    wait_until(lambda: len(traced(folder)) == 2)

    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid))

    assert traced(folder)[2:] == ["stop two", "stop one"]
    assert not (folder / "pid").exists()
    assert not (folder / "state.json").exists()


def test_a_killed_child_is_started_again(folder: Path) -> None:
    pid = start(folder, a_child("one", folder))
    wait_until(lambda: len(traced(folder)) == 1)

    os.kill(json.loads((folder / "state.json").read_text())["one"]["pid"], signal.SIGKILL)
    wait_until(lambda: len(traced(folder)) == 2)
    state = json.loads((folder / "state.json").read_text())["one"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid))

    assert state["starts"] == 2
    assert state["last_exit"] == -signal.SIGKILL


def test_a_child_that_keeps_crashing_is_started_with_growing_pauses(folder: Path) -> None:
    pid = start(folder, a_child("one", folder, crash=True))
    wait_until(lambda: len(traced(folder)) == 3)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid))

    assert set(traced(folder)) == {"start one"}
