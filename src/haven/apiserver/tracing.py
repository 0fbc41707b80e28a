"""Traces of requests: --tracing-config-file names who is told, over OTLP and gRPC, and how many requests are followed.

A request whose sender follows it (a sampled `traceparent` header) is always followed. The libraries that send spans are
an extra of the distribution and imported only when this is configured: without, nothing of this costs anything.
Source: KEP-647, https://kubernetes.io/docs/concepts/cluster-administration/system-traces/ and
https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haven.apimachinery.goformat import quote
from haven.apiserver.configfiles import ConfigError, Document, read_document
from haven.apiserver.request import Request, Response
from haven.apiserver.requestinfo import MalformedPath, resolve

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Spans", "Tracing", "TracingConfiguration", "no_span", "read_tracing"]

Handle = Callable[[Request], Awaitable[Response]]
Attributes = Mapping[str, str | int | bool]
Spans = Callable[[str, Attributes], AbstractContextManager[None]]
"""Opens a span of that name below the present one."""
_GROUP = "apiserver.config.k8s.io"
_VERSIONS = (f"{_GROUP}/v1alpha1", f"{_GROUP}/v1beta1", f"{_GROUP}/v1")
_ENDPOINT = "localhost:4317"
_MILLION = 1_000_000
_SCHEMES = ("dns", "unix", "unix-abstract")
_VERBS = {
    "get": "Get", "list": "List", "watch": "Watch", "create": "Create", "update": "Update", "patch": "Patch",
    "delete": "Delete", "deletecollection": "Delete",
}  # fmt: skip


class TracingConfiguration(Document, frozen=True):
    """What the file says."""

    endpoint: str | None = None
    sampling_rate_per_million: int | None = None


def read_tracing(path: str) -> TracingConfiguration:
    """Return what a file says; raise ConfigError."""
    try:
        found = read_document(Path(path).read_bytes(), TracingConfiguration, "TracingConfiguration", _VERSIONS)
    except (ConfigError, OSError) as error:
        raise ConfigError(f"failed to read tracing config: {error}") from None
    wrong = []
    rate = found.sampling_rate_per_million
    if rate is not None and rate < 0:
        wrong.append(f"samplingRatePerMillion: Invalid value: {rate}: sampling rate must be positive")
    if rate is not None and rate > _MILLION:
        text = "sampling rate per million must be less than or equal to one million"
        wrong.append(f"samplingRatePerMillion: Invalid value: {rate}: {text}")
    scheme, sign, _ = (found.endpoint or "").partition("://")
    if sign and scheme not in _SCHEMES:
        text = f"unsupported scheme: {scheme}.  Options are none, dns, unix, or unix-abstract."
        wrong.append(f"endpoint: Invalid value: {quote(found.endpoint or '')}: {text}")
    if wrong:
        shown = wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]"
        raise ConfigError(f"failed to validate tracing configuration: {shown}")
    return found


def no_span(_name: str, _attributes: Attributes) -> AbstractContextManager[None]:
    """Open nothing."""
    return nullcontext()


class Tracing:
    """Opens spans and sends them away in the background. `close` sends what is left."""

    def __init__(self, configuration: TracingConfiguration) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            text = f"--tracing-config-file needs libraries that are missing ({error.name})"
            raise ConfigError(f"{text}: pip install 'haven-k8s[tracing]'") from error
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._provider = _provider(configuration)
        self._tracer = self._provider.get_tracer("haven")

    def close(self) -> None:
        """Send what is left, and stop."""
        self._provider.shutdown()

    def following(self, handle: Handle) -> Handle:
        """Return the same handler, each of whose requests is a span."""

        async def followed(request: Request) -> Response:
            context = self._propagator.extract(request.headers)
            attributes: dict[str, str | int | bool] = {
                "http.method": request.method,
                "http.target": request.uri or request.path,
                "http.user_agent": request.headers.get("user-agent", ""),
                "net.sock.peer.addr": request.remote,
            }
            kind = self._trace.SpanKind.SERVER
            with self._tracer.start_as_current_span("KubernetesAPI", context, kind, attributes) as span:
                if not span.is_recording():
                    return await handle(request)
                with self.span(*_of_verb(request)):
                    request.headers = {**request.headers, **self.headers()}  # Whoever it is passed on to is below us.
                    response = await handle(request)
                span.set_attribute("http.status_code", response.status)
                if request.audit_id:
                    span.set_attribute("audit-id", request.audit_id)
                if response.status >= 500:
                    span.set_status(self._trace.StatusCode.ERROR)
                return response

        return followed

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[None]:
        """Open a span below the present one; an error that passes through is noted."""
        with self._tracer.start_as_current_span(name, attributes=dict(attributes)):
            yield

    def headers(self) -> dict[str, str]:
        """Return the headers by which somebody who is called learns of the present span."""
        found: dict[str, str] = {}
        self._propagator.inject(found)
        return found


def _of_verb(request: Request) -> tuple[str, Attributes]:
    """Return the name and the attributes of what a request does."""
    try:
        info = resolve(request.method, request.path, request.query)
    except MalformedPath:
        return request.method, {}
    if not info.is_resource:
        return request.method, {"url": info.path}
    attributes = {"resource": info.resource, "apiGroup": info.group, "apiVersion": info.version, "url": info.path}
    return _VERBS.get(info.verb, info.verb.capitalize()), attributes


def _provider(configuration: TracingConfiguration) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased
    except ImportError as error:
        text = f"--tracing-config-file needs libraries that are missing ({error.name})"
        raise ConfigError(f"{text}: pip install 'haven-k8s[tracing]'") from error
    rate = configuration.sampling_rate_per_million or 0
    sampler: Sampler = TraceIdRatioBased(rate / _MILLION) if rate else ALWAYS_OFF
    facts: dict[str, Any] = {"service.name": "apiserver", "service.instance.id": socket.gethostname()}
    provider = TracerProvider(sampler=ParentBased(sampler), resource=Resource.create(facts), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=configuration.endpoint or _ENDPOINT, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
