"""A part of systemd's cgroup tree that is Haven's own: a scope with Delegate=yes, in which Pods' cgroups are made.

systemd wants to be the only writer of its tree and promises to leave delegated parts alone. So Haven makes cgroups
itself, on systemd machines as on others, and the runtime uses its cgroupfs driver everywhere. The other way (the
systemd driver, a slice per Pod over D-Bus) costs some ten milliseconds per Pod and container, and a second code path.

A scope lives as long as a process is in it: an idle one, in a leaf of its own, because version 2 allows no processes
in a cgroup that has controllers enabled for its children.
Source: https://systemd.io/CGROUP_DELEGATION/
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from haven.kubelet.cgroups import CgroupMode, cgroup_mode

__all__ = ["Delegation", "DelegationError"]

SLICE = "haven.slice"
_KEEPER = """
own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p "$own/keeper" && echo $$ > "$own/keeper/cgroup.procs" && echo ready && exec sleep infinity
"""


class DelegationError(Exception):
    """systemd did not give us a part of its tree; the message has its words."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """The scope of one cluster's Pods."""

    scope: str
    cgroup: Path = Path("/sys/fs/cgroup")
    systemd: Path = Path("/run/systemd/system")

    @property
    def is_needed(self) -> bool:
        """Whether systemd rules a version 2 tree here; version 1 it leaves to everybody."""
        return self.systemd.is_dir() and cgroup_mode(self.cgroup) is CgroupMode.V2

    @property
    def path(self) -> str:
        """Our part, as a path within the tree; "" where all of it is ours."""
        return f"/{SLICE}/{self.scope}" if self.is_needed else ""

    def ensure(self) -> str:
        """Make the scope unless it is there; return its path. Raises DelegationError."""
        keeper = self.cgroup / self.path.strip("/") / "keeper" / "cgroup.procs"
        if not self.is_needed or (keeper.exists() and keeper.read_text().strip()):
            return self.path
        program = shutil.which("systemd-run", path="/usr/bin:/bin")
        if program is None:
            raise DelegationError("systemd-run is not installed; install the package systemd")
        process = subprocess.Popen(
            [
                program, "--scope", "--quiet", "--collect", f"--unit={self.scope}", f"--slice={SLICE}",
                "--description=Pods of Haven", "--property=Delegate=yes", "--property=TasksMax=infinity",
                "sh", "-c", _KEEPER,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd="/",
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout, process.stderr:
            if process.stdout.readline() != b"ready\n":
                raise DelegationError(f"systemd gave no cgroup for Pods: {process.stderr.read().decode().strip()}")
        return self.path

    def end(self) -> None:
        """Give it back: systemd ends what still runs in it and removes the cgroups."""
        program = shutil.which("systemctl", path="/usr/bin:/bin")
        if not self.is_needed or program is None:
            return
        subprocess.run([program, "stop", "--quiet", self.scope], capture_output=True, check=False)
        slice_directory = self.cgroup / SLICE
        if slice_directory.is_dir() and not any(entry.is_dir() for entry in slice_directory.iterdir()):
            subprocess.run([program, "stop", "--quiet", SLICE], capture_output=True, check=False)
