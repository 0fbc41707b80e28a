"""What a body is that nobody named the type of: told by its first bytes, as browsers and Go's server do.

Source: https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type
"""

from __future__ import annotations

__all__ = ["BYTES_MAX", "content_type"]

BYTES_MAX = 512
_TEXT, _OTHER = "text/plain; charset=utf-8", "application/octet-stream"
_SPACE = b"\t\n\x0c\r "
_TAGS = (
    b"<!DOCTYPE HTML", b"<HTML", b"<HEAD", b"<SCRIPT", b"<IFRAME", b"<H1", b"<DIV", b"<FONT", b"<TABLE", b"<A",
    b"<STYLE", b"<TITLE", b"<B", b"<BODY", b"<BR", b"<P", b"<!--",
)  # fmt: skip
_BEGINNINGS = (
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xfe\xff", "text/plain; charset=utf-16be"),
    (b"\xff\xfe", "text/plain; charset=utf-16le"),
    (b"\xef\xbb\xbf", _TEXT),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"OggS\x00", "application/ogg"),
    (b"MThd\x00\x00\x00\x06", "audio/midi"),
    (b"ID3", "audio/mpeg"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"\x00\x01\x00\x00", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"Rar!\x1a\x07\x00", "application/x-rar-compressed"),
    (b"Rar!\x1a\x07\x01\x00", "application/x-rar-compressed"),
    (b"\x00asm", "application/wasm"),
)
_RIFF = ((b"WEBPVP", "image/webp"), (b"WAVE", "audio/wave"), (b"AVI ", "video/avi"))
_BINARY = frozenset(range(9)) | {0x0B} | frozenset(range(0x0E, 0x1B)) | frozenset(range(0x1C, 0x20))


def content_type(data: bytes) -> str:
    """Return the Content-Type of a body that begins with `data`."""
    data = data[:BYTES_MAX]
    text = data.lstrip(_SPACE)
    for tag in _TAGS:
        if text[: len(tag)].upper() == tag and (tag == b"<!--" or text[len(tag) : len(tag) + 1] in (b" ", b">")):
            return "text/html; charset=utf-8"
    if text.startswith(b"<?xml"):
        return "text/xml; charset=utf-8"
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning):
            return kind
    if data.startswith(b"RIFF"):
        for form, kind in _RIFF:
            if data[8 : 8 + len(form)] == form:
                return kind
    if data.startswith(b"FORM") and data[8:12] == b"AIFF":
        return "audio/aiff"
    if data[4:8] == b"ftyp" and b"mp4" in (data[8:11], *(data[at : at + 3] for at in range(16, len(data), 4))):
        return "video/mp4"
    return _OTHER if not _BINARY.isdisjoint(data) else _TEXT
