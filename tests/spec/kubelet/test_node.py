"""What the node decides: admission, eviction, garbage, back-off, images, names, resources, logs."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import msgspec
import pytest
from tests.spec.kubelet.pods import a_container, a_pod, a_sidecar

from haven.api.core.v1 import (
    ContainerPort,
    EmptyDirVolumeSource,
    Node,
    NodeCondition,
    NodeSpec,
    NodeStatus,
    NodeSystemInfo,
    Pod,
    PodDNSConfig,
    PodSecurityContext,
    ResourceRequirements,
    Secret,
    Sysctl,
    Taint,
    Toleration,
    Volume,
)
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.apimachinery.quantity import Quantity
from haven.cni.conflist import PodNetwork, conflist, write
from haven.cri import interface as cri
from haven.cri.pleg import PodContents
from haven.kubelet.admission import admit, shortages
from haven.kubelet.backoff import Backoff
from haven.kubelet.cgroups import cpu_weight
from haven.kubelet.containerd import ContainerdSettings, RegistryMirror, configuration, hosts_toml
from haven.kubelet.criticalpreemption import choose_victims
from haven.kubelet.eviction import (
    ContainerUse,
    Crossed,
    EvictionSettings,
    EvictionState,
    PodUse,
    Reading,
    Threshold,
    choose,
    local_eviction,
    observe,
)
from haven.kubelet.garbage import ImageUse, dead_containers, dead_sandboxes, unused_images
from haven.kubelet.images import InvalidImageName, credentials, normalized_name
from haven.kubelet.nodeobject import Health, conditions, node_status
from haven.kubelet.observation import LABEL_CONTAINER
from haven.kubelet.observer import log_tail
from haven.kubelet.ociimage import ImageFile, ImageSpec, UnsupportedArchitecture, build, pause_program
from haven.kubelet.podnetwork import ResolverSettings, hosts_file, kernel_hostname, parse_resolv_conf, pod_dns
from haven.kubelet.podstarts import go_duration
from haven.kubelet.resources import container_resources, oom_score_adj, pod_cgroup_limits
from haven.kubelet.settings import Settings
from haven.kubelet.termination import TerminationOrder, grace_seconds

GIB, MIB = 2**30, 2**20


def asking(cpu: str, memory: str = "1Mi", *, limits: bool = False, name: str = "web") -> Pod:
    amounts = {"cpu": Quantity.parse(cpu), "memory": Quantity.parse(memory)}
    resources = ResourceRequirements(requests=dict(amounts), limits=dict(amounts) if limits else {})
    pod = a_pod(a_container(resources=resources))
    pod.metadata.name, pod.metadata.uid = name, UID(f"uid-{name}")
    return pod


ALLOCATABLE = {"cpu": Quantity.of(2), "memory": Quantity.of("4Gi"), "pods": Quantity.of(3)}


# Admission


def test_a_pod_that_does_not_fit_is_refused_with_upstreams_words() -> None:
    verdict = admit(asking("1500m"), [asking("1", name="other")], None, ALLOCATABLE, frozenset())

    assert verdict is not None
    assert verdict.reason == "OutOfcpu"
    assert verdict.message == "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"
    assert verdict.is_for_room
    assert admit(asking("1"), [asking("1", name="other")], None, ALLOCATABLE, frozenset()) is None


def test_the_node_takes_only_so_many_pods() -> None:
    others = [asking("1m", name=str(number)) for number in range(3)]

    verdict = admit(asking("1m"), others, None, ALLOCATABLE, frozenset())

    assert verdict is not None
    assert verdict.reason == "OutOfpods"


def test_labels_taints_and_ports_of_the_node_count() -> None:
    node = Node(metadata=meta.ObjectMeta(name="n", labels={"zone": "a"}))
    elsewhere = a_pod(node_selector={"zone": "b"})
    tainted = Node(metadata=meta.ObjectMeta(name="n"), spec=NodeSpec(taints=[Taint(key="gone", effect="NoExecute")]))
    tolerant = a_pod(tolerations=[Toleration(key="gone", operator="Exists")])
    port = a_pod(a_container(ports=[ContainerPort(container_port=80, host_port=8080)]))
    same = a_pod(a_container(ports=[ContainerPort(container_port=1, host_port=8080, host_ip="127.0.0.1")]))

    def reason(pod: Pod, others: list[Pod], where: Node | None) -> str:
        verdict = admit(pod, others, where, {}, frozenset())
        return verdict.reason if verdict else ""

    assert reason(elsewhere, [], node) == "NodeAffinity"
    assert reason(a_pod(), [], tainted) == "TaintToleration"
    assert reason(tolerant, [], tainted) == ""
    assert reason(port, [same], None) == "NodePorts"
    assert reason(port, [a_pod()], None) == ""


def test_unsafe_sysctls_are_refused_unless_allowed() -> None:
    pod = a_pod(security_context=PodSecurityContext(sysctls=[Sysctl(name="net.core.somaxconn", value="1")]))

    verdict = admit(pod, [], None, {}, frozenset())

    assert verdict is not None
    assert verdict.reason == "SysctlForbidden"
    assert admit(pod, [], None, {}, frozenset(), ["net.core.*"]) is None


def test_a_node_under_memory_pressure_refuses_best_effort_pods_only() -> None:
    pressures = frozenset({"MemoryPressure"})

    refused = admit(a_pod(), [], None, {}, pressures)

    assert refused is not None
    assert refused.reason == "Evicted"
    assert admit(asking("1m"), [], None, {}, pressures) is None


# Eviction and garbage


def test_the_pod_that_exceeds_its_request_most_is_evicted_when_memory_is_short() -> None:
    greedy, modest = asking("1m", "10Mi", name="greedy"), asking("1m", "500Mi", name="modest")
    uses = [
        PodUse(modest, 400 * MIB, containers={"main": ContainerUse(400 * MIB)}),
        PodUse(greedy, 50 * MIB, containers={"main": ContainerUse(50 * MIB)}),
    ]
    settings, state = EvictionSettings(), EvictionState()

    crossed = observe(settings, {"memory.available": Reading(50 * MIB, 4 * GIB)}, state, 0.0)
    found = choose(settings, crossed[0], uses)

    assert found is not None
    assert (found.pod.metadata.name, found.grace_seconds) == ("greedy", 1)
    assert found.message == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container main was using 50Mi, request is 10Mi, has larger consumption of memory. "
    )
    assert state.conditions == {"MemoryPressure"}
    assert observe(settings, {"memory.available": Reading(GIB, 4 * GIB)}, state, 200.0) == []
    assert state.conditions == {"MemoryPressure"}  # It does not flap.
    observe(settings, {}, state, 301.0)
    assert state.conditions == frozenset()


def test_a_soft_threshold_is_acted_on_after_its_grace_and_until_enough_is_free() -> None:
    soft = Threshold("memory.available", value=300 * MIB, grace_seconds=30, reclaim=100 * MIB)
    settings, state = EvictionSettings(hard=(), soft=(soft,), pod_grace_seconds_max=20), EvictionState()
    pod = a_pod(termination_grace_period_seconds=60)

    def due(free: int, at: float) -> list[Crossed]:
        return observe(settings, {"memory.available": Reading(free * MIB, 4 * GIB)}, state, at)

    assert due(250, 0.0) == []
    assert state.conditions == {"MemoryPressure"}  # Told at once, acted on later.
    (crossed,) = due(250, 30.0)
    eviction = choose(settings, crossed, [PodUse(pod, MIB)])
    assert eviction is not None
    assert eviction.grace_seconds == 20
    assert len(due(350, 40.0)) == 1
    assert due(400, 50.0) == []
    assert due(350, 60.0) == []


@pytest.mark.parametrize(
    ("signal", "resource", "limit"),
    [
        ("pid.available", "pids", "1k"),
        ("nodefs.inodesFree", "inodes", "1k"),
        ("imagefs.available", "ephemeral-storage", "1k"),
    ],
)
def test_the_largest_user_of_what_is_short_goes_but_no_critical_pod(signal: str, resource: str, limit: str) -> None:
    small, large = a_pod(), a_pod()
    small.metadata.name, large.metadata.name = "small", "large"
    vital = a_pod(priority=2_000_000_000)
    uses = [
        PodUse(small, disk_bytes=10, inodes=10, processes=10),
        PodUse(vital, disk_bytes=900, inodes=900, processes=900),
        PodUse(large, disk_bytes=99, inodes=99, processes=99),
    ]
    settings = EvictionSettings(hard=(Threshold(signal, value=1000),))

    (crossed,) = observe(settings, {signal: Reading(10, 10**6)}, EvictionState(), 0.0)
    found = choose(settings, crossed, uses)

    assert found is not None
    assert found.pod is large
    assert found.message == f"The node was low on resource: {resource}. Threshold quantity: {limit}, available: 10. "
    assert choose(settings, crossed, [uses[1]]) is None


# Room for critical pods


def test_a_critical_pod_ends_as_little_as_it_must_and_what_guarantees_least_first() -> None:
    critical = asking("2", name="critical")
    critical.spec.priority = 2_000_000_000
    best_effort = a_pod()
    best_effort.metadata.uid = UID("best-effort")
    small, large, guaranteed = (asking(cpu, name=cpu) for cpu in ("100m", "900m", "1"))
    tiers = {best_effort.metadata.uid: "BestEffort", guaranteed.metadata.uid: "Guaranteed"}
    active = [best_effort, small, large, guaranteed]

    def victims(missing: dict[str, int]) -> list[str] | None:
        chosen = choose_victims(critical, active, missing, lambda pod: tiers.get(pod.metadata.uid, "Burstable"))
        return None if chosen is None else [pod.metadata.uid for pod in chosen]

    assert shortages(critical, active, {"cpu": Quantity.of(2), "pods": Quantity.of(10)}) == {"cpu": 2000}
    assert victims({"cpu": 800}) == ["uid-900m"]
    assert victims({"cpu": 950}) == ["uid-900m", "uid-100m"]
    assert victims({"pods": 1}) == ["best-effort"]
    assert victims({"cpu": 1500}) == ["uid-900m", "uid-1"]
    assert victims({"cpu": 2100}) is None
    assert choose_victims(small, [large], {"cpu": 10}, lambda pod: "Burstable") is None


def test_a_node_that_is_shutting_down_takes_nobody() -> None:
    refused = admit(a_pod(), [], None, {}, frozenset(), is_shutting_down=True)

    assert refused is not None
    assert (refused.reason, refused.message) == ("NodeShutdown", "Pod was rejected as the node is shutting down.")


def test_an_empty_dir_beyond_its_limit_evicts_the_pod() -> None:
    pod = a_pod(volumes=[Volume(name="v", empty_dir=EmptyDirVolumeSource(size_limit=Quantity.parse("1Mi")))])

    found = local_eviction(pod, {"v": 2 * 2**20}, {})

    assert found is not None
    assert found.message == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    assert local_eviction(pod, {"v": 100}, {}) is None


def test_only_old_dead_containers_go_and_all_when_the_pod_is_gone() -> None:
    def dead(number: int, state: cri.ContainerState = cri.ContainerState.EXITED) -> cri.ContainerInfo:
        return cri.ContainerInfo(f"c{number}", "s0", "main", number, "", "", state, number, {LABEL_CONTAINER: "main"})

    sandbox = cri.SandboxInfo("s0", "web", "default", "u", 0, cri.SandboxState.NOT_READY, 0)
    contents = PodContents("u", "web", "default", (sandbox,), (dead(1), dead(2), dead(3, cri.ContainerState.RUNNING)))

    assert [item.id for item in dead_containers(contents, keep=1, is_removed=False)] == ["c1"]
    assert [item.id for item in dead_containers(contents, keep=1, is_removed=True)] == ["c2", "c1"]
    assert dead_sandboxes(contents, {"c1", "c2", "c3"}, is_removed=False) == []
    assert [item.id for item in dead_sandboxes(contents, {"c1", "c2", "c3"}, is_removed=True)] == ["s0"]
    assert dead_sandboxes(contents, {"c1"}, is_removed=True) == []


def test_the_least_recently_used_images_go_until_enough_is_free() -> None:
    images = [cri.Image(name, (name,), (), 10) for name in ("a", "b", "c", "d")]
    images[3] = dataclasses.replace(images[3], pinned=True)
    history = {"a": ImageUse(0, 50), "b": ImageUse(0, 10), "c": ImageUse(0, 30), "d": ImageUse(0, 0)}

    chosen = unused_images(images, {"c"}, history, bytes_to_free=15, now=1000, min_age_seconds=120)

    assert [image.id for image in chosen] == ["b", "a"]


# The node's entry


def test_what_others_say_the_node_has_is_kept_and_may_be_used() -> None:
    previous = NodeStatus(capacity={"example.com/dongle": Quantity.of(5), "cpu": Quantity.of(9)})

    status = node_status(
        Settings("n"),
        previous,
        capacity={"cpu": Quantity.of(4)},
        allocatable={"cpu": Quantity.of(3)},
        host_ips=("192.0.2.1",),
        info=NodeSystemInfo(),
        found_images=(),
        features=cri.Features(container_events=False, runtime_config=False, systemd_cgroups=None),
        supports_strict_groups=False,
        health=Health(),
        now="t",
    )

    assert status.capacity == {"cpu": Quantity.of(4), "example.com/dongle": Quantity.of(5)}
    assert status.allocatable == {"cpu": Quantity.of(3), "example.com/dongle": Quantity.of(5)}


def test_a_node_that_is_shutting_down_is_not_ready() -> None:
    found = conditions(Health(shutdown_problem="node is shutting down"), [], "t")

    (ready,) = [item for item in found if item.type == "Ready"]
    assert (ready.status, ready.reason, ready.message) == ("False", "KubeletNotReady", "node is shutting down")


# Back-off


def test_back_off_doubles_to_a_maximum_and_starts_anew_after_a_long_while() -> None:
    backoff = Backoff(initial_seconds=10, max_seconds=300)
    seen: list[float] = []
    now = 0.0
    for _ in range(7):
        backoff.next("k", now)
        seen.append(backoff.seconds("k"))
        now += 1

    assert seen == [10, 20, 40, 80, 160, 300, 300]
    assert backoff.remaining("k", now, now + 100) == 200
    assert backoff.remaining("other", now, now) == 0
    assert backoff.remaining("k", now + 700, now + 700) == 0
    backoff.next("k", now + 700)
    assert backoff.seconds("k") == 10


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s")])
def test_durations_read_as_gos(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


# Images


@pytest.mark.parametrize(
    ("image", "name"),
    [("busybox", "busybox:latest"), ("a.b/c:1", "a.b/c:1"), ("r:5000/x", "r:5000/x:latest"),
     ("x@sha256:" + "a" * 64, "x@sha256:" + "a" * 64)],
)  # fmt: skip
def test_image_names_get_their_tag(image: str, name: str) -> None:
    assert normalized_name(image) == name


@pytest.mark.parametrize("image", ["UPPER", "a b", "", "x:", "-x", "a//b"])
def test_names_that_are_no_references_are_refused(image: str) -> None:
    with pytest.raises(InvalidImageName, match="couldn't parse image name"):
        normalized_name(image)


def a_pull_secret(auths: dict[str, dict[str, str]]) -> Secret:
    return Secret(data={".dockerconfigjson": msgspec.json.encode({"auths": auths})})


def test_the_best_matching_credentials_come_first() -> None:
    auth = base64.b64encode(b"bob:pw").decode()
    secret = a_pull_secret(
        {
            "reg.example": {"username": "all", "password": "x"},
            "https://reg.example/team": {"auth": auth},
            "other.example": {"username": "no", "password": "no"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "h"},
        }
    )

    assert [item.username for item in credentials("reg.example/team/app:1", [secret])] == ["bob", "all"]
    assert [item.username for item in credentials("reg.example/else:1", [secret])] == ["all"]
    assert [item.username for item in credentials("busybox:1", [secret])] == ["hub"]


def test_images_are_built_the_same_way_every_time(tmp_path: Path) -> None:
    spec = ImageSpec("x:1", {"/a/b": ImageFile(b"hi"), "/l": ImageFile(link_to="a/b")}, command=["sh"])
    build([spec], tmp_path / "one.tar")
    build([spec], tmp_path / "two.tar")

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    for machine, number in (("x86_64", 62), ("aarch64", 183)):
        program = pause_program(machine)
        assert program.startswith(b"\x7fELF")
        assert int.from_bytes(program[18:20], "little") == number
    with pytest.raises(UnsupportedArchitecture, match="riscv64"):
        pause_program("riscv64")


# Names


def test_cluster_dns_comes_first_and_the_hosts_searches_last() -> None:
    settings = ResolverSettings(
        ["10.96.0.10"],
        "cluster.local",
        parse_resolv_conf("nameserver 1.1.1.1\nsearch a.b. .\noptions ndots:2 rotate\n"),
    )

    cluster = pod_dns(a_pod(dns_policy="ClusterFirst"), settings).config
    default = pod_dns(a_pod(dns_policy="Default"), settings).config
    on_host = pod_dns(a_pod(dns_policy="ClusterFirst", host_network=True), settings).config
    none = pod_dns(a_pod(dns_policy="None", dns_config=PodDNSConfig(nameservers=["9.9.9.9"])), settings).config

    assert cluster.servers == ("10.96.0.10",)
    assert cluster.searches == ("default.svc.cluster.local", "svc.cluster.local", "cluster.local", "a.b")
    assert cluster.options == ("ndots:5",)
    assert default == on_host == cri.DNSConfig(("1.1.1.1",), ("a.b",), ("ndots:2", "rotate"))
    assert none.servers == ("9.9.9.9",)


def test_too_many_name_servers_are_cut_with_a_warning() -> None:
    config = PodDNSConfig(nameservers=["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"])

    result = pod_dns(a_pod(dns_policy="None", dns_config=config), ResolverSettings())

    assert len(result.config.servers) == 3
    assert result.warnings[0].startswith("Nameserver limits were exceeded")


def test_host_names_and_hosts_files() -> None:
    pod = a_pod(hostname="box", subdomain="sub", set_hostname_as_fqdn=True)

    assert kernel_hostname(pod, "c.l") == "box.sub.default.svc.c.l"
    assert "10.0.0.1\tbox.sub.default.svc.c.l\tbox\n" in hosts_file(pod, ["10.0.0.1"], "c.l", "")
    assert hosts_file(a_pod(host_network=True), [], "c.l", "127.0.0.1 me\n").endswith("127.0.0.1 me\n")


# Resources


def test_cgroup_limits_follow_requests_and_limits() -> None:
    pod = asking("500m", "64Mi", limits=True)

    resources = container_resources(pod, pod.spec.containers[0], 4 * GIB)
    limits = pod_cgroup_limits(pod)

    assert (resources.cpu_shares, resources.cpu_quota, resources.memory_limit_bytes) == (512, 50_000, 64 * 2**20)
    assert resources.oom_score_adj == -997
    assert (limits.cpu_shares, limits.cpu_quota, limits.memory_bytes) == (512, 50_000, 64 * 2**20)


def test_a_pod_is_limited_only_if_every_container_is() -> None:
    pod = asking("500m", "64Mi", limits=True)
    pod.spec.containers.append(a_container("free"))

    limits = pod_cgroup_limits(pod)

    assert (limits.cpu_quota, limits.memory_bytes) == (None, None)


def test_oom_scores_rank_the_classes() -> None:
    half = asking("1m", "2Gi")

    assert oom_score_adj(a_pod(), a_container(), 4 * GIB) == 1000
    assert oom_score_adj(half, half.spec.containers[0], 4 * GIB) == 500
    assert (cpu_weight(2), cpu_weight(262144)) == (1, 10000)


# Termination


def test_grace_periods_come_from_the_deletion_then_the_probe_then_the_pod() -> None:
    from haven.api.core.v1 import Probe
    from haven.kubelet.podstate import KillReason

    container = a_container(liveness_probe=Probe(termination_grace_period_seconds=5))
    pod = a_pod(container, termination_grace_period_seconds=30)

    assert grace_seconds(pod, container) == 30
    assert grace_seconds(pod, container, KillReason.LIVENESS_PROBE) == 5
    pod.metadata.deletion_grace_period_seconds = 7
    assert grace_seconds(pod, container, KillReason.LIVENESS_PROBE) == 7


async def test_sidecars_end_last_and_in_reverse() -> None:
    import asyncio

    pod = a_pod(a_container("main"), init_containers=[a_sidecar("one"), a_sidecar("two")])
    order = TerminationOrder(pod, ["main", "one", "two"])
    ended: list[str] = []

    async def end(name: str) -> None:
        await order.wait_turn(name, 5)
        ended.append(name)
        order.has_ended(name)

    await asyncio.gather(*(end(name) for name in ("one", "two", "main")))

    assert ended == ["main", "two", "one"]


def test_the_tail_of_a_log_has_no_prefixes(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("".join(f"2024-01-01T00:00:00Z stdout F line {n}\n" for n in range(200)))

    text = log_tail(log)

    assert text.splitlines()[-1] == "line 199"
    assert len(text.splitlines()) <= 80
    assert "stdout" not in text


# The node object and its programs


def test_conditions_name_every_problem_and_keep_transition_times() -> None:
    healthy = conditions(Health(), [], "t0")
    sick = conditions(
        Health(runtime_problem="a", network_problem="b", pressures=frozenset({"DiskPressure"})), healthy, "t1"
    )

    assert {item.type: item.status for item in healthy} == {
        "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True"
    }  # fmt: skip
    by_type: dict[str, NodeCondition] = {item.type: item for item in sick}
    assert (by_type["Ready"].reason, by_type["Ready"].message) == ("KubeletNotReady", "[a, b]")
    assert by_type["DiskPressure"].reason == "KubeletHasDiskPressure"
    assert (by_type["Ready"].last_transition_time, by_type["MemoryPressure"].last_transition_time) == ("t1", "t0")


def test_the_pod_network_is_written_once(tmp_path: Path) -> None:
    network = PodNetwork(("10.244.1.0/24", "fd00:1::/64"))

    assert write(network, tmp_path)
    assert not write(network, tmp_path)
    plugins = conflist(network)["plugins"]
    assert isinstance(plugins, list)
    assert [plugin["type"] for plugin in plugins] == ["bridge", "portmap"]
    assert plugins[0]["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def test_containerd_is_configured_for_what_the_machine_allows() -> None:
    text = configuration(ContainerdSettings(), runtime_path="/usr/bin/crun", restrict_oom=True)

    assert "restrict_oom_score_adj = true" in text
    assert 'BinaryName = "/usr/bin/crun"' in text
    assert 'default_runtime_name = "crun"' in text
    hosts = hosts_toml(RegistryMirror("docker.io", ("http://mirror:5000",), insecure=True))
    assert 'server = "http' in hosts
    assert '[host."http://mirror:5000"]' in hosts
    assert "skip_verify = true" in hosts
