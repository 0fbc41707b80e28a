"""Patches of every kind but apply: what a PATCH request makes of the live object."""

from haven.apimachinery.patch.dispatch import PATCH_TYPES, PatchType, patched

__all__ = ["PATCH_TYPES", "PatchType", "patched"]
