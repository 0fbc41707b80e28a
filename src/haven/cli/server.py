"""haven server: the control plane in one process and one event loop: store, API server, controllers, scheduler."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import importlib
import ipaddress
import random
import signal
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haven import telemetry
from haven.cli.failure import Failure
from haven.cli.settings import ClusterSettings

if TYPE_CHECKING:
    from haven.apiserver.assembly import ApiServer
    from haven.apiserver.settings import Settings
    from haven.client.interface import Client
    from haven.clock import Clock
    from haven.cluster.serveridentity import ServerIdentity
    from haven.metrics.families import Registry
    from haven.store.interface import Store

__all__ = ["command", "serve"]

SYSTEM_NAMESPACE = "kube-system"
CONTROLLERS = "controllers"
_LEASES = b"/registry/coordination.k8s.io/leases/"
HEARTBEATS = (_LEASES + b"kube-node-lease/", _LEASES + b"kube-system/apiserver-")  # Written all the time, read by few.


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    help="""Run the control plane in the foreground.

    Takes flags of kube-apiserver as well, as --name=value, for authentication, authorization, audit, encryption and
    fairness, and kube-controller-manager's --controllers; they are added to those in the section "server" of
    settings.json.""",
)
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning or error.")
@click.pass_context
def command(context: click.Context, log_level: str) -> None:
    gc.disable()  # Until all is made: nothing of it is garbage, and looking for some takes longer than the rest.

    import uvloop

    from haven.apiserver.configfiles import ConfigError
    from haven.apiserver.flags import FlagError
    from haven.cluster.pki import PkiError
    from haven.store.interface import StoreError

    settings = ClusterSettings.load()
    complaints = settings.complaints()
    if complaints:
        raise Failure("; ".join(complaints))
    settings = replace(settings, server=settings.server | flags_of(context.args))
    telemetry.configure(level=log_level, stream=sys.stderr)
    try:
        uvloop.run(serve(settings))
    except (ConfigError, FlagError, PkiError, StoreError) as error:
        raise Failure(str(error)) from error
    except OSError as error:
        if error.errno is None:
            raise
        raise Failure(_sentence(error, settings)) from error


def _sentence(error: OSError, settings: ClusterSettings) -> str:
    if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES) and not error.filename:
        return f"cannot listen on {settings.listen}:{settings.api_port} ({error.strerror}): haven doctor tells why"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk below {settings.places.data} is full: free some space; the server is started again by itself"
    return (
        f"{error.filename or settings.places.data}: {error.strerror}; mend that, the server is started again by itself"
    )


def flags_of(arguments: Sequence[str]) -> dict[str, str | list[str]]:
    """Return the values of --name=value arguments by name; a name that comes again has several."""
    found: dict[str, list[str]] = {}
    for argument in arguments:
        name, sign, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            raise Failure(f"unexpected argument {argument}: flags are written --name=value")
        found.setdefault(name, []).append(value if sign else "true")
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _import_loops() -> None:
    """Import what works beside the API server; much of it is large (NumPy)."""
    for name in ("haven.cli.addons", "haven.client.events", "haven.controllers.manager", "haven.scheduler.runner"):
        importlib.import_module(name)


async def serve(settings: ClusterSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    from haven.cluster import pki

    # Keys and certificates in a thread (which may wait for another server), the rest meanwhile.
    certificates = asyncio.create_task(asyncio.to_thread(lambda: pki.ensure(pki_settings(settings), time.time())))
    await asyncio.sleep(0)
    from haven.apiserver import assembly, garbage, laterimports
    from haven.apiserver.components import CONTROLLER_MANAGER, SCHEDULER
    from haven.apiserver.request import UserInfo
    from haven.clock import SystemClock
    from haven.cluster.renewal import Renewal, follow
    from haven.cluster.serveridentity import ServerIdentity

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    keys = await certificates
    settings.places.data.mkdir(parents=True, exist_ok=True)
    store = await _open_store(settings)
    chance, clock = random.Random(), SystemClock()
    trust = _trust(settings, keys)
    server = await assembly.start(_api_settings(settings), store, trust)
    await asyncio.to_thread(_import_loops)  # The API is served meanwhile.
    from haven.cli.addons import ensure_addons
    from haven.client.events import EventRecorder
    from haven.client.sharedinformers import SharedInformers
    from haven.controllers.catalog import API_SERVER
    from haven.controllers.manager import ControllerManager
    from haven.controllers.metrics import show_controllers
    from haven.scheduler.metrics import show_scheduler
    from haven.scheduler.runner import Scheduler
    from haven.scheduler.runner import Settings as SchedulerSettings

    def client_for(account: str) -> Client:
        if account == API_SERVER:
            return server.local_client()
        if not account:  # The controller manager itself.
            user = UserInfo("system:kube-controller-manager", groups=("system:authenticated",))
            return server.local_client(user, agent="kube-controller-manager")
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{SYSTEM_NAMESPACE}", "system:authenticated")
        user = UserInfo(f"system:serviceaccount:{SYSTEM_NAMESPACE}:{account}", groups=groups)
        return server.local_client(user, agent="kube-controller-manager")

    informers = SharedInformers(server.local_client(), clock=clock, chance=chance)
    controllers = ControllerManager(
        _controller_settings(
            keys,
            controllers=_chosen_controllers(settings),
            coordinated_leader_election=_are_leaders_chosen(server),
            features=_features(server),
        ),
        client_for,
        informers,
        clock=clock,
        chance=chance,
    )
    scheduler_user = UserInfo("system:kube-scheduler", groups=("system:authenticated",))
    scheduler_client = server.local_client(scheduler_user, agent="kube-scheduler")
    recorder = EventRecorder(
        scheduler_client, "default-scheduler", host=socket.gethostname(), series=True, clock=clock, chance=chance
    )
    scheduler = Scheduler(SchedulerSettings(), scheduler_client, informers, recorder, clock, chance)
    show_controllers(server.metrics, controllers.statistics, controllers.measure)
    show_scheduler(server.metrics, "default-scheduler", scheduler.statistics, scheduler.times)
    await ensure_addons(server.local_client(), settings)
    garbage.settle()
    control: Callable[[], Awaitable[None]] = controllers.run
    schedule: Callable[[], Awaitable[None]] = scheduler.run
    manager_problem = scheduler_problem = None
    if store.shared:
        control, manager_problem = _elected(
            server.local_client(), "kube-controller-manager", settings, control, server.metrics
        )
        schedule, scheduler_problem = _elected(scheduler_client, "kube-scheduler", settings, schedule, server.metrics)
    control = server.components.host(CONTROLLER_MANAGER, control, manager_problem)
    schedule = server.components.host(SCHEDULER, schedule, scheduler_problem)
    renewal = Renewal(pki_settings(settings), clock)
    files = [path for pair in (keys.apiserver, keys.kubelet_client) for path in pair]
    reload = functools.partial(_reload, trust, keys)
    fresh = functools.partial(follow, files, clock, reload)
    identity = ServerIdentity(
        server.local_client(),
        hostname=socket.gethostname(),
        process=str(uuid.uuid4()),
        clock=clock,
        address=_address(server.settings),
    )
    server.keep(laterimports.imported_rest(), "later-imports")
    if "StorageVersionAPI" in _features(server):
        await _publish_storage_versions(server, identity, clock)
    await run_until(stopping, [informers.run, control, recorder.run, schedule, renewal.run, fresh, identity.run])
    await server.stop()
    await store.close()


async def _open_store(settings: ClusterSettings) -> Store:
    """Return the store: etcd where the settings name one, else SQLite in the data directory."""
    if not settings.etcd_servers:
        from haven.store.sqlite import SqliteSettings, SqliteStore

        return await SqliteStore.open(settings.places.store, SqliteSettings(brief_prefixes=HEARTBEATS))
    try:
        from haven.store.etcd import EtcdStore
        from haven.store.etcdwire import EtcdSettings
    except ImportError as error:
        raise Failure(f"etcd's client is missing ({error.name}): pip install 'haven-k8s[etcd]'") from error
    authority, certificate, key = (
        Path(name) if name else None for name in (settings.etcd_cafile, settings.etcd_certfile, settings.etcd_keyfile)
    )
    servers = tuple(filter(None, settings.etcd_servers.split(",")))
    return await EtcdStore.open(EtcdSettings(servers, authority, certificate, key))


def _elected(
    client: Client, name: str, settings: ClusterSettings, lead: Callable[[], Awaitable[None]], registry: Registry
) -> tuple[Callable[[], Awaitable[None]], Callable[[], str]]:
    """Return work that is done by one of the servers that share a store, and how to ask what is wrong with it."""
    from haven.client.leaderelection import LeaderElector

    identity = f"{settings.node_name}_{uuid.uuid4()}"
    elector = LeaderElector(client, namespace=SYSTEM_NAMESPACE, name=name, identity=identity)
    status = registry["leader_election_master_status"]
    registry.add_collector(lambda: status.set((name,), int(elector.is_leader)))
    return functools.partial(elector.run, lead), elector.problem


async def run_until(stopping: asyncio.Event, works: list[Callable[[], Any]]) -> None:
    """Run works side by side until told to stop; if one ends with an error, all end and it is raised."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    stop = asyncio.ensure_future(stopping.wait())
    done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, stop):
        task.cancel()
    await asyncio.gather(*tasks, stop, return_exceptions=True)
    for task in done:
        if task is not stop:
            task.result()


def pki_settings(settings: ClusterSettings) -> Any:
    """Return what the certificates of this machine contain."""
    from haven.cluster.pki import PkiSettings
    from haven.kubelet.machine import default_addresses

    return PkiSettings(
        directory=settings.places.pki,
        server=settings.api_url,
        cluster_domain=settings.cluster_domain,
        service_network=settings.service_cidr,
        node_name=settings.node_name,
        # The node's own addresses too: that is where the kubelet is found, by Pods for one.
        hosts=(settings.pod_side_address or settings.listen, *default_addresses()),
    )


def _api_settings(settings: ClusterSettings) -> Any:
    from haven.apiserver.flags import with_flags
    from haven.apiserver.settings import Settings

    own = Settings(
        host=settings.listen,
        port=settings.api_port,
        share_port=settings.server_workers > 1,
        pod_side_address=settings.pod_side_address,
        service_networks=(ipaddress.ip_network(settings.service_cidr),),
        service_node_ports=range(settings.node_port_first, settings.node_port_last + 1),
    )
    return with_flags(own, {name: value for name, value in settings.server.items() if name != CONTROLLERS})


def _chosen_controllers(settings: ClusterSettings) -> tuple[str, ...]:
    """Return the values of --controllers, a flag of kube-controller-manager's."""
    value = settings.server.get(CONTROLLERS, "*")
    return tuple(name for part in ([value] if isinstance(value, str) else value) for name in part.split(",") if name)


def _are_leaders_chosen(server: ApiServer) -> bool:
    """Tell whether leaders are elected among candidates: their gate is on and their kind is served."""
    from haven.apiserver.featuregates import set_gates

    if not set_gates(server.settings.feature_gates)["CoordinatedLeaderElection"]:
        return False
    if server.resources.find("coordination.k8s.io", "v1beta1", "leasecandidates") is None:
        raise Failure("CoordinatedLeaderElection needs --runtime-config=coordination.k8s.io/v1beta1=true")
    return True


async def _publish_storage_versions(server: ApiServer, identity: ServerIdentity, clock: Clock) -> None:
    """Say which resources are stored in which version, in the name of a server that has an identity."""
    from haven.apiserver.storedversions import stored_versions
    from haven.cluster.serveridentity import identity_name
    from haven.cluster.storageversions import StorageVersions

    await identity.renew()
    stored = stored_versions(server.resources.endpoints.values())
    await StorageVersions(server.local_client(), identity_name(socket.gethostname()), stored, clock).publish()


def _address(settings: Settings) -> str:
    """Return where other servers of the cluster reach this one."""
    host = settings.advertise_address or settings.pod_side_address or settings.host
    return f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"


def _features(server: ApiServer) -> frozenset[str]:
    """Return the feature gates with controllers of their own that are on, and whose kinds are served."""
    from haven.apiserver.featuregates import set_gates

    states = set_gates(server.settings.feature_gates)
    kinds = {
        "ClusterTrustBundle": ("certificates.k8s.io", "v1beta1", "clustertrustbundles"),
        "DRADeviceTaintRules": ("resource.k8s.io", "v1beta2", "devicetaintrules"),
        "DRAResourcePoolStatus": ("resource.k8s.io", "v1alpha3", "resourcepoolstatusrequests"),
        "DRADeviceTaints": ("resource.k8s.io", "v1", "resourceslices"),
        "GenericWorkload": ("scheduling.k8s.io", "v1alpha2", "podgroups"),
        "PodCertificateRequest": ("certificates.k8s.io", "v1beta1", "podcertificaterequests"),
        "StorageVersionAPI": ("internal.apiserver.k8s.io", "v1alpha1", "storageversions"),
        "StorageVersionMigrator": ("storagemigration.k8s.io", "v1beta1", "storageversionmigrations"),
    }
    return frozenset(name for name, kind in kinds.items() if states[name] and server.resources.find(*kind) is not None)


def _controller_settings(
    keys: Any, *, controllers: tuple[str, ...], coordinated_leader_election: bool, features: frozenset[str]
) -> Any:
    from haven.apiserver.authentication.tokenkeys import SigningKeys
    from haven.controllers.certificateauthority import CertificateAuthority
    from haven.controllers.settings import Settings

    authority = keys.ca_certificate.read_bytes()
    return Settings(
        root_ca_pem=authority.decode(),
        sign_token=SigningKeys(keys.token_key.read_bytes()).sign,
        sign_certificate=CertificateAuthority(authority, keys.ca_key.read_bytes()).sign,
        controllers=controllers,
        coordinated_leader_election=coordinated_leader_election,
        features=features,
    )


def _trust(settings: ClusterSettings, keys: Any) -> Any:
    from cryptography import x509

    from haven.apiserver.assembly import Trust
    from haven.apiserver.authentication.tokenkeys import SigningKeys

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*keys.apiserver)
    tls.load_verify_locations(keys.ca_certificate)
    tls.load_verify_locations(keys.front_proxy_ca_certificate)
    tls.verify_mode = ssl.CERT_OPTIONAL
    authority = keys.ca_certificate.read_bytes()
    front_proxy = keys.front_proxy_ca_certificate.read_bytes()
    return Trust(
        SigningKeys(keys.token_key.read_bytes()),
        client_authorities=[x509.load_pem_x509_certificate(authority)],
        client_ca_pem=authority.decode(),
        tls=tls,
        nodes=_nodes(settings, keys),
        front_proxy_authorities=[x509.load_pem_x509_certificate(front_proxy)],
        front_proxy_ca_pem=front_proxy.decode(),
        proxy_client=keys.front_proxy_client,
    )


def _reload(trust: Any, keys: Any) -> None:
    """Show the renewed certificates to whoever connects from now on."""
    trust.tls.load_cert_chain(*keys.apiserver)
    trust.nodes.tls.load_cert_chain(*keys.kubelet_client)


def _nodes(settings: ClusterSettings, keys: Any) -> Any:
    """Return how the API server reaches kubelets: on this machine over loopback, elsewhere by their addresses."""
    from haven.apiserver.streaming.handlers import NodeBackends

    tls = ssl.create_default_context(cafile=str(keys.ca_certificate))
    tls.load_cert_chain(*keys.kubelet_client)
    overrides = {settings.node_name: "127.0.0.1"}
    return NodeBackends(tls, overrides=overrides)
