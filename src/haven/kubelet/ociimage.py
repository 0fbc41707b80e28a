"""Makes small container images from files, without a registry and without a build tool.

Images are reproducible: the same files give the same digests. The pause image's program is assembled here, byte by
byte: it waits for signals, reaps orphans (it is process 1 where a pod shares its process namespace) and ends on
SIGTERM or SIGINT.
Source: https://github.com/opencontainers/image-spec
"""

from __future__ import annotations

import gzip
import hashlib
import io
import platform
import struct
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

__all__ = [
    "ImageFile",
    "ImageSpec",
    "UnsupportedArchitecture",
    "build",
    "busybox_image",
    "pause_image",
    "pause_program",
]

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class UnsupportedArchitecture(Exception):
    """Haven cannot make this image for this machine; the message says what to set instead."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file of an image: content, or a link to `link_to`, or a directory."""

    content: bytes = b""
    mode: int = 0o644
    link_to: str = ""
    hard_link: bool = False
    is_directory: bool = False
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image: what it is called, what it holds (by absolute path) and how it starts."""

    name: str
    files: Mapping[str, ImageFile]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    env: Sequence[str] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    working_directory: str = "/"
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""


def build(specs: Sequence[ImageSpec], path: Path) -> None:
    """Write images as one OCI archive (an uncompressed tar), which containerd, podman and skopeo load."""
    blobs: dict[str, bytes] = {}
    manifests: list[dict[str, object]] = []
    for spec in specs:
        architecture = spec.architecture or architecture_name()
        layer_tar = _layer(spec.files)
        layer = gzip.compress(layer_tar, compresslevel=6, mtime=0)
        config = _json(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {
                    "Env": list(spec.env),
                    **({"Entrypoint": list(spec.entrypoint)} if spec.entrypoint else {}),
                    **({"Cmd": list(spec.command)} if spec.command else {}),
                    **({"User": spec.user} if spec.user else {}),
                    **({"Labels": dict(spec.labels)} if spec.labels else {}),
                    "WorkingDir": spec.working_directory,
                },
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer_tar)]},
                "history": [{"created_by": "haven", "created": "1970-01-01T00:00:00Z"}],
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, config),
                "layers": [_descriptor(_LAYER, layer)],
            }
        )
        for blob in (layer, config, manifest):
            blobs[_digest(blob)] = blob
        manifests.append(
            {
                **_descriptor(_MANIFEST, manifest),
                "platform": {"architecture": architecture, "os": "linux"},
                "annotations": {
                    "io.containerd.image.name": spec.name,
                    "org.opencontainers.image.ref.name": spec.name.rpartition(":")[2],
                },
            }
        )
    index = _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests})
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, "oci-layout", ImageFile(_json({"imageLayoutVersion": "1.0.0"})))
        _add(archive, "index.json", ImageFile(index))
        for digest, blob in sorted(blobs.items()):
            _add(archive, f"blobs/{digest.replace(':', '/')}", ImageFile(blob))


def pause_image(name: str = "haven.local/pause:1") -> ImageSpec:
    """Return the image of a pod's sandbox."""
    return ImageSpec(name, {"/pause": ImageFile(pause_program(), 0o755)}, entrypoint=["/pause"], user="65535:65535")


def busybox_image(name: str = "docker.io/library/busybox:latest", binary: Path = Path("/bin/busybox")) -> ImageSpec:
    """Return an image of a statically linked busybox with a link for each applet it has; raise OSError."""
    content = binary.read_bytes()
    files: dict[str, ImageFile] = {
        path: ImageFile(mode=mode, is_directory=True)
        for path, mode in (
            ("/bin", 0o755), ("/dev", 0o755), ("/etc", 0o755), ("/home", 0o755), ("/proc", 0o555), ("/root", 0o700),
            ("/sys", 0o555), ("/tmp", 0o1777), ("/usr", 0o755), ("/usr/bin", 0o755), ("/var", 0o755),
            ("/var/www", 0o755),
        )
    }  # fmt: skip
    files["/bin/busybox"] = ImageFile(content, 0o755)
    files["/etc/passwd"] = ImageFile(
        b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    )
    files["/etc/group"] = ImageFile(b"root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")
    files["/etc/nsswitch.conf"] = ImageFile(b"hosts: files dns\n")
    for applet in busybox_applets(binary):
        files.setdefault(f"/bin/{applet}", ImageFile(link_to="busybox"))
    files["/usr/bin/env"] = ImageFile(link_to="../../bin/busybox")
    return ImageSpec(name, files, command=["sh"])


def busybox_applets(binary: Path) -> list[str]:
    """Return the names that a busybox answers to; raise ValueError if it is none."""
    listed = subprocess.run([binary, "--list"], capture_output=True, text=True, check=False)
    if listed.returncode != 0 or "busybox" not in listed.stdout.split():
        raise ValueError(f"{binary} is no busybox that can tell its applets: install the package busybox-static")
    return [name for name in listed.stdout.split() if name != "busybox"]


def pause_program(machine: str = "") -> bytes:
    """Return the pause program as an ELF file; raise UnsupportedArchitecture."""
    machine = machine or platform.machine()
    if machine not in _PAUSE:
        raise UnsupportedArchitecture(
            f"Haven has no pause program for {machine}; set sandbox_image to one that you have (registry.k8s.io/pause)"
        )
    return _elf64(*_PAUSE[machine])


def architecture_name() -> str:
    """Return this machine's architecture as images and nodes name it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


# rt_sigprocmask(SIG_BLOCK, {SIGINT, SIGTERM, SIGCHLD}); for ever: rt_sigtimedwait; on SIGCHLD wait4 until nothing is
# left, on an error wait again, on the other two exit(0).
_PAUSE_X86_64 = bytes.fromhex(
    "4883ec40"  # sub rsp, 64
    "48c7042402400100"  # mov qword [rsp], 0x14002
    "b80e000000 31ff 4889e6 31d2 41ba08000000 0f05"  # rt_sigprocmask(0, rsp, 0, 8)
    "b880000000 4889e7 31f6 31d2 41ba08000000 0f05"  # wait: rt_sigtimedwait(rsp, 0, 0, 8)
    "83f811 740d"  # cmp eax, SIGCHLD; je reap
    "85c0 78e3"  # test eax, eax; js wait
    "b83c000000 31ff 0f05"  # exit(0)
    "b83d000000 4883cfff 31f6 ba01000000 4531d2 0f05"  # reap: wait4(-1, 0, WNOHANG, 0)
    "85c0 7fe7"  # test eax, eax; jg reap
    "ebbf"  # jmp wait
)
_PAUSE_AARCH64 = bytes.fromhex(
    "ff4300d1"  # sub sp, sp, #16
    "480088d2 2800a0f2 e80300f9"  # mov x8, #0x14002; str x8, [sp]
    "000080d2 e1030091 020080d2 030180d2 e81080d2 010000d4"  # rt_sigprocmask(0, sp, 0, 8)
    "e0030091 010080d2 020080d2 030180d2 281180d2 010000d4"  # wait: rt_sigtimedwait(sp, 0, 0, 8)
    "1f440071 a0000054"  # cmp w0, #SIGCHLD; b.eq reap
    "00ffff37"  # tbnz w0, #31, wait
    "000080d2 a80b80d2 010000d4"  # exit(0)
    "00008092 010080d2 220080d2 030080d2 882080d2 010000d4"  # reap: wait4(-1, 0, WNOHANG, 0)
    "1f000071 2cffff54"  # cmp w0, #0; b.gt reap
    "ecffff17"  # b wait
)
_PAUSE = {"x86_64": (_PAUSE_X86_64, 62), "aarch64": (_PAUSE_AARCH64, 183)}  # With ELF's number of the machine.


def _elf64(code: bytes, machine: int) -> bytes:
    """Wrap machine code into the smallest static ELF: one header, one executable segment."""
    base, offset = 0x400000, 64 + 56
    size = offset + len(code)
    header = struct.pack(
        "<4sBBBB8sHHIQQQIHHHHHH",
        b"\x7fELF",
        2,
        1,
        1,
        0,
        bytes(8),
        2,
        machine,
        1,
        base + offset,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return header + segment + code


def _layer(files: Mapping[str, ImageFile]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        made: set[str] = set()
        for path in sorted(files):
            parts = path.strip("/").split("/")
            for depth in range(1, len(parts)):
                parent = "/".join(parts[:depth])
                if parent not in made and f"/{parent}" not in files:
                    _add(archive, parent, ImageFile(mode=0o755, is_directory=True))
                made.add(parent)
            _add(archive, path.strip("/"), files[path])
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, file: ImageFile) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid, info.mtime = file.mode, file.uid, file.gid, 0
    if file.is_directory:
        info.type = tarfile.DIRTYPE
    elif file.link_to:
        info.type = tarfile.LNKTYPE if file.hard_link else tarfile.SYMTYPE
        info.linkname = file.link_to
        info.mode = 0o777
    else:
        info.size = len(file.content)
    archive.addfile(info, io.BytesIO(file.content) if file.content else None)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}
