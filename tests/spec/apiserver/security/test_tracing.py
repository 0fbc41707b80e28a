"""Traces: whoever collects spans is sent those of requests, of the store and of webhooks, and all hang together."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages

from haven.apiserver.configfiles import ConfigError
from haven.apiserver.request import Request
from haven.apiserver.tracing import Tracing, read_tracing

from .conftest import Serve

EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.service = ""
        self.port = 0

    async def export(self, request: Any, _context: Any) -> Any:
        for resource in request.resource_spans:
            facts = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.service = facts["service.name"]
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return messages.ExportTraceServiceResponse()

    def named(self, name: str) -> Any:
        return next(span for span in self.spans if span.name == name)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        found.export,
        request_deserializer=messages.ExportTraceServiceRequest.FromString,
        response_serializer=messages.ExportTraceServiceResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(EXPORT, {"Export": handler}),))
    found.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield found
    await server.stop(None)


def configured(tmp_path: Path, text: str) -> str:
    path = tmp_path / "tracing.yaml"
    path.write_text(f"apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n{text}\n")
    return str(path)


def a_request(method: str, path: str, body: bytes = b"", **headers: str) -> Request:
    sent = {"authorization": "Bearer root", "content-type": "application/json", "user-agent": "spec/1", **headers}
    return Request(method, path, {}, sent, body=body, uri=path)


async def test_a_request_is_followed_down_to_the_store(serve: Serve, collector: Collector, tmp_path: Path) -> None:
    text = f"endpoint: 127.0.0.1:{collector.port}\nsamplingRatePerMillion: 1000000"
    server = (await serve(tracing_config_file=configured(tmp_path, text))).server
    body = b'{"metadata":{"name":"a"}}'
    created = await server.handle(a_request("POST", "/api/v1/namespaces/default/configmaps", body, traceparent=PARENT))

    await server.stop()

    assert created.status == 201
    assert collector.service == "apiserver"
    outer, verb, store = collector.named("KubernetesAPI"), collector.named("Create"), collector.named("Create etcd3")
    assert outer.trace_id.hex() == PARENT[3:35]
    assert outer.parent_span_id.hex() == PARENT[36:52]
    assert (verb.parent_span_id, store.parent_span_id) == (outer.span_id, verb.span_id)
    shown = {one.key: one.value.string_value or one.value.int_value for one in outer.attributes}
    assert (shown["http.method"], shown["http.status_code"]) == ("POST", 201)


async def test_only_requests_that_somebody_follows_are_sent_without_a_rate(
    serve: Serve, collector: Collector, tmp_path: Path
) -> None:
    path = configured(tmp_path, f"endpoint: 127.0.0.1:{collector.port}")
    server = (await serve(tracing_config_file=path)).server
    seen: list[str] = []

    async def watching(request: Request) -> Any:
        seen.append(request.headers.get("traceparent", ""))
        return await server.chain.handle(request)

    assert server._tracing is not None
    handle = server._tracing.following(watching)
    await handle(a_request("GET", "/api/v1/namespaces/default"))
    await handle(a_request("GET", "/api/v1/namespaces/default", traceparent=PARENT))
    await server.stop()

    assert [span.name for span in collector.spans] == ["Get", "KubernetesAPI"]
    assert seen[0] == ""
    assert seen[1][:36] == PARENT[:36]
    assert seen[1][36:52] == collector.named("Get").span_id.hex()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("samplingRatePerMillion: -1", "sampling rate must be positive"),
        ("samplingRatePerMillion: 1000001", "must be less than or equal to one million"),
        ("endpoint: http://localhost:1", "unsupported scheme: http"),
        ("sampling: 1", "failed to read tracing config: strict decoding error"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_tracing(configured(tmp_path, text))


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(ConfigError, match=r"pip install 'haven-k8s\[tracing\]'"):
        Tracing(read_tracing(configured(tmp_path, "")))
