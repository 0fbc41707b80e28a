"""Rules that hold for every kind: names, labels, metadata, addresses. One module per subject."""

from haven.apimachinery.validation.labels import validate_label_selector, validate_labels
from haven.apimachinery.validation.objectmeta import validate_object_meta, validate_object_meta_update

__all__ = ["validate_label_selector", "validate_labels", "validate_object_meta", "validate_object_meta_update"]
