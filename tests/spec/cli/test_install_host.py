"""What `make up` asks of a machine before anything is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "install-host.sh"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_python_that_is_too_old_or_missing_is_named_with_what_to_do(tmp_path: Path, is_there: bool) -> None:
    python = tmp_path / "python3.10"
    if is_there:
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)

    done = subprocess.run(
        ["sh", str(SCRIPT)],
        env={"PATH": os.environ["PATH"], "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"Haven needs Python 3.11 or newer and {python} is older or missing: install one")
    assert "make up PYTHON=python3.11" in done.stderr
    assert len(done.stderr.splitlines()) == 1
