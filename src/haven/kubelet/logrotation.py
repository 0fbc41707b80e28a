"""Rotates container logs: 0.log becomes 0.log.<time>, older ones are compressed, the oldest deleted.

Source: https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import time
from pathlib import Path

from haven.cri import errors
from haven.cri.interface import ContainerState, Runtime
from haven.telemetry import logger

__all__ = ["rotate_all", "rotated_files"]

_log = logger("log rotation")


def rotated_files(log: Path) -> list[Path]:
    """Return the older parts of a log, oldest first."""
    found = [path for path in log.parent.glob(f"{log.name}.*") if not path.name.endswith(".tmp")]
    return sorted(found, key=lambda path: path.name.removesuffix(".gz"))


async def rotate_all(runtime: Runtime, *, bytes_max: int, files_max: int) -> int:
    """Rotate the logs of running containers that grew too large; return how many; raise RuntimeFailure."""
    rotated = 0
    for container in await runtime.list_containers():
        if container.state is not ContainerState.RUNNING:
            continue
        try:
            status = await runtime.container_status(container.id)
        except errors.NotFound:
            continue
        path = Path(status.log_path)
        try:
            size = path.stat().st_size if status.log_path else 0
        except FileNotFoundError:
            # A rename happened and the runtime was never told, because we died in between.
            await runtime.reopen_container_log(container.id)
            continue
        if size < bytes_max:
            continue
        stamped = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
        await asyncio.to_thread(_make_room, path, files_max)
        os.rename(path, stamped)
        try:
            await runtime.reopen_container_log(container.id)
        except errors.RuntimeFailure as error:
            os.rename(stamped, path)
            _log.warning("log cannot be rotated", path=str(path), reason=error.message)
            continue
        rotated += 1
    return rotated


def _make_room(log: Path, files_max: int) -> None:
    """Compress what was rotated before (the newest part stays plain for readers), delete what is too old."""
    parts = rotated_files(log)
    # The live file and the one about to be made count too.
    for path in parts[: max(len(parts) - (files_max - 2), 0)]:
        path.unlink(missing_ok=True)
    for path in rotated_files(log):
        if path.suffix != ".gz":
            temporary = path.with_name(f"{path.name}.tmp")
            with path.open("rb") as source, gzip.open(temporary, "wb") as target:
                shutil.copyfileobj(source, target)
            os.rename(temporary, path.with_name(f"{path.name}.gz"))
            path.unlink()
