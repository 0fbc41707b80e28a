"""A node inside one test process: private mount, network, UTS and IPC namespaces, and a containerd of its own.

`namespaces()` moves the calling thread (and every thread and process started afterwards) into fresh namespaces and
back. Inside, /run is empty, loopback is up, cgroup v2's second mount is gone, and all mounts are shared, so that every
mount propagation can be tried. The network has no way out. Use it before event loops and thread pools are made: in a
module-scoped fixture.

    @pytest.fixture(scope="module")
    def node_directory(): ...
        with namespaces(), tempfile.TemporaryDirectory(...) as directory: yield Path(directory)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.namespaces import CLONE_NEWNET, checked, libc

from haven.clock import SystemClock
from haven.cni import conflist
from haven.cri.driver import GrpcRuntime
from haven.kubelet import imagearchive
from haven.kubelet.containerd import Containerd, ContainerdSettings
from haven.kubelet.ociimage import busybox_image, pause_image

__all__ = ["BUSYBOX", "Node", "can_run_nodes", "containerd_node", "kill_node", "namespaces", "scratch_directory"]

BUSYBOX = "docker.io/library/busybox:1"
_CLONE_FS = 0x00000200
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_KINDS = {"mnt": _CLONE_NEWNS, "uts": _CLONE_NEWUTS, "ipc": _CLONE_NEWIPC, "net": CLONE_NEWNET}


def can_run_nodes() -> str:
    """Return why containers cannot run here, "" if they can."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("containerd", "ctr", "busybox"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    return ""


@contextlib.contextmanager
def namespaces(*, as_host: bool = False) -> Iterator[None]:
    """Be on a fresh node inside the block; `as_host` leaves cgroups as the host has them, and mounts private."""
    saved = {kind: os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY) for kind in _KINDS}
    cwd = os.getcwd()
    checked(libc.unshare(_CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | CLONE_NEWNET))
    try:
        commands = ["mount --make-rprivate /", "mount -t tmpfs -o mode=755 tmpfs /run"]
        if not as_host:
            commands += [
                "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified && "
                "mount -t tmpfs tmpfs /sys/fs/cgroup/unified; fi",
                "mount --make-rshared /",
            ]
        commands += [
            "ip link set lo up",
            # Without a default route a node cannot find its own address; this one leads nowhere.
            "ip link add uplink type veth peer name nowhere && ip link set uplink up && ip link set nowhere up",
            "ip addr add 192.0.2.10/24 dev uplink && ip route add default via 192.0.2.1",
        ]
        for command in commands:
            subprocess.run(["sh", "-c", command], check=True)
        yield
    finally:
        checked(libc.unshare(_CLONE_FS))  # Threads share our root directory; setns refuses a mount namespace then.
        for kind, descriptor in saved.items():
            checked(libc.setns(descriptor, _KINDS[kind]))
            os.close(descriptor)
        os.chdir(cwd)


@contextlib.contextmanager
def scratch_directory(room: str, *, in_memory: bool = False) -> Iterator[Path]:
    """Return a directory on a real disk (overlayfs does not stack on every file system), removed afterwards.

    One in memory is never nearly full; but threads of gRPC that an earlier test left in its own mount namespace do not
    see it, so it is for those who run containerd in another process.
    """
    path = Path(tempfile.mkdtemp(prefix=f"haven-{room}-", dir="/var/tmp"))
    if in_memory:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=4G", "haven-tests", path], check=True)
    try:
        directory = path / "disk"  # No mount point itself, as a user's.
        directory.mkdir()
        yield directory
    finally:
        if in_memory:
            subprocess.run(["umount", "--lazy", path], check=True)
        shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class Node:
    """A containerd with images and a pod network."""

    directory: Path
    containerd: Containerd
    runtime: GrpcRuntime
    cgroup_parent: str
    pod_cidr: str


@contextlib.asynccontextmanager
async def containerd_node(directory: Path, *, pod_cidr: str = "10.244.77.0/24") -> AsyncIterator[Node]:
    """Run a containerd with the pause and busybox images, and kill everything afterwards."""
    suffix = uuid.uuid4().hex[:8]
    settings = ContainerdSettings(
        root=directory / "containerd",
        state=directory / "state",
        cni_conf=directory / "cni" / "net.d",
        cni_bin=conflist.plugin_directory(),
        shared_directory=directory,
        log_level="debug",
    )
    containerd = Containerd(settings, SystemClock())
    network = conflist.PodNetwork((pod_cidr,), bridge=f"hv{suffix}", data_directory=str(directory / "cni" / "data"))
    conflist.write(network, settings.cni_conf)
    await containerd.start()
    runtime = containerd.runtime()
    try:
        if await runtime.image_status(BUSYBOX) is None:
            await imagearchive.load_images(containerd, [pause_image(), busybox_image(BUSYBOX)])
        yield Node(directory, containerd, runtime, f"/haven-test-{suffix}", pod_cidr)
    finally:
        await kill_node(containerd, runtime)
        # The next node of this namespace has the same pod range; two bridges must not share it.
        await asyncio.to_thread(subprocess.run, ["ip", "link", "delete", f"hv{suffix}"], capture_output=True)
        remove_cgroups(f"haven-test-{suffix}")


async def kill_node(containerd: Containerd, runtime: GrpcRuntime) -> None:
    """Remove every pod, then the daemon."""
    for sandbox in await runtime.list_sandboxes():
        await runtime.stop_sandbox(sandbox.id)
        await runtime.remove_sandbox(sandbox.id)
    await runtime.close()
    await containerd.destroy()


def remove_cgroups(name: str) -> None:
    """Remove a cgroup tree from every hierarchy."""
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        for directory, _, _ in os.walk(hierarchy / name, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
