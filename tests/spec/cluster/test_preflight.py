"""What a machine lacks is named with its fix; checks change nothing."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from haven.cluster.networks import Taken
from haven.cluster.preflight import Check, Endpoint, Host, PackageManager, check_all, check_endpoint, check_network

APT = PackageManager("apt-get install -y")


@pytest.fixture
def host() -> Iterator[Host]:
    """A machine that lacks nothing. Its folder has a short name whoever runs the tests: sockets have to fit into it."""
    with tempfile.TemporaryDirectory(prefix="haven-", dir="/tmp") as folder:
        yield _complete(Path(folder))


def _complete(place: Path) -> Host:
    for name in ("bridge", "host-local", "loopback", "portmap"):
        (place / "cni").mkdir(exist_ok=True)
        (place / "cni" / name).touch()
    for name in ("cpu", "memory", "pids"):
        (place / "cgroup" / name).mkdir(parents=True)
        (place / "cgroup" / name / "cgroup.procs").touch()
    (place / "proc" / "sys" / "net" / "bridge").mkdir(parents=True)
    (place / "proc" / "filesystems").write_text("nodev\toverlay\n")
    (place / "proc" / "cgroups").write_text("#name\nmemory\t1\t2\t1\ncpu\t1\t2\t1\npids\t1\t2\t1\n")
    return Host(
        cgroup=place / "cgroup",
        proc=place / "proc",
        cni_bin=place / "cni",
        modules=place / "modules",
        data=place / "data",
        which=lambda program: f"/usr/bin/{program}",
        effective_uid=lambda: 0,
        find_library=lambda name: f"lib{name}.so.1",
        writable=lambda path: True,
        free_bytes=lambda path: 50 << 30,
    )


def complaints(host: Host, *, fresh: bool = True) -> list[Check]:
    return [check for check in check_all(host, [], APT, fresh=fresh) if not check.ok]


def only(host: Host, *, fresh: bool = True) -> Check:
    (found,) = complaints(host, fresh=fresh)
    return found


def as_v2(host: Host, controllers: str, *, crowded: bool = False) -> Host:
    root = host.cgroup.parent / "cgroup2"
    root.mkdir()
    (root / "cgroup.controllers").write_text(controllers)
    (root / "cgroup.subtree_control").write_text("")
    (root / "cgroup.procs").write_text("1\n")
    if crowded:
        (root / "cgroup.type").write_text("domain\n")
    return replace(host, cgroup=root)


def test_a_machine_that_lacks_nothing_has_no_complaints(host: Host) -> None:
    assert complaints(host) == []


def test_without_root_the_fix_is_sudo(host: Host) -> None:
    check = only(replace(host, effective_uid=lambda: 1000))

    assert (check.name, check.found, check.required) == ("root", "uid 1000", True)
    assert "sudo" in check.fix


@pytest.mark.parametrize(
    ("missing", "fix", "required"),
    [
        ({"containerd"}, "apt-get install -y containerd", True),
        ({"crun", "runc"}, "apt-get install -y crun", True),
        ({"conntrack"}, "apt-get install -y conntrack", False),
        ({"iptables"}, "apt-get install -y iptables", False),
    ],
)
def test_a_missing_program_is_named_with_its_package(host: Host, missing: set[str], fix: str, required: bool) -> None:
    check = only(replace(host, which=lambda program: None if program in missing else f"/usr/bin/{program}"))

    assert (check.fix, check.required) == (fix, required)


def test_one_of_two_oci_runtimes_is_enough(host: Host) -> None:
    assert complaints(replace(host, which=lambda program: None if program == "crun" else "/usr/bin/x")) == []


def test_missing_plugins_and_libraries_are_named_with_their_packages(host: Host) -> None:
    (host.cni_bin / "portmap").unlink()

    fixes = [check.fix for check in complaints(replace(host, find_library=lambda name: None))]

    assert fixes == ["apt-get install -y containernetworking-plugins", "apt-get install -y nftables"]


def test_a_controller_that_the_kernel_was_started_without_needs_its_command_line(host: Host) -> None:
    check = only(as_v2(host, "cpu pids io"))
    (host.proc / "cgroups").write_text("#name\nmemory\t0\t1\t0\ncpu\t1\t2\t1\npids\t1\t2\t1\n")

    assert check.found == "v2 without memory"
    assert only(replace(host, cgroup=check_root(host))).fix.startswith("add cgroup_enable=memory")


def check_root(host: Host) -> Path:
    return host.cgroup.parent / "cgroup2"


def test_cgroups_that_are_not_mounted_need_a_mount(host: Host) -> None:
    check = only(replace(host, cgroup=host.cgroup.parent / "nothing"))

    assert check.fix.startswith("mount cgroups: mount -t cgroup2")


def test_read_only_cgroups_are_named(host: Host) -> None:
    check = only(replace(host, writable=lambda path: not path.is_relative_to(host.cgroup)))

    assert "read-only" in check.found
    assert "remount,rw" in check.fix


def test_a_container_whose_top_cgroup_has_processes_is_told_to_move_them(host: Host) -> None:
    assert complaints(as_v2(host, "cpu memory pids")) == []
    (check_root(host) / "cgroup.type").write_text("domain\n")

    assert "/init/cgroup.procs" in only(replace(host, cgroup=check_root(host))).fix


def test_a_kernel_module_that_can_be_loaded_is_no_complaint(host: Host) -> None:
    (host.proc / "filesystems").write_text("ext4\n")
    missing = only(host)
    host.modules.mkdir()
    (host.modules / "modules.dep").write_text("kernel/fs/overlayfs/overlay.ko:\n")

    assert missing.fix.startswith("modprobe overlay")
    assert complaints(host) == []


def test_without_the_bridge_filter_services_would_time_out_so_it_is_required(host: Host) -> None:
    (host.proc / "sys" / "net" / "bridge").rmdir()

    assert (only(host).name, only(host).required) == ("bridge filter", True)


def test_a_first_start_needs_more_disk_than_a_later_one(host: Host) -> None:
    host = replace(host, free_bytes=lambda path: 100 << 20)

    assert only(host).fix.startswith("free at least 1 GiB")
    assert complaints(host, fresh=False) == []


def test_a_directory_with_other_files_is_not_used(host: Host) -> None:
    host.data.mkdir()
    (host.data / "lost+found").mkdir()
    empty = complaints(host)
    (host.data / "thesis.tex").touch()
    foreign = only(host)
    (host.data / "settings.json").touch()

    assert empty == []
    assert "thesis.tex" in foreign.found
    assert complaints(host) == []


def test_a_directory_whose_sockets_would_have_too_long_names_is_refused(host: Host) -> None:
    assert "too long" in only(replace(host, data=Path("/" + "x" * 100))).found


def test_a_read_only_disk_is_named(host: Host) -> None:
    assert "is read-only" in only(replace(host, writable=lambda path: path.is_relative_to(host.cgroup))).found


@pytest.mark.parametrize("udp", [False, True])
def test_a_port_in_use_is_named_with_who_needs_it_and_another_way(udp: bool) -> None:
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if not udp:
            other.listen()
        endpoint = Endpoint("kubelet", "127.0.0.1", other.getsockname()[1], "--kubelet-port", udp)
        busy = check_endpoint(endpoint)
    free = check_endpoint(endpoint)

    assert "where the kubelet listens, is in use" in busy.found
    assert "haven up --kubelet-port" in busy.fix
    assert free.ok


def test_somebody_who_listens_everywhere_is_in_the_way_of_an_address_that_is_not_there_yet() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("0.0.0.0", 0))
        port = resolver.getsockname()[1]
        check = check_endpoint(Endpoint("DNS", "10.96.0.10", port, udp=True))

    assert not check.ok


def test_addresses_in_use_inside_our_network_stop_a_start_and_wider_routes_do_not() -> None:
    inside = Taken(ip_network("10.96.0.10/32"), "another Haven cluster (lo:hv-12345678)")
    around = Taken(ip_network("10.0.0.0/8"), "tun0")

    stopped = check_network("Services", "10.96.0.0/16", [inside, around], "haven up --service-cidr 10.97.0.0/16")
    warned = check_network("Services", "10.96.0.0/16", [around], "fix")

    assert (stopped.ok, stopped.required) == (False, True)
    assert "used by another Haven cluster" in stopped.found
    assert (warned.ok, warned.required) == (False, False)
