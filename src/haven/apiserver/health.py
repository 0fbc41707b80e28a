"""/livez, /readyz, /healthz: whether the server is alive and ready, check by check.

Source: https://kubernetes.io/docs/reference/using-api/health-checks/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files

from haven.apiserver.chain import PathHandler
from haven.apiserver.request import Request, Response
from haven.metrics.exposition import expose
from haven.metrics.families import Registry, read_table

__all__ = ["Check", "CheckMeter", "health_paths"]

Check = Callable[[], Awaitable[str]]
"""Returns "" if all is well, else what is wrong."""

_TEXT = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}


class CheckMeter:
    """Counts how checks go, for /metrics/slis."""

    def __init__(self) -> None:
        table = files("haven.apiserver").joinpath("metrics.tsv").read_text(encoding="utf-8")
        self.registry = Registry(one for one in read_table(table) if one.name.startswith("kubernetes_healthcheck"))

    def counting(self, endpoint: str, name: str, check: Check) -> Check:
        """Return the same check, counted."""
        last = self.registry["kubernetes_healthcheck"]
        total = self.registry["kubernetes_healthchecks_total"]

        async def counted() -> str:
            problem = await check()
            last.child(name, endpoint).value = 0 if problem else 1
            total.child(name, "error" if problem else "success", endpoint).value += 1
            return problem

        return counted

    async def show(self, request: Request) -> Response:
        """Answer with the counts."""
        content_type, body = expose(self.registry.families(), request.headers.get("accept", ""))
        return Response(200, {"Content-Type": content_type}, body)


async def _ping() -> str:
    return ""


def health_paths(checks: Mapping[str, Mapping[str, Check]], meter: CheckMeter | None = None) -> dict[str, PathHandler]:
    """Return the handlers of each endpoint (livez, readyz, healthz) and of each of its checks."""
    paths: dict[str, PathHandler] = {}
    for endpoint, own in checks.items():
        every = {"ping": _ping, **own}
        if meter is not None:
            every = {name: meter.counting(endpoint, name, check) for name, check in every.items()}
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
            names = ",".join(f'"{name}"' for name in sorted(excluded))
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
        return Response(200, {"Content-Type": _TEXT["Content-Type"]}, b"ok")

    answer.__name__ = f"check_{name}"
    return answer
