"""Haven's own containerd: its configuration, and a process that outlives the agent.

Nothing is shared with a containerd of the distribution: own root, state, socket, configuration and CNI directory. The
daemon is started in a session of its own, so that a restarted agent finds it (and every pod) as it left them; it is
adopted by its recorded pid and start time.

Where the kernel's cgroup v1 hierarchies are joined by a v2 hierarchy that owns controllers ("hybrid"), crun refuses to
work. The daemon then runs in a private mount namespace, held by an idle process, without that v2 mount; Haven's data
directory is made a shared mount, so that volumes mounted by the agent appear there too.
Source: https://github.com/containerd/containerd/blob/main/docs/cri/config.md
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from haven.clock import Clock
from haven.cri import errors
from haven.cri.driver import GrpcRuntime
from haven.kubelet.cgroups import CgroupMode, cgroup_mode
from haven.kubelet.mounts import is_self_bind
from haven.telemetry import logger

__all__ = [
    "Containerd",
    "ContainerdSettings",
    "MissingRuntime",
    "RegistryMirror",
    "command_lines",
    "configuration",
    "hosts_toml",
    "run",
]

_log = logger("containerd")
_CAP_SYS_RESOURCE = 24
_DATA_DIRECTORY = Path("/var/lib/haven")
_KUBELET_DIRECTORY = Path("/var/lib/kubelet")
_START_SECONDS_MAX = 120.0  # One that ends is noticed at once; this is for slow disks and many Pods.
_HEALTH_SECONDS = 2.0
_HEALTH_FAILURES_MAX = 3


class MissingRuntime(Exception):
    """containerd or an OCI runtime is missing or does not come up; the message says how to mend it."""


@dataclass(frozen=True, slots=True)
class RegistryMirror:
    """Where images of a registry are really fetched from, in order; `insecure` skips TLS verification."""

    registry: str
    endpoints: tuple[str, ...] = ()
    insecure: bool = False
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class ContainerdSettings:
    """Where the daemon keeps things and how it runs containers."""

    root: Path = Path("/var/lib/haven/containerd")
    """Images and snapshots; survives reboots."""
    state: Path = Path("/run/haven/containerd")
    """Sockets, pids, mounts; gone after a reboot."""
    cni_conf: Path = Path("/var/lib/haven/cni/net.d")
    cni_bin: Path = Path("/usr/lib/cni")
    sandbox_image: str = "haven.local/pause:1"
    oci_runtime: str = ""
    """crun or runc, or a path; "" takes crun where installed, else runc."""
    shared_directory: Path = _DATA_DIRECTORY
    """Made a shared mount where the daemon needs a mount namespace of its own."""
    also_shared: tuple[Path, ...] | None = None
    """More such directories; None adds the kubelet's usual one to the usual shared_directory."""
    binary: str = "containerd"
    snapshotter: str = "overlayfs"
    mirrors: tuple[RegistryMirror, ...] = ()
    log_level: str = "info"
    pull_progress_timeout: str = "5m0s"
    extra_environment: Mapping[str, str] = field(default_factory=dict)
    """Such as HTTPS_PROXY for pulls."""

    @property
    def shared_directories(self) -> tuple[Path, ...]:
        """Where the agent mounts volumes that containers must see."""
        more = self.also_shared
        if more is None:
            more = (_KUBELET_DIRECTORY,) if self.shared_directory == _DATA_DIRECTORY else ()
        return (self.shared_directory, *(path for path in more if self.shared_directory not in (path, *path.parents)))

    @property
    def socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def endpoint(self) -> str:
        """The socket as gRPC writes it."""
        return f"unix://{self.socket}"

    @property
    def config_path(self) -> Path:
        return self.root / "config.toml"

    @property
    def certs_directory(self) -> Path:
        """Where a folder per registry holds its hosts.toml."""
        return self.root / "certs.d"

    @property
    def log_path(self) -> Path:
        return self.root / "containerd.log"


def configuration(settings: ContainerdSettings, *, runtime_path: str, restrict_oom: bool) -> str:
    """Return containerd's configuration file (version 2: 1.6 reads it, 2.x migrates it)."""
    boolean = {True: "true", False: "false"}
    name = "crun" if Path(runtime_path).name.startswith("crun") else "runc"
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{settings.root}"
state = "{settings.state}"
# Loaded for nothing on a node: other snapshotters, tracing, and NRI on versions that have it.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{settings.socket}"

[debug]
  level = "{settings.log_level}"

[{cri}]
  sandbox_image = "{settings.sandbox_image}"
  restrict_oom_score_adj = {boolean[restrict_oom]}
  netns_mounts_under_state_dir = true
  enable_unprivileged_icmp = {boolean[not restrict_oom]}
  enable_unprivileged_ports = {boolean[not restrict_oom]}
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = false
  max_container_log_line_size = 16384

[{cri}.cni]
  bin_dir = "{settings.cni_bin}"
  conf_dir = "{settings.cni_conf}"

[{cri}.registry]
  config_path = "{settings.certs_directory}"

[{cri}.containerd]
  default_runtime_name = "{name}"
  snapshotter = "{settings.snapshotter}"

[{cri}.containerd.runtimes.{name}]
  runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.{name}.options]
  BinaryName = "{runtime_path}"
  # Also where systemd rules the tree: Pods have a delegated part of it, see delegation.py.
  SystemdCgroup = false
"""


def hosts_toml(mirror: RegistryMirror) -> str:
    """Return the hosts.toml of a registry.

    Source: https://github.com/containerd/containerd/blob/main/docs/hosts.md
    """
    server = "registry-1.docker.io" if mirror.registry == "docker.io" else mirror.registry
    scheme = "http" if mirror.insecure and not mirror.endpoints else "https"
    lines = [f'server = "{scheme}://{server}"', ""]
    for endpoint in mirror.endpoints or (f"{scheme}://{server}",):
        lines += [f'[host."{endpoint}"]', '  capabilities = ["pull", "resolve"]']
        if mirror.insecure:
            lines.append("  skip_verify = true")
        if mirror.ca_file:
            lines.append(f'  ca = "{mirror.ca_file}"')
        lines.append("")
    return "\n".join(lines)


class Containerd:
    """The daemon as a child that survives us. `start` adopts a running one; `run` keeps it alive."""

    def __init__(self, settings: ContainerdSettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._restarts = 0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def restarts(self) -> int:
        """How often `run` had to start the daemon again."""
        return self._restarts

    @property
    def pid(self) -> int:
        """The daemon's pid, 0 if it does not run."""
        return _recorded_pid(self._pid_path) or self._unrecorded_pid()

    async def start(self) -> None:
        """Bring the daemon up, or adopt the one that runs with the same configuration; raise MissingRuntime."""
        changed = await asyncio.to_thread(self._write_configuration)
        if self.pid and changed:
            _log.info("containerd's configuration changed, restarting it", pid=self.pid)
            await self.stop()
        if not self.pid:
            await asyncio.to_thread(self._spawn)
        await self._wait_ready()

    async def run(self) -> None:
        """Watch the daemon until cancelled: start it again when it is dead, or silent for too long."""
        failures = 0
        while True:
            await self._clock.sleep(_HEALTH_SECONDS)
            if self.pid and await self._answers():
                failures = 0
                continue
            failures += 1
            if self.pid and failures < _HEALTH_FAILURES_MAX:
                continue
            _log.warning("containerd is dead or does not answer, starting it again", pid=self.pid)
            failures = 0
            self._restarts += 1
            try:
                await self.stop(grace_seconds=2.0)
                await asyncio.to_thread(self._spawn)
                await self._wait_ready()
            except MissingRuntime as error:
                _log.error("containerd does not come up", reason=str(error))

    async def stop(self, *, grace_seconds: float = 10.0) -> None:
        """End the daemon; containers go on running."""
        pid = self.pid
        if not pid:
            return
        os.kill(pid, signal.SIGTERM)
        deadline = self._clock.monotonic_seconds() + grace_seconds
        while self.pid:
            self._reap()
            if self._clock.monotonic_seconds() > deadline:
                os.kill(pid, signal.SIGKILL)
                deadline = float("inf")
            await self._clock.sleep(0.05)
        self._pid_path.unlink(missing_ok=True)

    async def destroy(self) -> None:
        """Stop the daemon and the holder of its mount namespace, and remove its state directory."""
        await self.stop()
        holder = _recorded_pid(self._holder_path)
        if holder:
            os.kill(holder, signal.SIGKILL)
            self._holder_path.unlink(missing_ok=True)
        for directory in self.settings.shared_directories:
            if is_self_bind(directory):
                await asyncio.to_thread(subprocess.run, ["umount", "-l", str(directory)], check=False)
        await asyncio.to_thread(shutil.rmtree, self.settings.state, ignore_errors=True)

    def runtime(self) -> GrpcRuntime:
        """Return a connection to it."""
        return GrpcRuntime(self.settings.endpoint)

    def command(self, *arguments: str) -> list[str]:
        """Return a command that runs where the daemon runs (its mount namespace, if it has one)."""
        holder = _recorded_pid(self._holder_path)
        return ["nsenter", f"--mount=/proc/{holder}/ns/mnt", *arguments] if holder else list(arguments)

    def ctr(self, *arguments: str) -> list[str]:
        """Return a command of containerd's client, on the images that Pods use."""
        # ctr resolves a relative socket against its own directory, hence absolute; the namespace is the CRI plugin's.
        return ["ctr", "--address", str(self.settings.socket.absolute()), "--namespace", "k8s.io", *arguments]

    # Details.

    def _unrecorded_pid(self) -> int:
        """Find a daemon whose starter was killed before it could write the pid down."""
        mine = b"".join(word.encode() + b"\0" for word in ("--config", str(self.settings.config_path)))
        return next((pid for pid, line in command_lines() if line.endswith(mine)), 0)

    @property
    def _pid_path(self) -> Path:
        return self.settings.state / "containerd.pid"

    @property
    def _holder_path(self) -> Path:
        return self.settings.state / "mount-namespace.pid"

    def _reap(self) -> None:
        if self._child is not None:
            self._child.poll()

    def _write_configuration(self) -> bool:
        settings = self.settings
        for directory in (settings.root, settings.state, settings.cni_conf, settings.certs_directory):
            directory.mkdir(parents=True, exist_ok=True)
        text = configuration(
            settings,
            runtime_path=oci_runtime(settings.oci_runtime),
            restrict_oom=not has_capability(_CAP_SYS_RESOURCE),
        )
        for mirror in settings.mirrors:
            folder = settings.certs_directory / mirror.registry
            folder.mkdir(exist_ok=True)
            (folder / "hosts.toml").write_text(hosts_toml(mirror))
        changed = not settings.config_path.exists() or settings.config_path.read_text() != text
        settings.config_path.write_text(text)
        return changed

    def _spawn(self) -> None:
        settings = self.settings
        binary = shutil.which(settings.binary, path=_search_path())
        if binary is None:
            raise MissingRuntime(f"{settings.binary} is not installed; install the package containerd")
        if _needs_private_mounts(oci_runtime(settings.oci_runtime)) and not _recorded_pid(self._holder_path):
            self._hold_mount_namespace()
        with settings.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                self.command(binary, "--config", str(settings.config_path)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={"PATH": _search_path(), "HOME": "/root", **settings.extra_environment},
            )
        _record_pid(self._pid_path, self._child.pid)

    def _hold_mount_namespace(self) -> None:
        """Start the idle process that keeps the daemon's mount namespace, and thus every pod's mounts, alive."""
        for shared in self.settings.shared_directories:
            shared.mkdir(parents=True, exist_ok=True)
            if not _is_mount_point(shared):
                subprocess.run(["mount", "--bind", str(shared), str(shared)], check=True)
            subprocess.run(["mount", "--make-shared", str(shared)], check=True)
        # Memory in its place: the runtime makes directories there, which must not litter the host's.
        script = (
            "umount /sys/fs/cgroup/unified && mount -t tmpfs tmpfs /sys/fs/cgroup/unified && "
            "mount --make-rshared / && echo ready && exec sleep infinity"
        )
        holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"ready\n":
            raise MissingRuntime(
                f"cannot prepare containerd's mount namespace: {holder.stderr.read().decode().strip()}"
            )
        holder.stdout.close()
        holder.stderr.close()
        _record_pid(self._holder_path, holder.pid)

    async def _answers(self) -> bool:
        runtime = self.runtime()
        try:
            async with asyncio.timeout(5):
                await runtime.version()
        except (errors.RuntimeFailure, TimeoutError):
            return False
        finally:
            await runtime.close()
        return True

    async def _wait_ready(self) -> None:
        deadline = self._clock.monotonic_seconds() + _START_SECONDS_MAX
        while not await self._answers():
            self._reap()
            if self.pid and self._clock.monotonic_seconds() > deadline:
                raise MissingRuntime(
                    f"containerd does not answer after {_START_SECONDS_MAX:.0f} s; haven logs containerd tells more"
                )
            if not self.pid:
                raise MissingRuntime(
                    f"containerd does not come up: {self._log_tail()}; haven logs containerd tells more"
                )
            await self._clock.sleep(0.03)

    def _log_tail(self) -> str:
        try:
            return last_complaint(self.settings.log_path.read_text(errors="replace"))
        except OSError as error:
            return str(error)


async def run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command to its end; return its exit status and what it said. Who stops waiting ends it."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace").strip()


def command_lines() -> Iterator[tuple[int, bytes]]:
    """Yield pid and command line (words that each end in a zero byte) of this machine's processes.

    A container on it may run a Haven of its own in folders of the same names: what has other process ids is not ours.
    """
    ours = os.readlink("/proc/self/ns/pid")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # It ended meanwhile.
                if os.readlink(folder / "ns" / "pid") == ours:
                    yield int(folder.name), (folder / "cmdline").read_bytes()


def last_complaint(log: str) -> str:
    """Return why containerd ended, of its log: what it called fatal or an error, else its last line."""
    lines = log.strip().splitlines()[-20:]
    told = [line for line in lines if "level=fatal" in line or "level=error" in line] or lines
    if not told:
        return "it wrote nothing"
    found = re.search(r'msg="((?:[^"\\]|\\.)*)"(?: error="((?:[^"\\]|\\.)*)")?', told[-1])
    return ": ".join(part for part in found.groups() if part) if found else told[-1].strip()


def oci_runtime(wanted: str) -> str:
    """Return the path of the OCI runtime; raise MissingRuntime."""
    for name in (wanted,) if wanted else ("crun", "runc"):
        found = shutil.which(name, path=_search_path())
        if found is not None:
            return found
    raise MissingRuntime(f"no OCI runtime ({wanted or 'crun or runc'}) is installed; install the package crun")


def has_capability(bit: int) -> bool:
    """Return whether this process may use a capability (and so may its children)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> bit & 1)
    return False


def _needs_private_mounts(runtime_path: str) -> bool:
    return Path(runtime_path).name.startswith("crun") and cgroup_mode() is CgroupMode.HYBRID


def _search_path() -> str:
    return ":".join(
        dict.fromkeys([*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    ).strip(":")


def _is_mount_point(path: Path) -> bool:
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _start_ticks(pid: int) -> str:
    """When a process started, which with its pid makes it unique; "" if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _record_pid(path: Path, pid: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{pid} {_start_ticks(pid)}")


def _recorded_pid(path: Path) -> int:
    try:
        pid, _, ticks = path.read_text().partition(" ")
    except OSError:
        return 0
    return int(pid) if ticks and _start_ticks(int(pid)) == ticks else 0
