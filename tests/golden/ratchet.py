"""The ratchet over recorded conversations with upstream: what passed once must pass from then on.

`python tests/golden/ratchet.py` replays every scenario and adds those that pass to passing.txt (it takes a while, as
failing scenarios wait for what does not come); test_golden.py replays the ones in that file.
The recordings lie outside of the repository, in ../shared/golden.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
RECORDINGS = HERE.parents[1].parent / "shared" / "golden"
PASSING = HERE / "passing.txt"


def passing() -> list[str]:
    """Return the scenarios that have to pass, as `file: name`."""
    return PASSING.read_text(encoding="utf-8").splitlines() if PASSING.exists() else []


@contextlib.contextmanager
def control_plane() -> Iterator[tuple[str, str]]:
    """Start a control plane; yield its address and an administrator's token."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="haven-golden-") as data:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "controlplane.py"), data, "0", token], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline().split()
            assert line[:1] == ["ready"], line
            yield f"https://127.0.0.1:{line[1]}", token
        finally:
            process.terminate()
            process.wait(timeout=240)


def replay(
    server: str, token: str, wanted: Collection[str] | None, words: Collection[str] = (), *, patience: float = 1.0
) -> tuple[set[str], str]:
    """Replay scenarios (all, or the wanted ones); return (those that passed, what the replay printed).

    `patience` multiplies the time that recorded watches are listened to.
    """
    with tempfile.TemporaryDirectory(prefix="haven-golden-") as folder:
        place = Path(folder)
        names = _select(place, wanted, patience)
        figures = place / "figures.json"
        done = subprocess.run(
            [sys.executable, str(RECORDINGS / "replay.py"), "--server", server, "--token", token, "--dir", folder,
             "--json", str(figures), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not figures.exists():
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        failed = set(json.loads(figures.read_text())["failed"])
        asked = {name for name in names if not words or any(word in name.split(":")[0] for word in words)}
        return asked - failed, done.stdout


def _select(place: Path, wanted: Collection[str] | None, patience: float) -> set[str]:
    """Copy the recordings, or the wanted part of them, to a folder; return the names of their scenarios."""
    (place / "scenarios").mkdir()
    shutil.copytree(RECORDINGS / "expected", place / "expected")
    names: set[str] = set()
    for source in sorted((RECORDINGS / "scenarios").glob("*.yaml")):
        scenarios: list[dict[str, Any]] = yaml.safe_load(source.read_text(encoding="utf-8"))
        kept = [one for one in scenarios if wanted is None or f"{source.name}: {one['name']}" in wanted]
        names |= {f"{source.name}: {one['name']}" for one in kept}
        for step in (step for one in kept for step in one["steps"] if "watch" in step):
            step["watch"] = float(step["watch"]) * patience
        if kept:
            (place / "scenarios" / source.name).write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return names


def main() -> None:
    """Replay everything, or the files whose names hold one of the words; remember what passed."""
    with control_plane() as (server, token):
        passed, printed = replay(server, token, None, sys.argv[1:])
    print(printed)
    known = set(passing())
    PASSING.write_text("".join(f"{name}\n" for name in sorted(known | passed)), encoding="utf-8")
    print(f"{len(passed - known)} new, {len(known | passed)} in all")


if __name__ == "__main__":
    main()
