"""What holds for all tests; they use Haven's pytest plugin, also where the package is not installed from this tree."""

from __future__ import annotations

import importlib.metadata

from hypothesis import HealthCheck, settings

_NAMES = {point.name for point in importlib.metadata.entry_points(group="pytest11")}
pytest_plugins = [] if "haven" in _NAMES else ["haven.testing.plugin"]

# How long an example takes depends on the machine and on who else uses it: that is nothing to fail on.
settings.register_profile("haven", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("haven")
