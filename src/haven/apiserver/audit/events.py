"""Audit events: what is known of a request at each of its stages, as audit.k8s.io/v1 has it. Pure.

Source: https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
"""

from __future__ import annotations

import ipaddress
from typing import Any

import orjson

from haven.apimachinery import serialization, times
from haven.apimachinery.apierrors import (
    ApiError,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    UnsupportedMediaType,
)
from haven.apimachinery.codecs import protobuf, yaml
from haven.apimachinery.codecs.negotiate import PROTOBUF
from haven.apimachinery.goformat import quote
from haven.apimachinery.schema.goscalars import write_duration
from haven.apiserver.audit.policy import Level, Stage, Treatment
from haven.apiserver.authorization.interface import NotAllowed
from haven.apiserver.request import Request, Response, UserInfo

__all__ = ["Record", "legacy_line"]

_USER_AGENT_MAX = 1024
_STATUS = b'{"kind":"Status",'
_KIND_BYTES = 64
"""Where an answer says at the latest what kind of object it is."""
_WITHOUT_OBJECT = frozenset({"patch", "delete", "deletecollection"})
_LATENCY_SECONDS_MAX = 0.5
_LATENCIES = {"admit": "mutating-webhook", "validating": "validating-webhook", "queue": "apf-queue-wait"}
_NAMES = {Level.METADATA: "Metadata", Level.REQUEST: "Request", Level.REQUEST_RESPONSE: "RequestResponse"}


class Record:
    """What is written down about one request. Stages of one request share the record; each gives an event."""

    __slots__ = ("_common", "_received", "_request", "_stage_fields", "is_known", "treatment")

    def __init__(self, request: Request, treatment: Treatment, audit_id: str, received: float) -> None:
        info, headers = request.info, request.headers
        agent = headers.get("user-agent", "")
        if len(agent) > _USER_AGENT_MAX:
            agent = agent[:_USER_AGENT_MAX] + "...TRUNCATED"
        self.treatment = treatment
        self.is_known = True
        self._received = received
        self._request = request
        self._common: dict[str, Any] = {
            "auditID": audit_id,
            "requestURI": request.uri or request.path,
            "verb": info.verb,
            "user": _user(request.user),
            "sourceIPs": _sources(request),
            **({"userAgent": agent} if agent else {}),
            "requestReceivedTimestamp": times.format_micro_time(received),
        }
        self._stage_fields: dict[str, Any] = {}
        if info.is_resource:
            self._common["objectRef"] = {
                key: value
                for key, value in (
                    ("resource", info.resource), ("namespace", info.namespace), ("name", info.name),
                    ("apiGroup", info.group), ("apiVersion", info.version), ("subresource", info.subresource),
                )
                if value
            }  # fmt: skip

    def impersonated(self, user: UserInfo, constraint: str) -> None:
        """Note whom the request acts as."""
        self._common["impersonatedUser"] = _user(user)
        if constraint:
            self._common["authenticationMetadata"] = {"impersonationConstraint": constraint}

    @property
    def wants_objects(self) -> bool:
        """Whether what was sent is to be shown."""
        return self.treatment.level >= Level.REQUEST

    def add_request(self) -> None:
        """Note what was sent if that is no object: a patch, or options of a deletion."""
        request = self._request
        if not self.wants_objects or not request.info.is_resource or request.info.verb not in _WITHOUT_OBJECT:
            return
        if not request.body and request.object is None:
            return
        sent = _tree(request.body, request.headers.get("content-type", "")) if request.body else _plain(request.object)
        if isinstance(sent, dict) and request.info.verb != "patch":
            sent = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/__internal"} | {
                key: value for key, value in sent.items() if key not in ("kind", "apiVersion")
            }
        if isinstance(sent, dict | list):
            self._stage_fields["requestObject"] = self._cleaned(sent)

    def add_object(self, obj: Any, api_version: str, kind: str) -> None:
        """Note the object in a request, once it is understood and has its defaults."""
        reference = self._common.get("objectRef")
        metadata = obj.metadata
        if reference is not None:
            for key, value in (
                ("namespace", metadata.namespace), ("name", metadata.name), ("uid", metadata.uid),
                ("resourceVersion", metadata.resource_version),
            ):  # fmt: skip
                if value and key not in reference:
                    reference[key] = value
        if self.wants_objects:
            tree = {"kind": kind, "apiVersion": api_version}
            tree |= {key: value for key, value in _plain(obj).items() if key not in tree}
            self._stage_fields["requestObject"] = self._cleaned(tree)

    def add_response(self, response: Response) -> None:
        """Note what was answered."""
        status: dict[str, Any] = {"metadata": {}, "code": response.status}
        error = response.object
        if isinstance(error, NotAcceptable):  # Nobody could tell the client in a form that it takes.
            self._stage_fields["responseStatus"] = status
            return
        if isinstance(error, ApiError):
            status |= {"status": "Failure", "message": error.message}
            if error.reason:
                status["reason"] = error.reason
            if error.details is not None:
                status["details"] = serialization.to_tree(error.details)
            if _is_unserved(error):
                self._stage_fields.pop("requestObject", None)  # Nobody has read it.
        elif response.body.startswith(_STATUS):
            answer = orjson.loads(response.body)
            status |= {key: answer[key] for key in ("status", "message", "reason", "details") if key in answer}
        self._stage_fields["responseStatus"] = status
        # What is no resource is shown if it is an object nevertheless: a refusal, or what tells of resources.
        wanted = self.treatment.level >= Level.REQUEST_RESPONSE and (
            self._request.info.is_resource or b'"kind"' in response.body[:_KIND_BYTES]
        )
        if wanted and response.stream is None and response.hijack is None:
            if not response.body and response.object is not None and not isinstance(response.object, Exception):
                answered = _plain(response.object)
            else:
                answered = _tree(response.body, response.headers.get("Content-Type", "application/json"))
            if isinstance(answered, dict):
                self._stage_fields["responseObject"] = self._cleaned(answered)

    def add_latency(self, now: float) -> None:
        """Note how long an answer took that took long, and how much of that others did."""
        seconds = now - self._received
        if seconds <= _LATENCY_SECONDS_MAX or self._request.info.verb == "watch":
            return
        delays = self._request.delays or {}
        found = {_LATENCIES[name]: delays[name] for name in _LATENCIES if delays.get(name)} | {"total": seconds}
        for name, spent in found.items():
            self._request.audit_annotations[f"apiserver.latency.k8s.io/{name}"] = write_duration(round(spent * 1e9))

    def close_early(self) -> None:
        """Note that the connection ended before there was an answer."""
        text = "Connection closed early"
        status = {"metadata": {}, "status": "Success", "message": text, "code": 200}
        self._stage_fields["responseStatus"] = status

    def event(self, stage: Stage, now: float) -> dict[str, Any] | None:
        """Return the event of a stage, None if it is not wanted."""
        if stage in self.treatment.omitted:
            return None
        event: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": _NAMES[self.treatment.level],
            "stage": stage.value,
            **self._common,
            **self._stage_fields,
            "stageTimestamp": times.format_micro_time(self._received if stage is Stage.REQUEST_RECEIVED else now),
        }
        annotations = dict(self._request.audit_annotations)
        if self.treatment.level >= Level.REQUEST:
            annotations |= self._request.audit_details
        if annotations:
            event["annotations"] = annotations
        return event

    def _cleaned(self, tree: Any) -> Any:
        if self.treatment.omit_managed_fields and isinstance(tree, dict):
            for item in (tree, *(tree.get("items") or ()), *(row.get("object") for row in tree.get("rows") or ())):
                if isinstance(item, dict) and isinstance(item.get("metadata"), dict):
                    item["metadata"].pop("managedFields", None)
        return tree


def _user(user: UserInfo) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if user.name:
        tree["username"] = user.name
    if user.uid:
        tree["uid"] = user.uid
    if user.groups:
        tree["groups"] = list(user.groups)
    if user.extra:
        tree["extra"] = {key: list(values) for key, values in user.extra.items()}
    return tree


def _sources(request: Request) -> list[str]:
    parts = request.headers.get("x-forwarded-for", "").split(",")
    found = [address for part in parts if (address := _address(part))]
    real = _address(request.headers.get("x-real-ip", ""))
    if real and real not in found:
        found.append(real)
    if request.remote and (not found or found[-1] != request.remote):
        found.append(request.remote)
    return found


def _address(text: str) -> str:
    """Return an address as it is written best, "" if the text is none."""
    if not text or text.isspace():
        return ""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return ""


def _plain(obj: Any) -> Any:
    """Return a typed object of a request in this process as it would have been sent."""
    if isinstance(obj, dict):
        return orjson.loads(orjson.dumps(obj))  # A copy: the object goes on to change.
    return serialization.to_tree(obj)


def _tree(body: bytes, content_type: str) -> Any:
    """Return what a body holds, None if that cannot be told."""
    try:
        media_type = content_type.partition(";")[0].strip()
        if media_type == PROTOBUF:
            framed = protobuf.unframe(body)
            tree = protobuf.decode_message(framed.raw, framed.api_version, framed.kind)
            return {"kind": framed.kind, "apiVersion": framed.api_version, **tree}
        if "yaml" in media_type:
            return yaml.parse(body)[0]
        return orjson.loads(body)
    except (ApiError, protobuf.InvalidProtobuf, yaml.InvalidYAML, orjson.JSONDecodeError):
        return None


def legacy_line(event: dict[str, Any]) -> str:
    """Return an event as one line of the old text format."""
    user, other = event.get("user", {}), event.get("impersonatedUser")
    reference, status = event.get("objectRef", {}), event.get("responseStatus")
    named, acting = user.get("username"), other or {"username": "<self>"}
    fields = (
        ("id", event["auditID"]),
        ("stage", event["stage"]),
        ("ip", (event.get("sourceIPs") or ["<unknown>"])[0]),
        ("method", event["verb"]),
        ("user", named or "<none>"),
        ("groups", _groups(user, "<none>") if named else "<none>"),
        ("as", acting.get("username", "")),
        ("asgroups", _groups(acting, "<lookup>")),
        ("user-agent", event.get("userAgent", "")),
        ("namespace", reference.get("namespace", "<none>")),
        ("uri", event["requestURI"]),
        ("response", "<deferred>" if status is None else str(status.get("code", 0))),
    )
    return f"{event['requestReceivedTimestamp']} AUDIT: " + " ".join(f"{name}={quote(value)}" for name, value in fields)


def _groups(user: dict[str, Any], none: str) -> str:
    return ",".join(map(quote, user.get("groups") or ())) or none


def _is_unserved(error: ApiError) -> bool:
    """Tell whether a request was refused before anything that serves it."""
    if isinstance(error, NotFound):
        return error.details is None or not (error.details.name or error.details.kind)
    if isinstance(error, Invalid):  # Options of a patch are looked at before the patch.
        return error.details is not None and error.details.kind == "PatchOptions"
    return isinstance(error, NotAllowed | MethodNotAllowed | UnsupportedMediaType)
