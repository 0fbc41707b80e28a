"""The pytest plugin as its users meet it: in pytest runs of their own."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

FREE = """
import os, threading
import pytest

def a_configmap(name):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}

def test_the_environment_leads_to_the_cluster(haven_cluster):
    assert os.environ["KUBECONFIG"] == str(haven_cluster.kubeconfig)

def test_every_test_has_its_own(haven_cluster):
    haven_cluster.create(a_configmap("only-here"))

def test_and_sees_nothing_of_others(haven_cluster):
    assert "only-here" not in [item["metadata"]["name"] for item in haven_cluster.list("configmaps")]

@pytest.mark.haven(nodes=3)
def test_the_marker_sets_options(haven_cluster):
    assert len(haven_cluster.list("nodes")) == 3

def test_one_makes_a_module_cluster(haven_cluster_module):
    haven_cluster_module.create(a_configmap("shared"))

def test_another_finds_it(haven_cluster_module):
    assert haven_cluster_module.get("configmap", "shared")

def test_several_clusters(haven_cluster_factory):
    one, two = haven_cluster_factory(), haven_cluster_factory(nodes=2)
    one.create(a_configmap("x"))
    assert two.list("configmaps", "default") != one.list("configmaps", "default")

def test_nothing_runs_on(haven_cluster_factory):
    before = threading.active_count()
    haven_cluster_factory().close()
    assert threading.active_count() <= before
"""

FAILING = """
def test_that_fails(haven_cluster):
    haven_cluster.behave(start_error="ErrImagePull")
    haven_cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
                          "spec": {"containers": [{"name": "main", "image": "nowhere/web"}]}})
    haven_cluster.wait_for("pod/web", lambda pod: pod["status"].get("containerStatuses"))
    haven_cluster.wait_for("pod/web", "Ready", timeout=0.5)
"""


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    names = {point.name for point in importlib.metadata.entry_points(group="pytest11")}
    plugin = [] if "haven" in names else ["-p", "haven.testing.plugin"]
    return pytester.runpytest_subprocess("-q", *plugin, *arguments)


def test_fixtures_give_fresh_or_shared_clusters(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FREE)

    _run(pytester).assert_outcomes(passed=8)


def test_workers_of_xdist_do_not_disturb_each_other(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_one=FREE, test_two=FREE)

    # By file: a cluster of a module is one per worker.
    _run(pytester, "-n", "2", "--dist", "loadfile").assert_outcomes(passed=16)


def test_a_failure_shows_what_the_cluster_was_like(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)

    result = _run(pytester)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*WaitTimeout: after 0.5 s it is still not so that pod/web in default: condition Ready is True.*",
            "*haven_cluster at the end*",
            "*web Pending on node-0 [[]main: ErrImagePull, not ready, 0 restarts]*",
        ]
    )


def test_the_plugin_costs_nothing_where_nobody_needs_a_cluster() -> None:
    code = "import sys, haven.testing.plugin; print('haven.apiserver' in sys.modules, 'aiohttp' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]


ELSEWHERE = """
import asyncio, os, signal, socket, ssl, subprocess, sys, tempfile, threading
# What others need of a system is their own matter.
import aiohttp, click, cryptography.x509, kubernetes, numpy, rich.console, structlog, yaml

platform = sys.argv[1]
missing = {"uvloop", "pyroute2", "grpc", "nftables", "cri_api"}
if platform == "win32":
    missing |= {"fcntl", "pwd", "grp", "resource", "termios", "pty", "syslog", "posix"}
    for module, names in (
        (os, "fork forkpty geteuid getuid getgid getegid setsid killpg getpgid sysconf uname getloadavg statvfs mkfifo "
             "eventfd sched_getaffinity sendfile O_DIRECTORY O_NOFOLLOW O_CLOEXEC posix_fallocate fchmod chown"),
        (signal, "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGCHLD SIGQUIT SIGPIPE pthread_sigmask sigwait"),
        (socket, "SO_REUSEPORT SCM_RIGHTS"),
    ):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)

    def refuse(*arguments, **named):
        raise NotImplementedError

    asyncio.ProactorEventLoop = asyncio.SelectorEventLoop
    for name in "add_signal_handler add_reader add_writer create_unix_server create_unix_connection".split():
        setattr(asyncio.SelectorEventLoop, name, refuse)  # As on Windows' own loop.
else:
    for module, names in ((os, "eventfd sched_getaffinity pidfd_open memfd_create O_PATH posix_fallocate"),):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
sys.platform = platform

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ImportError(f"{name} is not there")

for name in [name for name in sys.modules if name.partition(".")[0] in missing]:
    del sys.modules[name]
sys.meta_path.insert(0, Refuse())
from haven.testing import Cluster, Denied

CONTAINERS = [{"name": "c", "image": "i"}]
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": CONTAINERS}}
with Cluster() as cluster:
    before = cluster.snapshot()

    @cluster.validating_webhook("configmaps", ["CREATE"])
    def refuse_all(admission):
        raise Denied("no")

    cluster.create(POD)
    cluster.wait_for("pod/p", "Ready")
    cluster.pod("p").log("hello\\n")
    api = kubernetes.client.CoreV1Api(cluster.client())
    assert api.read_namespaced_pod_log("p", "default") == "hello\\n"
    cluster.pod("p").succeed()
    cluster.clock.advance(hours=1)
    try:
        cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
    except Exception as error:
        assert "no" in str(error)
    cluster.restore(before)
    assert cluster.pods() == []
    assert api.list_node().items[0].metadata.name == "node-0"

from haven.cli.main import main

code = "import os, sys; print('served', os.path.exists(os.environ['KUBECONFIG']), flush=True)"
try:
    main(["api", "--ephemeral", "--", sys.executable, "-c", code])
except SystemExit as end:
    assert not end.code, end.code
print("well")
"""


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_nothing_needs_what_only_linux_or_only_servers_have(tmp_path: Path, platform: str) -> None:
    """A cluster of a test and one of a command, where that is missing: other systems' gaps, if not their loops."""
    script = tmp_path / "run.py"
    script.write_text(ELSEWHERE)

    done = subprocess.run([sys.executable, str(script), platform], capture_output=True, text=True, check=False)

    assert done.stdout.split() == ["served", "True", "well"], done.stdout + done.stderr


PROVIDER = """
import pytest

@pytest.fixture
def running(k8s):
    k8s.create()
    yield k8s

def test_it_is_a_cluster(running):
    running.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
    assert running.version() == (1, 36)
    assert running.haven.get("configmap", "x")
    running.reset()
    assert running.haven.list("configmaps", "default")[0]["metadata"]["name"] == "kube-root-ca.crt"

def test_a_manifest_file_is_applied(running, tmp_path):
    manifest = tmp_path / "pod.yaml"
    manifest.write_text("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}")
    running.apply(manifest)
    running.load_image("i")
    running.haven.wait_for("pod/p", "Ready")
    assert running.ready()
    assert "server: " + running.haven.url in running.kubeconfig.read_text()

@pytest.mark.k8s(cluster_name="kept", keep=True)
def test_one_that_is_kept(k8s):
    k8s.create()
    k8s.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}})

@pytest.mark.k8s(cluster_name="kept")
def test_is_there_for_the_next(k8s):
    assert k8s.haven.get("configmap", "kept")

@pytest.mark.k8s(provider="haven")
def test_it_ends_with_delete(k8s):
    k8s.create()
    path = k8s.kubeconfig
    k8s.delete()
    k8s.delete()
    assert not path.exists()

def test_others_can_be_asked_for(k8s_manager):
    assert k8s_manager("kind").__name__ == "KindManager"
"""


def test_pytest_kubernetes_takes_haven_for_a_provider(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from haven.testing.pytestkubernetes import k8s_manager")
    pytester.makepyfile(PROVIDER)

    _run(pytester).assert_outcomes(passed=6)
