"""A program of a user that the API server calls: an admission webhook and an extension API server in one.

Run as `python extension.py CERTIFICATE KEY FRONT_PROXY_CA HOST PORT`; it prints a line when it listens.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from typing import Any

from aiohttp import web

GROUP = "wardle.example.com"
PATH = f"/apis/{GROUP}/v1alpha1"


def judge(asked: dict[str, Any], path: str) -> dict[str, Any]:
    if path == "/mutate":
        patch = [{"op": "add", "path": "/metadata/labels", "value": {"touched": "yes"}}]
        data = base64.b64encode(json.dumps(patch).encode()).decode()
        return {"allowed": True, "patch": data, "patchType": "JSONPatch"}
    if "deny" in (asked["object"].get("data") or {}):
        return {"allowed": False, "status": {"message": "as it asks for it", "code": 403, "reason": "Forbidden"}}
    return {"allowed": True, "warnings": ["seen"]}


async def serve(request: web.Request) -> web.StreamResponse:
    if request.method == "POST" and request.path in ("/mutate", "/validate"):
        review = await request.json()
        response = {"uid": review["request"]["uid"], **judge(review["request"], request.path)}
        return web.json_response({**review, "response": response, "request": None})
    if request.path == PATH:
        resource = {"name": "flunders", "namespaced": True, "kind": "Flunder", "verbs": ["get"]}
        body = {"kind": "APIResourceList", "groupVersion": f"{GROUP}/v1alpha1", "resources": [resource]}
        return web.json_response(body)
    if request.path.startswith(f"{PATH}/namespaces/"):
        peer = request.transport.get_extra_info("peercert") if request.transport else None
        subject = dict(part[0] for part in (peer or {}).get("subject", ()))
        metadata = {"name": "f", "annotations": {"user": request.headers["X-Remote-User"], **subject}}
        return web.json_response({"kind": "Flunder", "apiVersion": f"{GROUP}/v1alpha1", "metadata": metadata})
    return web.json_response({}, status=404)


async def main() -> None:
    certificate, key, authority, host, port = sys.argv[1:]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.load_verify_locations(authority)
    tls.verify_mode = ssl.CERT_OPTIONAL  # Webhooks are called without a certificate.
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, host, int(port), ssl_context=tls).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
