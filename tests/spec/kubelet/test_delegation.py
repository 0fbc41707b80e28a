"""Which part of the cgroup tree is ours."""

from __future__ import annotations

from pathlib import Path

from haven.kubelet.cgroups import CgroupLimits, Cgroups
from haven.kubelet.containerd import last_complaint
from haven.kubelet.delegation import Delegation


def a_tree(root: Path, *levels: str) -> Path:
    directory = root
    for name in ("", *levels):
        directory = directory / name
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text("cpu memory pids\n")
        (directory / "cgroup.subtree_control").write_text("")
    return root


def test_systemd_with_version_2_gives_a_scope(tmp_path: Path) -> None:
    systemd = tmp_path / "systemd"
    tree = a_tree(tmp_path / "cgroup")

    alone = Delegation("haven-pods.scope", tree, systemd).path
    systemd.mkdir()
    ruled = Delegation("haven-pods.scope", tree, systemd).path

    assert (alone, ruled) == ("", "/haven.slice/haven-pods.scope")
    assert Delegation("haven-pods.scope", tmp_path / "v1", systemd).path == ""


def test_controllers_are_enabled_in_the_delegated_part_only(tmp_path: Path) -> None:
    root = a_tree(tmp_path / "cgroup", "haven.slice", "haven-pods.scope", "kubepods")
    cgroups = Cgroups("/haven.slice/haven-pods.scope/kubepods", root)

    cgroups.ensure("/haven.slice/haven-pods.scope/kubepods", CgroupLimits())

    def enabled(path: str) -> str:
        return (root / path / "cgroup.subtree_control").read_text()

    assert enabled("") == enabled("haven.slice") == ""
    assert enabled("haven.slice/haven-pods.scope") == "+cpu +memory +pids"


def test_of_containerds_log_the_reason_is_told() -> None:
    log = (
        'time="1" level=info msg="starting containerd"\n'
        'time="2" level=fatal msg="Failed to run" error="listen unix: no space"\n'
        'time="3" level=info msg="bye"\n'
    )

    assert last_complaint(log) == "Failed to run: listen unix: no space"
    assert last_complaint("sh: containerd: not found\n") == "sh: containerd: not found"
    assert last_complaint("") == "it wrote nothing"
