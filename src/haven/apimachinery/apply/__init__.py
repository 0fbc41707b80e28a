"""Server-side apply: who owns which field of an object, and what applying a configuration changes."""

from haven.apimachinery.apply.fieldmanager import Converter, Result, apply, keep_timestamps, update
from haven.apimachinery.apply.managers import InvalidManagedFields, decode, encode
from haven.apimachinery.apply.reset import Reset, custom_resource_reset, reset_for

__all__ = [
    "Converter", "InvalidManagedFields", "Reset", "Result", "apply", "custom_resource_reset", "decode", "encode",
    "keep_timestamps", "reset_for", "update",
]  # fmt: skip
