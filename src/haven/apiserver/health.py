"""/livez, /readyz, /healthz: whether the server is alive and ready, check by check.

Source: https://kubernetes.io/docs/reference/using-api/health-checks/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from haven.apiserver.chain import PathHandler
from haven.apiserver.request import Request, Response

__all__ = ["Check", "health_paths"]

Check = Callable[[], Awaitable[str]]
"""Returns "" if all is well, else what is wrong."""

_TEXT = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}


async def _ping() -> str:
    return ""


def health_paths(checks: Mapping[str, Mapping[str, Check]]) -> dict[str, PathHandler]:
    """Return the handlers of each endpoint (livez, readyz, healthz) and of each of its checks."""
    paths: dict[str, PathHandler] = {}
    for endpoint, own in checks.items():
        every = {"ping": _ping, **own}
        paths[f"/{endpoint}"] = _all(endpoint, every)
        for name, check in every.items():
            paths[f"/{endpoint}/{name}"] = _one(name, check)
    return paths


def _all(endpoint: str, checks: Mapping[str, Check]) -> PathHandler:
    async def answer(request: Request) -> Response:
        excluded = set(request.query.get("exclude", ()))
        lines: list[str] = []
        failed = []
        for name, check in checks.items():
            if name in excluded:
                excluded.discard(name)
                lines.append(f"[+]{name} excluded: ok\n")
                continue
            problem = await check()
            if problem:
                failed.append(name)
                lines.append(f"[-]{name} failed: reason withheld\n")
            else:
                lines.append(f"[+]{name} ok\n")
        if excluded:
            names = ", ".join(f'"{name}"' for name in sorted(excluded))
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}\n")
        if failed:
            text = "".join(lines) + f"{endpoint} check failed\n"
            return Response(500, dict(_TEXT), text.encode())
        if "verbose" not in request.query:
            return Response(200, dict(_TEXT), b"ok")
        return Response(200, dict(_TEXT), ("".join(lines) + f"{endpoint} check passed\n").encode())

    return answer


def _one(name: str, check: Check) -> PathHandler:
    async def answer(_: Request) -> Response:
        problem = await check()
        if problem:
            return Response(500, dict(_TEXT), f"internal server error: {problem}\n".encode())
        return Response(200, dict(_TEXT), b"ok")

    answer.__name__ = f"check_{name}"
    return answer
