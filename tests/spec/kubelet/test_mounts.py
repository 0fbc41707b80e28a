"""Whose mount it is that lies on a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from haven.kubelet.mounts import is_self_bind

ROOT = "20 1 8:1 / / rw - ext4 /dev/vda rw\n"


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("30 20 8:1 /var/lib/haven /var/lib/haven rw shared:1 - ext4 /dev/vda rw\n", True),
        ("30 20 8:2 / /var/lib/haven rw - ext4 /dev/vdb rw\n", False),  # A disk of its own.
        ("30 20 8:1 /data/haven /var/lib/haven rw - ext4 /dev/vda rw\n", False),  # Another directory, bound there.
        (
            "30 20 8:2 / /var rw - ext4 /dev/vdb rw\n31 30 8:2 /lib/haven /var/lib/haven rw - ext4 /dev/vdb rw\n",
            True,
        ),
        ("30 20 8:2 / /elsewhere rw - ext4 /dev/vdb rw\n", False),
    ],
)
def test_only_a_directory_bound_onto_itself_is_ours(mounts: str, expected: bool) -> None:
    assert is_self_bind(Path("/var/lib/haven"), ROOT + mounts) is expected
