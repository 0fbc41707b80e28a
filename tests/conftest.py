"""What holds for all tests; they use Haven's pytest plugin, also where the package is not installed from this tree."""

from __future__ import annotations

import importlib.metadata
import os

from hypothesis import HealthCheck, settings

# What takes hundredths of a second on a quiet machine may take long on a busy one, also in programs that tests start.
os.environ.setdefault("HAVEN_WAIT_SECONDS", "120")

_NAMES = {point.name for point in importlib.metadata.entry_points(group="pytest11")}
pytest_plugins = [] if "haven" in _NAMES else ["haven.testing.plugin"]

# How long an example takes depends on the machine and on who else uses it: that is nothing to fail on.
_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples in every run: one that fails is found while it is written, not at somebody else's change.
settings.register_profile("haven", _ANY_MACHINE, derandomize=True)
settings.register_profile("search", _ANY_MACHINE, max_examples=1000, print_blob=True)  # HAVEN_HYPOTHESIS=search
settings.load_profile(os.environ.get("HAVEN_HYPOTHESIS", "haven"))
