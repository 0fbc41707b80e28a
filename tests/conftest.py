"""Haven's tests use its own pytest plugin, also where the package is not installed from this tree."""

from __future__ import annotations

import importlib.metadata

_NAMES = {point.name for point in importlib.metadata.entry_points(group="pytest11")}
pytest_plugins = [] if "haven" in _NAMES else ["haven.testing.plugin"]
