"""Webhooks answered by Python functions: a real HTTPS server, registered by real configurations.

The API server calls them as it calls any webhook, over TLS with the cluster's authority. Synchronous functions run in
threads, so that they may use the cluster.
Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import asyncio
import base64
import copy
import inspect
import json
import logging
import os
import ssl
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from haven.deferred import deferred

if TYPE_CHECKING:
    from aiohttp import web
else:
    web = deferred("aiohttp.web")

__all__ = ["Admission", "Denied", "Webhooks", "admission_configuration", "json_patch"]

_log = logging.getLogger(__name__)
Tree = dict[str, Any]
Answer = Callable[[Tree], Awaitable[Tree]]
"""Takes a review's request and returns its response."""


class Denied(Exception):
    """What a webhook's function raises to refuse a request: `raise Denied("no", code=403)`."""

    def __init__(self, message: str, *, code: int = 403, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason


@dataclass
class Admission:
    """What is to be admitted. A mutating function may change `object`, which is its own."""

    operation: str
    object: Tree
    old_object: Tree
    kind: str
    resource: str
    subresource: str
    namespace: str
    name: str
    user: str
    groups: tuple[str, ...]
    dry_run: bool
    request: Tree
    """All of the AdmissionReview's request."""
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Tree) -> Admission:
        """Read a request."""
        user = request.get("userInfo") or {}
        return cls(
            operation=request["operation"],
            object=copy.deepcopy(request.get("object") or {}),
            old_object=request.get("oldObject") or {},
            kind=request["kind"]["kind"],
            resource=request["resource"]["resource"],
            subresource=request.get("subResource", ""),
            namespace=request.get("namespace", ""),
            name=request.get("name", ""),
            user=user.get("username", ""),
            groups=tuple(user.get("groups") or ()),
            dry_run=bool(request.get("dryRun")),
            request=request,
        )

    def warn(self, text: str) -> None:
        """Let the client see a warning."""
        self.warnings.append(text)

    def annotate(self, key: str, value: str) -> None:
        """Add to the audit log."""
        self.annotations[key] = value


class Webhooks:
    """The server of one cluster's webhooks. It listens from the first one on."""

    def __init__(self, tls: ssl.SSLContext, authority: bytes) -> None:
        self._tls = tls
        self._authority = authority
        self._answers: dict[str, tuple[str, Answer]] = {}
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._port = 0
        self.under_way = 0

    async def add(self, path: str, kind: str, answer: Answer) -> Tree:
        """Answer reviews of a kind (AdmissionReview, ConversionReview) at a path; return the clientConfig."""
        if self._server is None:
            self._server = web.Server(self._handle)
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._server, "127.0.0.1", 0, ssl=self._tls)
            self._port = int(self._listener.sockets[0].getsockname()[1])
        self._answers[path] = (kind, answer)
        return {
            "url": f"https://127.0.0.1:{self._port}{path}",
            "caBundle": base64.b64encode(self._authority).decode(),
        }

    async def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            await self._server.shutdown(0.1)

    async def _handle(self, raw: web.BaseRequest) -> web.Response:
        known = self._answers.get(raw.path)
        if known is None:
            return web.Response(status=404, text="there is no such webhook")
        kind, answer = known
        self.under_way += 1
        try:
            review = json.loads(await raw.read())
            response = await answer(review["request"])
        except Exception as error:
            _log.exception("a webhook's function failed")
            return web.Response(status=500, text=_blame(error))
        finally:
            self.under_way -= 1
        document = {"apiVersion": review["apiVersion"], "kind": kind, "response": response}
        return web.json_response(document)


def _blame(error: Exception) -> str:
    """Return one line on what a test's function raised, and where."""
    *_, last = traceback.extract_tb(error.__traceback__)
    text = traceback.format_exception_only(error)[-1].strip()
    return f"the test's function raised {text} ({os.path.basename(last.filename)}, line {last.lineno})"


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a test's function, in a thread if it is synchronous."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    result = await asyncio.to_thread(function, *arguments)
    return await result if inspect.isawaitable(result) else result


def admission_answer(function: Callable[[Admission], Any], *, mutates: bool) -> Answer:
    """Return what answers admission reviews with a function.

    It returns None or True to allow, False or a text to deny, or raises Denied; a mutating one changes the object in
    place, or returns another object or a JSON patch.
    """

    async def answer(request: Tree) -> Tree:
        admission = Admission.of(request)
        response: Tree = {"uid": request["uid"], "allowed": True}
        try:
            said = await call(function, admission)
            if said is False:
                raise Denied("denied by the test's webhook")
            if isinstance(said, str):
                raise Denied(said)
        except Denied as denied:
            response["allowed"] = False
            response["status"] = {"code": denied.code, "message": denied.message}
            if denied.reason:
                response["status"]["reason"] = denied.reason
        else:
            if mutates:
                patch = said if isinstance(said, list) else None
                after = said if isinstance(said, dict) else admission.object
                if patch is None:
                    patch = json_patch(request.get("object") or {}, after)
                if patch:
                    response["patchType"] = "JSONPatch"
                    response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
        if admission.warnings:
            response["warnings"] = admission.warnings
        if admission.annotations:
            response["auditAnnotations"] = admission.annotations
        return response

    return answer


def conversion_answer(function: Callable[[Tree, str], Any]) -> Answer:
    """Return what answers conversion reviews: the function gets an object and the wanted apiVersion."""

    async def answer(request: Tree) -> Tree:
        wanted = request["desiredAPIVersion"]
        converted: list[Tree] = []
        try:
            for obj in request["objects"]:
                own = copy.deepcopy(obj)
                result = await call(function, own, wanted)
                converted.append({**(result if isinstance(result, dict) else own), "apiVersion": wanted})
        except Denied as denied:
            failed = {"status": "Failure", "message": denied.message}
            return {"uid": request["uid"], "result": failed, "convertedObjects": []}
        return {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}

    return answer


def admission_configuration(
    name: str,
    client_config: Tree,
    *,
    mutates: bool,
    rules: Sequence[Tree],
    failure_policy: str,
    timeout_seconds: int,
    side_effects: str,
    more: Mapping[str, Any],
) -> Tree:
    """Return the configuration that registers a webhook; `more` are further fields, as the API has them."""
    webhook = {
        "name": name if name.count(".") >= 2 else f"{name}.testing.haven.local",
        "clientConfig": client_config,
        "rules": list(rules),
        "admissionReviewVersions": ["v1"],
        "sideEffects": side_effects,
        "failurePolicy": failure_policy,
        "timeoutSeconds": timeout_seconds,
        **more,
    }
    kind = "MutatingWebhookConfiguration" if mutates else "ValidatingWebhookConfiguration"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": [webhook],
    }


def json_patch(before: Any, after: Any, path: str = "") -> list[Tree]:
    """Return the JSON patch from one tree to another; lists that differ are replaced whole."""
    if before == after:
        return []
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [{"op": "replace", "path": path, "value": after}]
    patch: list[Tree] = []
    for key in before:
        place = f"{path}/{_escaped(key)}"
        if key not in after:
            patch.append({"op": "remove", "path": place})
        else:
            patch += json_patch(before[key], after[key], place)
    patch += [
        {"op": "add", "path": f"{path}/{_escaped(key)}", "value": value}
        for key, value in after.items()
        if key not in before
    ]
    return patch


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
