"""What haven status tells, whatever state the cluster is in."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from tests.ports import free_port

from haven.cli.places import Places
from haven.cli.processes import start_ticks
from haven.cli.settings import ClusterSettings
from haven.cli.status import collect
from haven.cluster.pki import PkiSettings, ensure


def test_a_server_that_does_not_answer_is_told_of(tmp_path: Path) -> None:
    places = Places(data=tmp_path, run=tmp_path / "run")
    settings = ClusterSettings(api_port=free_port(), places=places)
    ensure(PkiSettings(directory=places.pki, server=settings.api_url), time.time())
    places.supervisor_state.parent.mkdir(parents=True, exist_ok=True)
    child = {"pid": os.getpid(), "ticks": start_ticks(os.getpid()), "command": ["server"]}
    places.supervisor_state.write_text(json.dumps({"server": child}))

    report = collect(settings)

    assert (report["running"], report["api"], report["well"]) == (True, False, False)
    assert report["components"]["server"]["pid"] == os.getpid()
