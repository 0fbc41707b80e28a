"""The schema engine: one description per type, and the walks over trees that read it."""

from haven.apimachinery.schema.check import Findings, check
from haven.apimachinery.schema.model import Field, Schema, Shape, schema_for, schema_named
from haven.apimachinery.schema.normalize import normalize
from haven.apimachinery.schema.structural import structural

__all__ = [
    "Field", "Findings", "Schema", "Shape", "check", "normalize", "schema_for",
    "schema_named", "structural",
]  # fmt: skip
