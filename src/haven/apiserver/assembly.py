"""Puts an API server together: store, caches, identity, permission, admission, handlers, listener."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from haven import telemetry
from haven.api import scheme
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.adminaccess import AdminAccess
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.admission.configuration import read_configuration
from haven.apiserver.admission.interface import Plugin
from haven.apiserver.admission.manifestmetrics import ManifestMetrics
from haven.apiserver.admission.plugins import AdmissionSettings, Parts, make_plugins
from haven.apiserver.admission.policies.plugins import PolicyAdmission, WebhookConditions
from haven.apiserver.admission.rolewrites import RoleWrites
from haven.apiserver.admission.signingrequests import SigningRequests
from haven.apiserver.admission.unreadable import CONFIGURATIONS, UnreadableConfiguration
from haven.apiserver.admission.versions import ServedVersions
from haven.apiserver.admission.webhooks.plugins import WebhookAdmission
from haven.apiserver.aggregation.proxy import REQUEST_SECONDS, ExtensionServers
from haven.apiserver.aggregation.runner import Aggregator
from haven.apiserver.apiserver import ADMIN, ApiServer, ServerStatistics, Trust
from haven.apiserver.audit.assembly import make_audit
from haven.apiserver.authentication.authenticationmetrics import AuthenticationMetrics
from haven.apiserver.authentication.bearer import BearerTokens, TokenUnion
from haven.apiserver.authentication.bootstraptokens import BootstrapTokens
from haven.apiserver.authentication.interface import (
    Authenticator,
    RemoteTokenAuthenticator,
    TokenAuthenticator,
)
from haven.apiserver.authentication.legacytracking import LegacyTracking
from haven.apiserver.authentication.serviceaccounts import ServiceAccountTokens
from haven.apiserver.authentication.statictokens import StaticTokens
from haven.apiserver.authentication.union import RequestAuthenticator
from haven.apiserver.authentication.x509 import ClientCertificates, RequestHeaders
from haven.apiserver.authorization.escalation import EscalationGuard
from haven.apiserver.authorization.node import NodeAuthorizer
from haven.apiserver.authorization.nodegraph import NodeGraph
from haven.apiserver.authorization.rbac import RBAC
from haven.apiserver.bootstrap.objects import BootstrapSettings, node_rules, unstable_versions
from haven.apiserver.bootstrap.startup import keep_flow_objects, write_bootstrap_objects
from haven.apiserver.cbordoor import speaking_cbor
from haven.apiserver.chain import Chain, PathHandler
from haven.apiserver.components import Components, stored
from haven.apiserver.customresources.reviews import WebhookReviews
from haven.apiserver.customresources.runner import DefinitionKeeper
from haven.apiserver.customresources.scale import CustomScaleFields
from haven.apiserver.customresources.serving import CustomResources
from haven.apiserver.discovery import KUBERNETES_VERSION
from haven.apiserver.documents import Shutdown, document_paths, store_check
from haven.apiserver.featuregates import set_gates
from haven.apiserver.flags import values_of
from haven.apiserver.flowcontrol.dumps import dump_paths
from haven.apiserver.flowcontrol.metrics import FlowMetrics
from haven.apiserver.flowcontrol.runner import WAIT_SECONDS_MAX, FlowControl
from haven.apiserver.http.policies import allowing_origins, insisting_on_tls
from haven.apiserver.http.server import HttpServer
from haven.apiserver.local import LocalClient
from haven.apiserver.metrics import Metrics, MetricsSwitches, make_registry
from haven.apiserver.monitoring import ServerFacts
from haven.apiserver.objects import Observers, RecordedObjects, StoredObjects
from haven.apiserver.outgoing import OutgoingMeter
from haven.apiserver.registry.builtin import add_handlers, endpoints, served_resources
from haven.apiserver.registry.deletion import Deletion
from haven.apiserver.registry.fieldmanagement import FieldManagement
from haven.apiserver.registry.issuedcertificates import IssuedCertificates
from haven.apiserver.registry.patching import Patching
from haven.apiserver.registry.reading import Reading
from haven.apiserver.registry.resources import Handlers, Resources
from haven.apiserver.registry.scale import Scales
from haven.apiserver.registry.services import ServiceAllocation
from haven.apiserver.registry.storage import Storages
from haven.apiserver.registry.storemeter import StoreMeter
from haven.apiserver.registry.unreaddeletion import UnreadDeletion
from haven.apiserver.registry.watching import Watching
from haven.apiserver.registry.writing import Writing
from haven.apiserver.reviews.accessreviews import AccessReviews
from haven.apiserver.reviews.identityreviews import TokenReviews
from haven.apiserver.reviews.tokenrequests import TokenRequests
from haven.apiserver.security import WEBHOOK_SECONDS, Guard, webhook_target
from haven.apiserver.securitymetrics import SecurityMetrics
from haven.apiserver.settings import Settings
from haven.apiserver.streaming.handlers import NodeBackends, Streaming
from haven.apiserver.streaming.location import is_proxy_target
from haven.apiserver.streaming.meter import StreamMeter
from haven.apiserver.tracing import Tracing, read_tracing
from haven.apiserver.webhooks.caller import WebhookCaller
from haven.apiserver.webhooks.retrying import retrying
from haven.apiserver.webhooks.services import ClusterAddresses, EndpointAddresses, ServiceAddresses
from haven.apiserver.zpages import debug_paths, flagz, statusz
from haven.clock import Clock, SystemClock
from haven.metrics.families import Registry
from haven.store.interface import Store

if TYPE_CHECKING:
    from haven.apiserver.admission.manifests import Manifests
    from haven.apiserver.encryption.runner import Encryption

__all__ = ["ADMIN", "ApiServer", "ServerStatistics", "Trust", "start"]

_log = telemetry.logger("apiserver")


async def start(
    settings: Settings,
    store: Store,
    trust: Trust,
    *,
    clock: Clock | None = None,
    chance: random.Random | None = None,
    listen: bool = True,
    reroute: Callable[[ServiceAddresses], ServiceAddresses] | None = None,
) -> ApiServer:
    """Return a server that is ready. The caller closes the store after `stop`.

    `reroute` may find other ways to the Services of webhooks and extension servers than the cluster's own.
    """
    began = time.monotonic()
    clock = clock or SystemClock()
    chance = chance or random.Random()
    registry = make_registry(_metrics_switches(settings))
    encryption = _encryption(settings, clock, registry)
    states = set_gates(settings.feature_gates)
    storages = Storages(
        store,
        history_max=settings.watch_history_events_max,
        queue_max=settings.watch_queue_events_max,
        encryption=encryption,
        is_gated=states["AllowUnsafeMalformedObjectDeletion"],
    )
    storages.meter = StoreMeter(registry)
    table = served_resources((*settings.unstable_versions, *settings.runtime_config), states)
    served = endpoints(storages, table, states)
    await storages.load()

    objects = StoredObjects(storages, clock)
    services: ServiceAddresses = (
        EndpointAddresses(objects, chance) if settings.aggregator_routing else ClusterAddresses(objects)
    )
    caller = WebhookCaller(reroute(services) if reroute is not None else services)
    rbac, graph = RBAC(), NodeGraph()
    flows = FlowControl(
        clock,
        seats=settings.requests_in_flight_max + settings.mutating_requests_in_flight_max,
        sizes=storages.sizes,
        wait_seconds_max=settings.request_timeout_seconds / 4 or WAIT_SECONDS_MAX,
    )
    issuers = (trust.issuer,)
    audiences = settings.security.api_audiences or issuers
    guard = Guard(
        settings.security,
        caller,
        clock,
        chance,
        node=NodeAuthorizer(graph, node_rules(states), pod_certificates=states["PodCertificateRequest"]),
        rbac=rbac,
        audiences=audiences,
    )
    authorizer = guard.authorizer
    versions = ServedVersions()
    webhooks = WebhookAdmission(objects, versions, caller, WebhookConditions(authorizer), clock, registry)
    policies = PolicyAdmission(objects, versions, authorizer, registry)
    observers = Observers(storages, [rbac, graph, flows, *webhooks.observers, *policies.observers])
    observers.load()
    beginning = BootstrapSettings(
        client_ca_pem=trust.client_ca_pem,
        front_proxy_ca_pem=trust.front_proxy_ca_pem,
        front_proxy_names=trust.front_proxy_names,
        service_networks=tuple(map(str, settings.service_networks)),
        states=states,
        unstable=unstable_versions((each.group, each.version) for each in table),
    )
    await write_bootstrap_objects(storages, objects, beginning, clock)

    tracking = LegacyTracking(clock)
    account_tokens = ServiceAccountTokens(
        trust.signing_keys,
        objects,
        clock,
        issuers=issuers,
        api_audiences=audiences,
        legacy_token_used=tracking.used,
    )
    tokens: list[TokenAuthenticator | RemoteTokenAuthenticator] = [
        StaticTokens({**trust.static_tokens, **guard.static_tokens}, audiences),
        BootstrapTokens(objects, clock, audiences),
        account_tokens,
        *guard.tokens,
    ]
    authenticators: list[Authenticator] = []
    proxies: RequestHeaders | None = None
    if trust.front_proxy_authorities:
        names = trust.front_proxy_names
        proxies = RequestHeaders(trust.front_proxy_authorities, clock, allowed_names=names)
        authenticators.append(proxies)
    certificates = ClientCertificates(trust.client_authorities, clock) if trust.client_authorities else None
    if certificates is not None:
        authenticators.append(certificates)
    known_tokens = TokenUnion(tokens)
    authenticators.append(BearerTokens(known_tokens, audiences, clock))

    check = proxies.check if proxies is not None else None
    identify = RequestAuthenticator(authenticators, before_anonymous=check)
    guard.attach(identify)

    answers: list[Plugin] = []
    if states["PodCertificateRequest"]:
        from haven.apiserver.admission.podcertificates import PodCertificateAnswers

        answers.append(PodCertificateAnswers(authorizer, clock))
    recorded = RecordedObjects(storages, clock)
    manifests: list[Manifests] = []
    admission = AdmissionChain(
        make_plugins(
            Parts(
                recorded,
                authorizer,
                clock,
                chance,
                webhooks,
                policies,
                AdmissionSettings(
                    settings.enable_admission_plugins,
                    settings.disable_admission_plugins,
                    read_configuration(settings.admission_control_config_file),
                    states,
                    settings.default_not_ready_toleration_seconds,
                    settings.default_unreachable_toleration_seconds,
                ),
                create_namespace=lambda namespace: server.local_client().create(
                    scheme.resource_of(type(namespace)), namespace
                ),
                post_of=lambda path, pause: retrying(
                    caller,
                    webhook_target(path),
                    clock,
                    chance,
                    timeout_seconds=WEBHOOK_SECONDS,
                    first_seconds=pause,
                ),
                unrecorded=objects,
                manifests=manifests,
                registry=registry,
            )
        ),
        guards=[RoleWrites(EscalationGuard(rbac, authorizer)), SigningRequests(clock), AdminAccess(objects), *answers],
        registry=registry,
    )
    storages.when_damaged(
        lambda: admission.require(
            UnreadableConfiguration(lambda: all(not storages.of(one).cache.damaged for one in CONFIGURATIONS))
        )
    )
    fields = FieldManagement(clock)
    reading = Reading(store, clock, storages.meter)
    writing = Writing(
        storages,
        admission,
        authorizer,
        fields,
        clock,
        chance,
        recorded,
        event_ttl_seconds=settings.event_ttl_seconds,
    )
    handlers = Handlers(
        reading=reading,
        watching=Watching(
            store,
            clock,
            chance,
            timeout_seconds_min=settings.watch_timeout_seconds_min,
            bookmark_interval_seconds=settings.bookmark_interval_seconds,
            registry=registry,
        ),
        writing=writing,
        patching=Patching(writing),
        deletion=Deletion(
            storages,
            admission,
            reading,
            writing,
            clock,
            UnreadDeletion(storages, authorizer) if states["AllowUnsafeMalformedObjectDeletion"] else None,
        ),
    )
    resources = Resources(handlers)
    components = Components(stored(store_check(store)))
    versions.endpoints = resources.endpoints
    versions.changes = lambda: resources.changes
    for endpoint in served:
        resources.add(endpoint)
    add_handlers(
        resources,
        storages,
        admission,
        clock,
        access=AccessReviews(authorizer),
        tokens=TokenReviews(known_tokens, identify, audiences),
        requests=TokenRequests(
            trust.signing_keys,
            objects,
            clock,
            issuer=trust.issuer,
            api_audiences=audiences,
            expiration_seconds_max=int(settings.security.service_account_max_token_expiration_seconds),
            extend_expiration=settings.security.service_account_extend_token_expiration,
        ),
        parts=components.parts,
    )
    writing.hooks[GroupResource("", "services")] = ServiceAllocation(
        storages,
        clock,
        chance,
        networks=settings.service_networks,
        node_ports=settings.service_node_ports,
        registry=registry,
    )
    streaming = Streaming(objects, admission, trust.nodes or NodeBackends(), StreamMeter(registry))
    resources.subresources.update(streaming.handlers())
    audit = make_audit(settings.security, caller, clock)
    metrics = Metrics(registry)
    FlowMetrics(registry, flows, clock)
    decisions = SecurityMetrics(registry, audit, guard, encryption, identity=socket.gethostname())
    AuthenticationMetrics(
        registry,
        known_tokens.statistics,
        account_tokens.uses,
        guard.issuers,
        certificates.remaining if certificates is not None else None,
        identity=socket.gethostname(),
    )
    if manifests:
        ManifestMetrics(registry, manifests, identity=socket.gethostname())
    resources.deprecated.show(registry)
    shutdown = Shutdown()
    documents = document_paths(
        shutdown=shutdown,
        resources=table,
        metrics=metrics,
        storages=storages,
        keys=trust.signing_keys,
        issuer=trust.issuer,
        server_address=":".join(
            (settings.advertise_address or settings.pod_side_address or settings.host, str(settings.port))
        ),
        more_checks=encryption.checks() if encryption is not None else {},
    )
    ServerFacts(
        registry,
        states,
        storages,
        history_max=settings.watch_history_events_max,
        node_ports=len(settings.service_node_ports),
        discovery=documents.discovery,
        graph=graph,
    )
    storages.after_change.append(IssuedCertificates(registry).follow)
    chain = Chain(
        resources=resources,
        identify=identify,
        authorizer=authorizer,
        paths=documents.paths,
        clock=clock,
        metrics=metrics,
        auditor=audit.auditor if audit is not None else None,
        decisions=decisions,
        flows=flows if settings.priority_and_fairness else None,
        requests_in_flight_max=settings.requests_in_flight_max,
        mutating_requests_in_flight_max=settings.mutating_requests_in_flight_max,
        write_timeout_seconds=min(settings.write_timeout_seconds, settings.request_timeout_seconds or float("inf")),
        catch_up=store.catch_up if store.shared else None,
    )
    outgoing = OutgoingMeter(registry, lambda: f"{settings.host}:{server.port}")
    chain.outgoing = caller.meter = outgoing
    chain.paths |= dump_paths(flows, clock)
    if states["ComponentFlagz"]:
        chain.paths["/flagz"] = flagz(values_of(settings))
    if states["ComponentStatusz"]:
        shown = ("/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version")
        chain.paths["/statusz"] = statusz(KUBERNETES_VERSION[1:], shown, time.time())
    documents.discovery.list_paths({"/flagz", "/statusz"} & chain.paths.keys())
    if settings.profiling:
        chain.paths |= debug_paths()
    custom = CustomResources(
        storages,
        resources,
        chain.paths,
        documents.discovery,
        documents.openapi,
        WebhookReviews(caller),
        clock,
        dict(Scales(writing, clock, CustomScaleFields()).handlers()),
        registry,
    )
    await custom.load()
    definitions = resources.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    assert definitions is not None
    keeper = DefinitionKeeper(custom, storages, writing, handlers.deletion, definitions, clock, ADMIN)
    custom.after_change.append(keeper.notice)
    extensions = ExtensionServers(
        caller.services, trust.proxy_client, request_seconds=settings.request_timeout_seconds or REQUEST_SECONDS
    )
    extensions.meter = outgoing
    aggregator = Aggregator(
        objects,
        storages,
        extensions,
        documents.discovery,
        documents.openapi,
        LocalClient(chain, resources, ADMIN, agent="kube-apiserver"),
        clock,
        registry,
    )
    aggregator.load()
    chain.delegate = aggregator.handler
    handle: PathHandler = chain.handle
    if states["CBORServingAndStorage"]:
        handle = speaking_cbor(handle)
    tracing = _tracing(settings)
    if tracing is not None:
        storages.span = caller.span = tracing.span
        caller.more_headers = tracing.headers
        handle = tracing.following(handle)
    if settings.cors_allowed_origins:
        handle = allowing_origins(handle, settings.cors_allowed_origins)
    if settings.strict_transport_security_directives and trust.tls is not None:
        handle = insisting_on_tls(handle, settings.strict_transport_security_directives)
    http = HttpServer(
        handle,
        body_bytes_max=settings.body_bytes_max,
        gzip_bytes_min=settings.gzip_bytes_min,
        tls=trust.tls,
        is_streamed=lambda target: is_proxy_target(target) or aggregator.is_target(target),
    )
    registry.add_collector(
        lambda: registry["apiserver_tls_handshake_errors_total"].set(
            (), http.handshakes.failed(asyncio.get_running_loop().time())
        )
    )
    server = ApiServer(
        settings=settings,
        store=store,
        storages=storages,
        resources=resources,
        chain=chain,
        http=http,
        streaming=streaming,
        objects=objects,
        caller=caller,
        audit=audit,
        guard=guard,
        flows=flows,
        extensions=extensions,
        components=components,
        shutdown=shutdown,
        metrics=registry,
        tracing=tracing,
        handle=handle,
        clock=clock,
        ready_seconds=time.monotonic() - began,
    )
    server.keep(storages.keep_mending(clock), "unreadable-objects")
    server.keep(flows.run(objects), "flow-schemas")
    server.keep(keep_flow_objects(storages, objects, beginning, clock), "flow-objects")
    server.keep(keeper.run(), "definitions")
    if encryption is not None:
        server.keep(encryption.run(), "encryption")
    for folder in manifests:
        server.keep(folder.follow(), f"manifests of {folder.plugin}")
    for file in guard.followed.values():
        server.keep(file.follow(), file.path.name)
    for work in audit.works if audit is not None else ():
        server.keep(work, "audit")
    server.keep(aggregator.run(), "aggregation")
    if listen:
        server.keep(tracking.run(server.local_client()), "legacy-tokens")
        await server.listen()
    _log.info("The API server is ready.", port=server.port, seconds=round(time.monotonic() - began, 3))
    return server


def _metrics_switches(settings: Settings) -> MetricsSwitches:
    allowed: dict[str, set[str]] = {}
    for text in settings.allow_metric_labels:
        name, _, value = text.partition("=")
        allowed.setdefault(name, set()).add(value)
    return MetricsSwitches(
        settings.show_hidden_metrics_for_version,
        settings.disabled_metrics,
        {name: frozenset(values) for name, values in allowed.items()},
    )


def _tracing(settings: Settings) -> Tracing | None:
    path = settings.security.tracing_config_file
    return Tracing(read_tracing(path)) if path else None


def _encryption(settings: Settings, clock: Clock, registry: Registry) -> Encryption | None:
    path = settings.security.encryption_provider_config
    if not path:
        return None
    from haven.apiserver.encryption.meter import EncryptionMeter
    from haven.apiserver.encryption.runner import Encryption

    reload = settings.security.encryption_provider_config_automatic_reload
    meter = EncryptionMeter(registry, socket.gethostname())
    encryption = Encryption(path, clock, automatic_reload=reload, meter=meter)
    encryption.load()
    return encryption


@contextlib.asynccontextmanager
async def running(settings: Settings, store: Store, trust: Trust, **rest: Any) -> AsyncIterator[ApiServer]:
    """Start a server for the length of a block."""
    server = await start(settings, store, trust, **rest)
    try:
        yield server
    finally:
        await server.stop()
