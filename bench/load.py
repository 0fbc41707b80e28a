"""Requests per second, by wrk: a generator in Python would be the bottleneck."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

from bench.target import Target

__all__ = ["Figure", "changing", "complaint", "creating", "wrk"]


@dataclass(frozen=True)
class Figure:
    """What wrk saw; `cpu_us` is the processor time that the server used for each request."""

    per_second: float
    p99_ms: float
    refused: int = 0
    cpu_us: float = 0.0


def complaint() -> str:
    """Return what to do if wrk is missing, "" if it is there."""
    if shutil.which("wrk") is not None:
        return ""
    return "wrk, which makes the load, is missing: sudo apt-get install wrk (make bench does it for root)"


def wrk(target: Target, path: str, seconds: float, connections: int, script: str = "") -> Figure:
    """Load a path, or what a Lua script asks for."""
    command = ["wrk", "-t2", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    command += ["-H", f"Authorization: Bearer {target.token}", "-H", "User-Agent: bench"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        if script:
            lua.write(script)
            lua.flush()
            command += ["-s", lua.name]
        before = target.cpu_seconds()
        text = subprocess.run([*command, target.url + path], capture_output=True, text=True, check=True).stdout
        used = target.cpu_seconds() - before
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    count = re.search(r"(\d+) requests in", text)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    assert rate is not None, text
    assert count is not None, text
    factor = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    p99 = float(tail.group(1)) * factor[tail.group(2)] if tail else 0.0
    requests = max(1, int(count.group(1)))
    return Figure(float(rate.group(1)), p99, int(bad.group(1)) if bad else 0, used / requests * 1e6)


def creating(path: str, body: dict[str, Any], token: str) -> str:
    """Return a script that posts objects; NAME in the body becomes a name of their own each time."""
    return _script("POST", path, "application/json", body, token, {"NAME": "prefix .. n"})


def changing(method: str, path: str, content_type: str, body: dict[str, Any], token: str, *, names: int) -> str:
    """Return a script that changes objects c0, c1, … (two threads, each half of them).

    NAME becomes the object's name, MARK something that was never there before.
    """
    half = names // 2
    values = {"NAME": f'"c" .. (id * {half} + n % {half})', "MARK": "prefix .. n"}
    return _script(method, path, content_type, body, token, values)


def _script(method: str, path: str, content_type: str, body: dict[str, Any], token: str, values: dict[str, str]) -> str:
    def filled(text: str) -> str:
        parts = re.split("(NAME|MARK)", text)
        return " .. ".join(f"({values[part]})" if part in values else f"[==[{part}]==]" for part in parts)

    return f"""
local counter, n = 0, 0
function setup(thread) thread:set("id", counter); counter = counter + 1 end
function init(args) prefix = "b{secrets.token_hex(4)}-" .. id .. "-" end
local headers = {{["Content-Type"]="{content_type}", ["Authorization"]="Bearer {token}"}}
function request()
  n = n + 1
  return wrk.format("{method}", {filled(path)}, headers, {filled(json.dumps(body, separators=(",", ":")))})
end
"""
