"""Measure Haven's budgets, beside the floor and, if given, another server, in one run.

    make bench                                             Haven and the floor
    python -m bench --upstream-bin DIR                     and kube-apiserver, etcd, … found in DIR (or on the PATH)
    python -m bench --server https://HOST:PORT --token T   and a server that runs already (requests and watches)
    python -m bench --only requests --rounds 5 --output json

Every round starts each server on an empty folder. Shown are medians over the rounds, and the
median of the rounds' ratios: on a noisy machine the ratio says more than the figure, and the processor time
of each request (µs CPU, all processes of the server) more than the rate.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import functools
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import changes, cluster, load, node, rates, scheduling, servers, watches
from bench.report import Report, Row

GROUPS = ("start", "requests", "changes", "watch", "schedule", "memory", "node")
READY, READY_AGAIN = "ready, whole control plane, first start", "ready, whole control plane, restart"
READY_API = "ready, API server alone"
WORKING = "controllers at work, first start"
IDLE_MB, IDLE_CPU = "memory, whole control plane idle", "CPU, whole control plane idle"
FULL_MB = f"memory with {cluster.NODES:,} nodes and {cluster.PODS:,} pods"
SCHEDULE = f"create and schedule {cluster.PODS:,} pods on {cluster.NODES:,} nodes"
ALONE = "scheduling alone, 5,000 nodes"
RUNNING = "pod create to Running"
WATCH, WATCH_SEEN = "watch delay p50, 1,000 watchers, 100 events/s", "watch events that arrived"
STORED, STORED_AGAIN = "API server's memory, 50,000 pods written", "API server's memory, 50,000 pods, restarted"
_ONCE = {"memory", "node", STORED, STORED_AGAIN, RUNNING}
"""Measured once, not in every round."""
UPSTREAM_SCHEDULES = 270.0
"""What upstream's continuous integration asks of its scheduler at 5,000 nodes, in pods per second."""

ROWS = (
    Row(READY, "s", at_most=1.0),
    Row(READY_AGAIN, "s", at_most=1.0),
    Row(WORKING, "s"),
    Row(READY_API, "s"),
    Row(IDLE_MB, "MB", at_most=120),
    Row(IDLE_CPU, "% of a core", at_most=1),
    Row(rates.GET_POD, "/s", of_floor=0.55, of_other=4),
    Row(rates.GET_MAP, "/s", of_floor=0.55, of_other=4),
    Row(rates.LIST, "/s", of_floor=0.8, of_other=6),
    Row(rates.CREATE_MAP, "/s", of_floor=0.43, of_other=2),
    Row(rates.CREATE_POD, "/s", of_other=3),
    Row(rates.CREATE_DIFFERENT, "/s"),
    *(Row(name, "/s") for name in changes.ROWS),
    Row(FULL_MB, "MB", at_most=200),
    Row(SCHEDULE, "pods/s", of_other=3),
    Row(ALONE, "pods/s", at_least=10 * UPSTREAM_SCHEDULES),
    Row(RUNNING, "s"),
    Row(WATCH, "ms"),
    Row(WATCH_SEEN, "%"),
    Row(STORED, "MB", other_at_most=0.6),
    Row(STORED_AGAIN, "MB", other_at_most=0.6),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each kind of request is sent (default 4)")
    parser.add_argument("--idle-seconds", type=float, default=15.0, help="how long idle CPU is watched (default 15)")
    parser.add_argument("--only", default="", help=f"groups, separated by commas: {', '.join(GROUPS)}; or rows")
    parser.add_argument("--upstream-bin", type=Path, metavar="DIR", help="where kube-apiserver and others lie")
    parser.add_argument("--server", metavar="URL", help="another server that runs")
    parser.add_argument("--token", default="", help="a token that may do everything there")
    parser.add_argument("--stored-pods", type=int, default=50_000, help="pods of the memory rows (default 50,000)")
    parser.add_argument("--no-floor", action="store_true", help="leave the floor out")
    parser.add_argument("--output", choices=("table", "json", "markdown"), default="table")
    arguments = parser.parse_args()
    # As an installation does; else the first start would be that of a compiler.
    compileall.compile_dir(Path(__file__).parents[1] / "src", quiet=2)
    # Watchers need a file descriptor each, in the servers too, which inherit the limit.
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    bench = Bench(arguments)
    try:
        bench.run()
    except KeyboardInterrupt:
        sys.exit(130)
    if arguments.output == "json":
        bench.report.write_json()
    elif arguments.output == "markdown":
        bench.report.write_markdown()
    else:
        bench.report.write_table()


Start = Callable[[], contextlib.AbstractContextManager[servers.Running]]


class Bench:
    """The rounds."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        wanted = set(filter(None, arguments.only.split(",")))
        names = {row.name for row in ROWS}
        unknown = wanted - set(GROUPS) - names
        if unknown:
            sys.exit(f"--only knows {', '.join(GROUPS)} and the names of rows, not {', '.join(sorted(unknown))}")
        self._wanted = wanted
        self._requests = [name for name in rates.ROWS if not wanted or "requests" in wanted or name in wanted]
        self._changes = [name for name in changes.ROWS if not wanted or "changes" in wanted or name in wanted]
        if (self._requests or self._changes) and (complaint := load.complaint()):
            sys.exit(complaint)
        self.alone: dict[str, Start] = {"haven": servers.haven_api}
        if not arguments.no_floor:
            self.alone["floor"] = servers.floor
        self.whole: dict[str, Start] = {"haven": servers.haven_cluster}
        if arguments.upstream_bin is not None:
            self.alone["upstream"] = functools.partial(servers.upstream_api, arguments.upstream_bin)
            self.whole["upstream"] = functools.partial(servers.upstream_cluster, arguments.upstream_bin)
        if arguments.server:
            self.alone[arguments.server] = functools.partial(servers.elsewhere, arguments.server, arguments.token)
        self.report = Report(list(self.alone), ROWS)

    def _has(self, *names: str) -> bool:
        return not self._wanted or any(name in self._wanted for name in names)

    def run(self) -> None:
        """Measure everything that is wanted."""
        rounds = self.arguments.rounds if not self._wanted or self._wanted - _ONCE else 0
        for number in range(rounds):
            self._say(f"round {number + 1} of {rounds}")
            if self._requests or self._has("start", READY_API):
                self._measure_requests()
            if self._changes:
                self._measure_changes()
            if self._has("watch", WATCH):
                self._measure_watches()
            if self._has("start", "schedule", READY, READY_AGAIN, WORKING, IDLE_MB, IDLE_CPU, FULL_MB, SCHEDULE):
                self._measure_cluster()
            if self._has("schedule", ALONE):
                self._say("scheduling alone")
                self.report.add(ALONE, "haven", scheduling.alone(5000, 5000))
                self.report.notes[ALONE] = f"upstream's own CI asks for {UPSTREAM_SCHEDULES:.0f} pods/s"
        if self._has("memory", STORED, STORED_AGAIN):
            self._measure_stored()
        if self._has("node", RUNNING):
            complaint = node.complaint()
            if complaint:
                self.report.notes[RUNNING] = complaint
            else:
                median, greatest = node.measure()
                self.report.add(RUNNING, "haven", median)
                self.report.notes[RUNNING] = f"the slowest took {greatest:.2f} s"

    def _measure_requests(self) -> None:
        """All servers run, and each kind of load goes to one after the other: so noise hits them alike."""
        seeds = rates.Seeds()
        with contextlib.ExitStack() as stack:
            targets = {}
            for name, start in self.alone.items():
                self._say(f"{name}: starting, and storing what is read")
                running = stack.enter_context(start())
                if running.ready_seconds:
                    self.report.add(READY_API, name, running.ready_seconds)
                targets[name] = running.target
                if self._requests:
                    rates.prepare(running.target, seeds, pods=rates.PODS if rates.LIST in self._requests else 1)
            for row in self._requests:
                for name, target in targets.items():
                    self._add(row, name, rates.measure(target, row, self.arguments.seconds))

    def _measure_changes(self) -> None:
        with contextlib.ExitStack() as stack:
            targets = {}
            for name, start in self.alone.items():
                if name != "floor":
                    self._say(f"{name}: starting, and storing what is changed")
                    targets[name] = stack.enter_context(start()).target
                    changes.prepare(targets[name])
            for row in self._changes:
                for name, target in targets.items():
                    self._add(row, name, changes.measure(target, row, self.arguments.seconds))

    def _add(self, row: str, name: str, figure: load.Figure) -> None:
        self.report.add(row, name, figure.per_second, p99_ms=figure.p99_ms, cpu_us=figure.cpu_us)
        self._say(f"{name}: {row}: {figure.per_second:,.0f}/s, {figure.cpu_us:,.0f} µs of CPU each")

    def _measure_watches(self) -> None:
        for name, start in self.alone.items():
            if name == "floor":
                continue
            self._say(f"{name}: watches")
            with start() as running:
                delays = watches.measure(running.target, 1000, 100, 2 * self.arguments.seconds)
            self.report.add(WATCH, name, delays.p50_ms, p99_ms=delays.p99_ms)
            self.report.add(WATCH_SEEN, name, 100.0 * delays.seen)
            self.report.notes[f"{name}, {WATCH}"] = (
                f"{delays.per_second:.0f} events/s were written; the watchers used {delays.own_share:.0%} of a core"
            )

    def _measure_cluster(self) -> None:
        for name, start in self.whole.items():
            self._say(f"{name}: whole control plane")
            with start() as running:
                self.report.add(READY, name, running.ready_seconds)
                self.report.add(WORKING, name, running.working_seconds)
                if running.again_seconds:
                    self.report.add(READY_AGAIN, name, running.again_seconds)
                if self._has("start", IDLE_MB, IDLE_CPU):
                    memory, share = cluster.idle(running.target, self.arguments.idle_seconds)
                    self.report.add(IDLE_MB, name, memory)
                    self.report.add(IDLE_CPU, name, share)
                if self._has("schedule", FULL_MB, SCHEDULE):
                    cluster.fill_nodes(running.target)
                    self.report.add(SCHEDULE, name, cluster.schedule(running.target))
                    running.target.wait_quiet(seconds_max=20.0, share_max=0.2)
                    self.report.add(FULL_MB, name, running.target.resident_mb())

    def _measure_stored(self) -> None:
        count = self.arguments.stored_pods
        for name, start in self.alone.items():
            if name == "floor" or name == self.arguments.server:
                continue
            self._say(f"{name}: {count:,} pods stored")
            with start() as running:
                cluster.store_pods(running.target, count)
                running.target.wait_quiet()
                server = running.target.pids[-1][0]
                self.report.add(STORED, name, running.target.resident_mb(server))
                again = running.again()
                again.wait_quiet()
                self.report.add(STORED_AGAIN, name, again.resident_mb(server))
            if count != 50_000:
                self.report.notes[STORED] = f"with {count:,} pods"

    @staticmethod
    def _say(text: str) -> None:
        if sys.stderr.isatty() or not sys.stdout.isatty():
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
