"""haven image: load, list and make container images of this node."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from haven.cli.failure import Failure
from haven.cli.settings import ClusterSettings

__all__ = ["command"]


@click.group(help="Load, list and make container images.")
def command() -> None:
    pass


@command.command(help="Load images from archives (docker save, OCI) into this node.")
@click.argument("archives", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(archives: tuple[Path, ...]) -> None:
    from haven.cli.node import containerd_of
    from haven.kubelet import imagearchive

    containerd = containerd_of(ClusterSettings.load())
    if not containerd.pid:
        raise Failure("containerd does not run: haven up starts it")
    for archive in archives:
        try:
            names = asyncio.run(imagearchive.load(containerd, archive))
        except imagearchive.BadArchive as error:
            raise Failure(f"{archive}: {error}") from error
        for name in names:
            click.echo(name)


@command.command(name="list", help="List this node's images.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
def list_images(output: str) -> None:
    images = asyncio.run(_images(ClusterSettings.load()))
    if output == "json":
        click.echo(json.dumps(images, indent=1))
        return
    width = max((len(item["name"]) for item in images), default=4)
    click.echo(f"{'IMAGE':{width}}  {'SIZE':>9}  ID")
    for item in images:
        click.echo(f"{item['name']:{width}}  {item['bytes'] / 2**20:6.1f} MiB  {item['id'][7:19]}")


@command.command(name="build-example", help="Make the image of examples/hello from this machine's busybox.")
def build_example() -> None:
    for name in make_example(ClusterSettings.load()):
        click.echo(name)


def make_example(settings: ClusterSettings) -> list[str]:
    """Import a busybox image made from the distribution's static binary; return the names."""
    from haven.cli.node import containerd_of
    from haven.kubelet import imagearchive, ociimage

    binary = next((path for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")) if path.exists()), None)
    if binary is None:
        raise Failure("there is no busybox on this machine: apt-get install busybox-static")
    containerd = containerd_of(settings)
    if not containerd.pid:
        raise Failure("containerd does not run: haven up starts it")
    try:
        spec = ociimage.busybox_image("docker.io/library/busybox:stable", binary)
    except ValueError as error:
        raise Failure(str(error)) from error
    return asyncio.run(imagearchive.load_images(containerd, [spec]))


async def _images(settings: ClusterSettings) -> list[dict[str, Any]]:
    from haven.cli.node import containerd_of

    containerd = containerd_of(settings)
    if not containerd.pid:
        raise Failure("containerd does not run: haven up starts it")
    runtime = containerd.runtime()
    try:
        found = await runtime.list_images()
    finally:
        await runtime.close()
    return sorted(
        (
            {"name": (item.repo_tags or item.repo_digests or (item.id,))[0], "id": item.id, "bytes": item.size_bytes}
            for item in found
        ),
        key=lambda item: str(item["name"]),
    )
