"""Pages for whoever operates the server: /flagz, /statusz, and profiles of the running process below /debug.

Flags and status come as text, or as objects of config.k8s.io/v1beta1 when asked for. Profiles are Python's own:
/debug/pprof/profile?seconds=N tells where time goes, /debug/pprof/tasks what every task waits for, and
/debug/pprof/threads where every thread is.
Source: https://kubernetes.io/docs/reference/instrumentation/zpages/
"""

from __future__ import annotations

import asyncio
import cProfile
import io
import platform
import pstats
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from haven.apimachinery import apierrors
from haven.apimachinery.codecs import yaml
from haven.apimachinery.codecs.negotiate import JSON, YAML, Answer, Offer, is_pretty, negotiate
from haven.apiserver.chain import PathHandler
from haven.apiserver.request import Request, Response

__all__ = ["debug_paths", "flagz", "statusz"]

_PLAIN = {"Content-Type": "text/plain; charset=utf-8"}
_TEXT = {**_PLAIN, "X-Content-Type-Options": "nosniff"}
_VERSIONS = ("config.k8s.io/v1alpha1", "config.k8s.io/v1beta1")
_DEPRECATED = ("v1alpha1",)
_FLAGZ, _STATUSZ = (
    Offer((JSON, YAML, "text/plain"), conversions=tuple((kind, version) for version in _VERSIONS), only_as=(JSON, YAML))
    for kind in ("Flagz", "Statusz")
)
_WARNING = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is "
    "for debugging purposes only.\n"
)
_PROFILE_SECONDS_MAX = 60.0
_LINES = 60


def flagz(values: Mapping[str, Any]) -> PathHandler:
    """Return the page of all flags and their values."""

    async def answer(request: Request) -> Response:
        shown = {name: _shown(value) for name, value in sorted(values.items())}
        form = _form(request, _FLAGZ)
        if form.kind:
            return _object(request, form, {"flags": shown})
        lines = "".join(f"{name}={value}\n" for name, value in shown.items())
        return Response(200, dict(_PLAIN), f"\napiserver flagz\n{_WARNING}{lines}".encode())

    return answer


def statusz(version: str, paths: Sequence[str], started: float) -> PathHandler:
    """Return the page that says how long the server has been up, what it is, and where to look further."""

    async def answer(request: Request) -> Response:
        up = int(time.time() - started)
        form = _form(request, _STATUSZ)
        if form.kind:
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
            facts = {
                "startTime": since,
                "uptimeSeconds": up,
                "goVersion": f"python{platform.python_version()}",
                "binaryVersion": version,
                "emulationVersion": version.rpartition(".")[0],
                "paths": list(paths),
            }
            return _object(request, form, facts)
        since = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(started))
        hours, rest = divmod(up, 3600)
        text = (
            f"\napiserver statusz\n{_WARNING}\nStarted= {since}\n"
            f"Up= {hours} hr {rest // 60:02} min {rest % 60:02} sec\n"
            f"Python version= {platform.python_version()}\nBinary version= {version}\n"
            f"Emulation version= {version.rpartition('.')[0]}\nPaths= {' '.join(paths)}\n"
        )
        return Response(200, dict(_PLAIN), text.encode())

    return answer


def _form(request: Request, offer: Offer) -> Answer:
    """Return the form that a client wants; raise NotAcceptable."""
    accept = request.headers.get("accept", "").strip()
    return negotiate(accept, offer) if accept else Answer("text/plain")


def _object(request: Request, form: Answer, fields: Mapping[str, Any]) -> Response:
    group, _, version = form.group_version.partition("/")
    headers = {"Content-Type": f"{form.media_type};g={group};v={version};as={form.kind}"}
    if version in _DEPRECATED:
        text = f"This version of the {form.kind.lower()} endpoint is deprecated. Please use a newer version."
        request.warnings.append(text)
    head = {"kind": form.kind, "apiVersion": form.group_version, "metadata": {"name": "apiserver"}}
    data = orjson.dumps(head | dict(fields))
    if form.media_type == YAML:
        return Response(200, headers, yaml.write(data))
    if form.pretty or is_pretty(request.get("pretty"), request.headers.get("user-agent", "")):
        return Response(200, headers, orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2))
    return Response(200, headers, data + b"\n")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{','.join(map(str, value))}]"
    return str(value)


def debug_paths() -> dict[str, PathHandler]:
    """Return the pages below /debug/pprof."""
    return {
        "/debug/pprof": _to_index,
        "/debug/pprof/": _index,
        "/debug/pprof/profile": _profile,
        "/debug/pprof/tasks": _tasks,
        "/debug/pprof/threads": _threads,
    }


async def _to_index(_: Request) -> Response:
    headers = {"Content-Type": "text/html; charset=utf-8", "Location": "/debug/pprof/"}
    return Response(302, headers, b'<a href="/debug/pprof/">Found</a>.\n\n')


async def _index(request: Request) -> Response:
    if request.path != "/debug/pprof/":
        return Response(404, dict(_TEXT), b"Unknown profile\n")
    text = "profile?seconds=10  where time goes\ntasks  what every task waits for\nthreads  where every thread is\n"
    return Response(200, dict(_TEXT), text.encode())


async def _profile(request: Request) -> Response:
    try:
        seconds = float(request.get("seconds") or 10)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= _PROFILE_SECONDS_MAX:
        text = f"seconds: want a number above 0 and at most {_PROFILE_SECONDS_MAX:.0f}"
        raise apierrors.BadRequest(text)
    profile = cProfile.Profile()
    try:
        profile.enable()
    except ValueError:
        raise apierrors.BadRequest("another profile is being taken: wait until it is done") from None
    try:
        await asyncio.sleep(seconds)
    finally:
        profile.disable()
    out = io.StringIO()
    pstats.Stats(profile, stream=out).sort_stats("cumulative").print_stats(_LINES)
    return Response(200, dict(_TEXT), out.getvalue().encode())


async def _tasks(_: Request) -> Response:
    out = io.StringIO()
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        task.print_stack(limit=4, file=out)
    return Response(200, dict(_TEXT), out.getvalue().encode())


async def _threads(_: Request) -> Response:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}\n")
    return Response(200, dict(_TEXT), "".join(parts).encode())
