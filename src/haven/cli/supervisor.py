"""Keep the server and the agent of this machine running: start, restart after a crash, stop in order.

A process of its own that imports little. It is told everything by a plan (JSON on standard input) and tells what it
does in a state file, which `haven status` reads. A child that ends is started again after 0.5 s, doubling up to 30 s
while it keeps ending within a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Child", "Plan", "main", "start_detached"]

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
STEADY_SECONDS = 60.0
STOP_GRACE_SECONDS = 20.0
LOG_BYTES_MAX = 32 * 2**20


@dataclass(frozen=True)
class Child:
    """A program to keep running; `log` receives its output."""

    name: str
    command: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class Plan:
    """Children in the order of their start; they are stopped in reverse order."""

    children: tuple[Child, ...]
    state: str
    pid_file: str

    @classmethod
    def from_json(cls, text: str) -> Plan:
        raw = json.loads(text)
        children = tuple(Child(c["name"], tuple(c["command"]), c["log"]) for c in raw["children"])
        return cls(children=children, state=raw["state"], pid_file=raw["pid_file"])

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class _Supervisor:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stopping = asyncio.Event()
        self._state: dict[str, dict[str, Any]] = {
            child.name: {"pid": 0, "starts": 0, "last_exit": None} for child in plan.children
        }

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        stop_turn = {child.name: asyncio.Event() for child in self._plan.children}
        tasks = {
            child.name: asyncio.create_task(self._keep(child, stop_turn[child.name])) for child in self._plan.children
        }
        await self._stopping.wait()
        for child in reversed(self._plan.children):
            stop_turn[child.name].set()
            await tasks[child.name]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._plan.pid_file)
            os.unlink(self._plan.state)

    async def _keep(self, child: Child, stop: asyncio.Event) -> None:
        backoff = BACKOFF_FIRST_SECONDS
        while not stop.is_set():
            _rotate(Path(child.log))
            with open(child.log, "ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *child.command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
                )
            started = time.monotonic()
            self._note(child.name, pid=process.pid, starts=self._state[child.name]["starts"] + 1)
            ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if stop.is_set():
                await _stop(process)
                self._note(child.name, pid=0)
                return
            self._note(child.name, pid=0, last_exit=process.returncode)
            backoff = BACKOFF_FIRST_SECONDS if time.monotonic() - started > STEADY_SECONDS else backoff
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), backoff)
            backoff = min(backoff * 2, BACKOFF_MAX_SECONDS)

    def _note(self, name: str, **facts: object) -> None:
        self._state[name].update(facts)
        temporary = f"{self._plan.state}.new"
        with open(temporary, "w") as out:
            json.dump(self._state, out)
        os.replace(temporary, self._plan.state)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_GRACE_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))


def start_detached(plan: Plan, log: Path) -> int:
    """Start a supervisor that outlives this process; return its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    Path(plan.pid_file).parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    with open(log, "ab") as out, os.fdopen(writing, "w") as pipe:
        import subprocess

        process = subprocess.Popen(
            [sys.executable, "-m", "haven.cli.supervisor"],
            stdin=reading,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd="/",
        )
        os.close(reading)
        pipe.write(plan.to_json())
    Path(plan.pid_file).write_text(f"{process.pid}\n")
    return process.pid


def main(arguments: Sequence[str] = ()) -> None:
    """Read the plan from standard input and supervise until told to stop."""
    plan = Plan.from_json(sys.stdin.read())
    Path(plan.pid_file).write_text(f"{os.getpid()}\n")
    asyncio.run(_Supervisor(plan).run())


if __name__ == "__main__":
    main(sys.argv[1:])
