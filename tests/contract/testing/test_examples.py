"""The examples of docs/testing.md run as they stand."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples" / "testing"


def test_the_examples_pass() -> None:
    names = {point.name for point in importlib.metadata.entry_points(group="pytest11")}
    plugin = [] if "haven" in names else ["-p", "haven.testing.plugin"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])}

    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto",
            "-o", "addopts=--import-mode=importlib", *plugin, ".",
        ],
        cwd=EXAMPLES, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout
