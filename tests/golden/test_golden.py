"""Conversations recorded from upstream: every scenario that passed once still passes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("golden_ratchet", Path(__file__).with_name("ratchet.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
ratchet = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(ratchet)


@pytest.mark.skipif(not ratchet.RECORDINGS.exists(), reason="the recordings (../shared/golden) are not here")
def test_every_scenario_that_passed_before_passes_now() -> None:
    wanted = ratchet.passing()

    with ratchet.control_plane() as (server, token):
        passed, printed = ratchet.replay(server, token, set(wanted))

    lost = sorted(set(wanted) - passed)
    assert not lost, f"no longer passing: {lost}\n{printed}"
