"""What cgroups and the kernel count becomes one reading, and the reading becomes upstream's metrics."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.spec.kubelet.pods import a_pod

from haven.kubelet.cgroupuse import CgroupUse, Pressure, cgroup_use
from haven.kubelet.machine import DiskSpace
from haven.kubelet.probes import ProbeCount, ProbeKind
from haven.kubelet.server.agentmetrics import probe_families
from haven.kubelet.server.cadvisor import cadvisor_families
from haven.kubelet.server.configz import kubelet_configuration
from haven.kubelet.server.exposition import Family, render
from haven.kubelet.server.resourcemetrics import resource_families
from haven.kubelet.server.summary import summary
from haven.kubelet.settings import Settings
from haven.kubelet.shutdownplan import ShutdownSettings
from haven.kubelet.usage import ContainerUsage, Interface, NodeUsage, PodUsage, VolumeUsage, parse_interfaces
from haven.telemetry import Durations

V1 = {
    ("cpuacct", "cpuacct.usage"): "2500000000",
    ("cpuacct", "cpuacct.stat"): "user 100\nsystem 50",
    ("cpu", "cpu.stat"): "nr_periods 10\nnr_throttled 4\nthrottled_time 700",
    ("cpu", "cpu.cfs_quota_us"): "50000",
    ("cpu", "cpu.cfs_period_us"): "100000",
    ("cpu", "cpu.shares"): "102",
    ("memory", "memory.usage_in_bytes"): "5000",
    ("memory", "memory.stat"): "cache 1\ntotal_inactive_file 1000\ntotal_rss 3000\ntotal_cache 2000\ntotal_pgfault 7",
    ("memory", "memory.limit_in_bytes"): "9223372036854771712",
    ("memory", "memory.oom_control"): "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
    ("pids", "pids.current"): "3",
    ("pids", "pids.max"): "max",
    (
        "blkio",
        "blkio.throttle.io_service_bytes_recursive",
    ): "8:0 Read 4096\n8:0 Write 8192\nTotal 12288",
    ("blkio", "blkio.throttle.io_serviced_recursive"): "8:0 Read 1\n8:0 Write 2\nTotal 3",
}
V2 = {
    ("cpu", "cpu.stat"): (
        "usage_usec 2500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 1"
    ),
    ("cpu", "cpu.max"): "50000 100000",
    ("cpu", "cpu.weight"): "4",
    ("memory", "memory.current"): "5000",
    ("memory", "memory.stat"): "anon 3000\nfile 2000\ninactive_file 1000\npgfault 7",
    ("memory", "memory.max"): "max",
    ("memory", "memory.events"): "low 0\nmax 5\noom_kill 2",
    ("pids", "pids.current"): "3",
    ("pids", "pids.max"): "max",
    ("io", "io.stat"): "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0",
    ("memory", "memory.pressure"): "some avg10=0.00 avg60=0.00 total=1500000\nfull avg10=0.00 total=500000",
}


def reader(files: Mapping[tuple[str, str], str]) -> CgroupUse:
    found = cgroup_use(lambda controller, knob: files.get((controller, knob)), is_v2=files is V2)
    assert found is not None
    return found


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_both_versions_of_cgroups_tell_the_same(files: Mapping[tuple[str, str], str]) -> None:
    use = reader(files)

    assert (use.cpu, use.cpu_periods, use.cpu_throttled_periods) == (2_500_000_000, 10, 4)
    assert (use.memory, use.working_set, use.rss, use.cache, use.page_faults) == (5000, 4000, 3000, 2000, 7)
    assert (use.memory_limit, use.processes, use.processes_max, use.oom_kills) == (0, 3, 0, 2)
    assert (use.cpu_quota, use.cpu_period) == (50000, 100000)
    assert use.io == {("8:0", "Read"): (4096, 1), ("8:0", "Write"): (8192, 2)}


def test_pressure_is_told_where_the_kernel_keeps_account() -> None:
    assert reader(V2).pressure == {"memory": Pressure(1.5, 0.5)}
    assert reader(V1).pressure == {}


def test_a_cgroup_that_is_gone_has_no_use() -> None:
    assert cgroup_use(lambda *_: None, is_v2=False) is None
    assert cgroup_use(lambda *_: None, is_v2=True) is None


def test_network_counters_are_read_by_column() -> None:
    text = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls\n"
        "  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n"
    )

    assert parse_interfaces(text) == [Interface("eth0", 1000, 10, 1, 2, 2000, 20, 3, 4)]


def a_reading() -> NodeUsage:
    use = reader(V2)
    disk = DiskSpace(1000, 400, 100, 60)
    container = ContainerUsage("main", "abc", "busybox", "/kubepods/podu/abc", 50.0, use, 250, 11, 2, 5)
    pause = ContainerUsage("", "xyz", "", "/kubepods/podu/xyz", 40.0, use, None)
    volumes = [VolumeUsage("scratch", "", disk, 20, 3), VolumeUsage("data", "claim", disk, 30, 4)]
    eth0 = Interface("eth0", 1000, 10, 1, 2, 2000, 20, 3, 4)
    pod = PodUsage(a_pod(), "/kubepods/podu", 40.0, use, 300, pause, [container], [eth0], volumes)
    memory = {"MemTotal": 100, "MemAvailable": 60, "MemFree": 50, "SwapTotal": 8, "SwapFree": 6}
    tree = {"/": use, "/kubepods": use}
    return NodeUsage(100.0, 10.0, 500, tree, 9 * 10**9, memory, 7, 1, [eth0], disk, 30, 4000, [pod], {"/kubepods": 300})


def line(families: list[Family], start: str) -> str:
    found = [text for text in render(families).splitlines() if text.startswith(start)]
    assert len(found) == 1, found
    return found[0]


def test_metrics_server_finds_its_names_and_labels() -> None:
    families = resource_families(a_reading())

    place = 'namespace="default",pod="web"'
    assert line(families, "container_cpu_usage_seconds_total{") == (
        f'container_cpu_usage_seconds_total{{container="main",{place}}} 2.5 100000'
    )
    assert line(families, "pod_memory_working_set_bytes{") == f"pod_memory_working_set_bytes{{{place}}} 4000 100000"
    assert line(families, "node_cpu_usage_seconds_total ") == "node_cpu_usage_seconds_total 9 100000"
    assert line(families, "node_memory_working_set_bytes ") == "node_memory_working_set_bytes 40 100000"
    assert line(families, "resource_scrape_error ") == "resource_scrape_error 0"
    assert line(resource_families(None), "resource_scrape_error ") == "resource_scrape_error 1"


def test_prometheus_finds_cadvisors_names_and_labels() -> None:
    families = cadvisor_families(a_reading())

    own = 'container="main",id="/kubepods/podu/abc",image="busybox",name="abc",namespace="default",pod="web"'
    assert line(families, f"container_memory_working_set_bytes{{{own}") == (
        f"container_memory_working_set_bytes{{{own}}} 4000 100000"
    )
    assert line(families, f"container_cpu_usage_seconds_total{{{own}").endswith(',cpu="total"} 2.5 100000')
    whole = 'container="",id="/kubepods/podu",image="",name="",namespace="default",pod="web"'
    assert line(families, f"container_memory_rss{{{whole}").endswith(" 3000 100000")
    pause = 'container="",id="/kubepods/podu/xyz",image="",name="xyz",namespace="default",pod="web"'
    assert line(families, f"container_network_receive_bytes_total{{{pause}").endswith('interface="eth0"} 1000 100000')
    assert line(families, "machine_memory_bytes{").endswith(" 100")


def test_the_summary_has_what_the_node_and_its_pods_use() -> None:
    document = summary("n1", a_reading())

    node, (pod,) = document["node"], document["pods"]
    assert node["cpu"]["usageNanoCores"] == 500
    assert node["fs"]["usedBytes"] == 600
    assert node["runtime"]["imageFs"]["capacityBytes"] == 1000
    assert node["rlimit"] == {"time": node["rlimit"]["time"], "maxpid": 4000, "curproc": 30}
    assert [item["name"] for item in node["systemContainers"] if item["name"]] == ["pods"]
    assert pod["podRef"]["name"] == "web"
    assert pod["network"]["rxBytes"] == 1000
    assert [item["name"] for item in pod["volume"]] == ["scratch", "data"]
    assert pod["volume"][1]["pvcRef"] == {"name": "claim", "namespace": "default"}
    assert pod["ephemeral-storage"]["usedBytes"] == 11 + 5 + 20
    assert pod["containers"][0]["memory"]["workingSetBytes"] == 4000

    short = summary("n1", a_reading(), only_cpu_and_memory=True)
    assert "fs" not in short["node"]
    assert "volume" not in short["pods"][0]


def test_probes_are_counted_by_outcome_and_duration() -> None:
    took = Durations(bounds=(1.0,))
    took.add(0.5)
    took.add(2.0)
    count = ProbeCount("default", "web", durations=took)
    count.outcomes["failed"] += 2

    text = render(probe_families({("u", "main", ProbeKind.LIVENESS): count}))

    labels = 'container="main",namespace="default",pod="web"'
    assert f'prober_probe_total{{{labels},pod_uid="u",probe_type="Liveness",result="failed"}} 2' in text
    assert f'prober_probe_duration_seconds_bucket{{{labels},probe_type="Liveness",le="1"}} 1' in text
    assert f'prober_probe_duration_seconds_bucket{{{labels},probe_type="Liveness",le="+Inf"}} 2' in text
    assert f'prober_probe_duration_seconds_sum{{{labels},probe_type="Liveness"}} 2.5' in text


def test_the_settings_read_as_upstreams_configuration() -> None:
    settings = Settings("n", cluster_dns=("10.96.0.10",), shutdown=ShutdownSettings(90, 30))

    found = kubelet_configuration(settings)["kubeletconfig"]

    assert found["evictionHard"]["memory.available"] == "100Mi"
    assert found["evictionHard"]["nodefs.available"] == "10%"
    assert (found["shutdownGracePeriod"], found["shutdownGracePeriodCriticalPods"]) == ("1m30s", "30s")
    assert found["nodeStatusReportFrequency"] == "5m0s"
    assert found["clusterDNS"] == ["10.96.0.10"]
    assert found["containerLogMaxSize"] == "10Mi"


def test_label_values_are_escaped() -> None:
    family = Family("m", "gauge", "x")
    family.add(1, {"a": 'say "hi"\\\n'})

    assert 'm{a="say \\"hi\\"\\\\\\n"} 1' in render([family])
