"""Keep the server and the agent of this machine running: start, restart after a crash, stop in order.

A process of its own that imports little. It is told everything by a plan (JSON on standard input) and tells what it
does in a state file, which `haven status` reads. A child that ends is started again after 0.5 s, doubling up to 30 s
while it keeps ending within a minute.

Children outlive a supervisor that is killed: the API goes on answering. The next supervisor takes them over by the
state file, if they run the same command, and watches them through the kernel's process descriptors (pidfd).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from haven.cli.processes import start_ticks

__all__ = ["Child", "Plan", "main", "orphans", "read_state", "start_detached", "stop_orphans"]

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
STEADY_SECONDS = 60.0
STOP_GRACE_SECONDS = 20.0
LOG_BYTES_MAX = 32 * 2**20
LOG_CHECK_SECONDS = 60.0
LOG_TAIL_BYTES = 4096
WORD = "haven:"
"""How a component's last sentence begins, if it ended by itself and knows why."""


@dataclass(frozen=True)
class Child:
    """A program to keep running; `log` receives its output."""

    name: str
    command: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class Plan:
    """Children in the order of their start; they are stopped in reverse order. `logs` are more files to keep small."""

    children: tuple[Child, ...]
    state: str
    pid_file: str
    logs: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Plan:
        raw = json.loads(text)
        children = tuple(Child(c["name"], tuple(c["command"]), c["log"]) for c in raw["children"])
        return cls(children, raw["state"], raw["pid_file"], tuple(raw["logs"]))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class _Process(Protocol):
    """A child, ours by birth or taken over."""

    pid: int

    async def wait(self) -> int | None: ...

    def send(self, number: signal.Signals) -> None: ...


class _Born:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> int | None:
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


class _Adopted:
    """A process that another supervisor started: its end can be seen, its exit status cannot."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._descriptor, self._end)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> _Adopted | None:
        """Take over what a state file tells of; None if it has ended."""
        if not facts.get("pid"):
            return None
        try:
            descriptor = os.pidfd_open(facts["pid"])
        except ProcessLookupError:
            return None
        if not _lives(facts):  # Asked after it was opened: a pid may be another's by then.
            os.close(descriptor)
            return None
        return cls(facts["pid"], descriptor)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        self._ended.set()

    async def wait(self) -> int | None:
        await self._ended.wait()
        return None

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)


class _Supervisor:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stopping = asyncio.Event()
        self._former = read_state(Path(plan.state))
        self._state: dict[str, dict[str, Any]] = {
            child.name: {"pid": 0, "ticks": "", "starts": 0, "last_exit": None, "said": "", "command": child.command}
            for child in plan.children
        }

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        stop_turn = {child.name: asyncio.Event() for child in self._plan.children}
        tasks = {
            child.name: asyncio.create_task(self._keep(child, stop_turn[child.name])) for child in self._plan.children
        }
        rotating = asyncio.create_task(self._rotate_logs())
        await self._stopping.wait()
        rotating.cancel()
        for child in reversed(self._plan.children):
            stop_turn[child.name].set()
            await tasks[child.name]
        for path in (self._plan.pid_file, self._plan.state):
            Path(path).unlink(missing_ok=True)

    async def _keep(self, child: Child, stop: asyncio.Event) -> None:
        backoff = BACKOFF_FIRST_SECONDS
        process: _Process | None = await self._adopt(child)
        while not stop.is_set():
            if process is None:
                process = await self._start(child)
            started = time.monotonic()
            ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if stop.is_set():
                await _stop(process)
                self._note(child.name, pid=0, ticks="")
                return
            self._note(child.name, pid=0, ticks="", last_exit=ended.result(), said=_last_sentence(Path(child.log)))
            process = None
            backoff = BACKOFF_FIRST_SECONDS if time.monotonic() - started > STEADY_SECONDS else backoff
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), backoff)
            backoff = min(backoff * 2, BACKOFF_MAX_SECONDS)

    async def _adopt(self, child: Child) -> _Process | None:
        """Take over what a killed supervisor left running; end it first if it should run differently now."""
        former = self._former.get(child.name, {})
        process = _Adopted.of(former)
        if process is None:
            return None
        if tuple(former.get("command", ())) != child.command:
            await _stop(process)
            return None
        self._note(child.name, pid=process.pid, ticks=former["ticks"], starts=former.get("starts", 1))
        return process

    async def _start(self, child: Child) -> _Process:
        with _appending(Path(child.log)) as log:
            process = await asyncio.create_subprocess_exec(
                *child.command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        starts = self._state[child.name]["starts"] + 1
        self._note(child.name, pid=process.pid, ticks=start_ticks(process.pid), starts=starts)
        return _Born(process)

    async def _rotate_logs(self) -> None:
        while True:
            for log in (*(child.log for child in self._plan.children), *self._plan.logs):
                _rotate(Path(log))
            await asyncio.sleep(LOG_CHECK_SECONDS)

    def _note(self, name: str, **facts: object) -> None:
        """Write the state; a full disk must not end what we keep running, so then it is written the next time."""
        self._state[name].update(facts)
        temporary = f"{self._plan.state}.new"
        try:
            with open(temporary, "w") as out:
                json.dump(self._state, out)
            os.replace(temporary, self._plan.state)
        except OSError as error:
            print(f"{self._plan.state} cannot be written: {error.strerror}", file=sys.stderr)


async def _stop(process: _Process) -> None:
    process.send(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_GRACE_SECONDS)
    except TimeoutError:
        process.send(signal.SIGKILL)
        await process.wait()


@contextlib.contextmanager
def _appending(path: Path) -> Any:
    """Open a log for appending; where it cannot be made (a full disk), a program without a log is better than none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 - closed below, whichever it is.
    except OSError as error:
        print(f"{path} cannot be opened: {error.strerror}", file=sys.stderr)
        file = open(os.devnull, "ab")  # noqa: SIM115
    with file:
        yield file


def _rotate(log: Path) -> None:
    """Begin a log anew that has grown too large. Its writer appends, so it may go on with the same file."""
    try:
        if log.stat().st_size <= LOG_BYTES_MAX:
            return
        with contextlib.suppress(OSError):  # No room for a copy: then the old lines are what must go.
            shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)
    except OSError:
        return  # Not there yet, or on a disk that fails: its writer has more to say about that.


def _last_sentence(log: Path) -> str:
    """Return why a component ended, if it said so in its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - LOG_TAIL_BYTES, 0))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix(WORD).strip() if lines and lines[-1].startswith(WORD) else ""


def read_state(path: Path) -> dict[str, dict[str, Any]]:
    """Return what the state file tells, {} if there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lives(facts: dict[str, Any]) -> bool:
    return bool(facts.get("pid")) and bool(facts.get("ticks")) and start_ticks(facts["pid"]) == facts["ticks"]


def orphans(state: Path) -> dict[str, int]:
    """Return the pids of children that a killed supervisor left running, in the order of their start."""
    return {name: facts["pid"] for name, facts in read_state(state).items() if _lives(facts)}


def stop_orphans(state: Path) -> None:
    """End what a killed supervisor left running, in reverse order."""

    async def stop_all() -> None:
        for facts in reversed(read_state(state).values()):
            if (process := _Adopted.of(facts)) is not None:
                await _stop(process)

    asyncio.run(stop_all())
    state.unlink(missing_ok=True)


def start_detached(plan: Plan, log: Path) -> int:
    """Start a supervisor that outlives this process; return its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    Path(plan.pid_file).parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    with open(log, "ab") as out, os.fdopen(writing, "w") as pipe:
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
    _write_pid(plan, process.pid)
    return process.pid


def _write_pid(plan: Plan, pid: int) -> None:
    """Write the pid at once: starter and supervisor both do, and nobody may find the file empty between."""
    path = Path(plan.pid_file)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(f"{pid}\n")
    new.replace(path)


def main(arguments: Sequence[str] = ()) -> None:
    """Read the plan from standard input and supervise until told to stop."""
    plan = Plan.from_json(sys.stdin.read())
    _write_pid(plan, os.getpid())
    asyncio.run(_Supervisor(plan).run())


if __name__ == "__main__":
    main(sys.argv[1:])
