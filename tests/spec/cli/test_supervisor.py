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

from haven.cli.supervisor import Child, Plan, orphans, read_state, start_detached, stop_orphans


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def a_child(name: str, folder: Path, *, crash: bool = False) -> Child:
    script = (
        f"import signal,sys,time,pathlib\n"
        f"trace = open({str(folder / 'trace')!r}, 'a', 1)\n"
        f"signal.signal(signal.SIGTERM, lambda *a: (print('stop {name}', file=trace), sys.exit(0)))\n"
        f"print('start {name}', file=trace)\n"
        f"{'sys.exit(3)' if crash else 'signal.pause()'}\n"
    )
    return Child(name, (sys.executable, "-c", script), str(folder / f"{name}.log"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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
    wait_until(lambda: len(traced(folder)) == 1 and "one" in read_state(folder / "state.json"))

    os.kill(json.loads((folder / "state.json").read_text())["one"]["pid"], signal.SIGKILL)
    wait_until(lambda: len(traced(folder)) == 2)
    wait_until(lambda: read_state(folder / "state.json").get("one", {}).get("starts") == 2)
    state = read_state(folder / "state.json")["one"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid))

    assert state["starts"] == 2
    assert state["last_exit"] == -signal.SIGKILL


def test_a_child_that_keeps_crashing_is_started_with_growing_pauses(folder: Path) -> None:
    pid = start(folder, a_child("one", folder, crash=True))
    wait_until(lambda: len(traced(folder)) >= 3)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid))

    assert traced(folder)[:3] == ["start one"] * 3


def test_children_outlive_a_killed_supervisor_and_the_next_one_takes_them_over(folder: Path) -> None:
    first = start(folder, a_child("one", folder))
    wait_until(lambda: len(traced(folder)) == 1 and "one" in read_state(folder / "state.json"))
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not alive(first))
    left = orphans(folder / "state.json")
    before = (folder / "state.json").stat()

    second = start(folder, a_child("one", folder))
    wait_until(lambda: (folder / "state.json").stat().st_ino != before.st_ino)  # It wrote down whom it took over.
    os.kill(left["one"], signal.SIGKILL)  # It is watched although it is no child.
    wait_until(lambda: traced(folder) == ["start one", "start one"])
    os.kill(second, signal.SIGTERM)
    wait_until(lambda: not alive(second))

    assert traced(folder) == ["start one", "start one", "stop one"]


def test_what_a_killed_supervisor_left_can_be_stopped_in_reverse_order(folder: Path) -> None:
    pid = start(folder, a_child("one", folder), a_child("two", folder))
    wait_until(lambda: len(traced(folder)) == 2 and len(orphans(folder / "state.json")) == 2)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid))

    stop_orphans(folder / "state.json")

    assert traced(folder)[2:] == ["stop two", "stop one"]
    assert orphans(folder / "state.json") == {}


def test_a_process_that_got_the_pid_of_a_former_child_is_left_alone(folder: Path) -> None:
    (folder / "state.json").write_text(json.dumps({"one": {"pid": os.getpid(), "ticks": "1", "command": []}}))

    stop_orphans(folder / "state.json")

    assert alive(os.getpid())


def test_the_reason_that_a_child_gave_when_it_ended_is_kept(folder: Path) -> None:
    script = "import sys; print('haven: the roof is missing: build one', file=sys.stderr); sys.exit(1)"
    child = Child("one", (sys.executable, "-c", script), str(folder / "one.log"))
    pid = start(folder, child)
    wait_until(lambda: bool(read_state(folder / "state.json").get("one", {}).get("said")))
    facts = read_state(folder / "state.json")["one"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid))

    assert (facts["said"], facts["last_exit"]) == ("the roof is missing: build one", 1)
