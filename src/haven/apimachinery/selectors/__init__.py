"""Label and field selectors: from text or from a LabelSelector to an object that is compiled once and matches fast.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

from haven.apimachinery.selectors.errors import SelectorError
from haven.apimachinery.selectors.fields import (
    FIELDS_EVERYTHING,
    FieldRequirement,
    FieldSelector,
    escape_field_value,
    parse_fields,
)
from haven.apimachinery.selectors.labels import (
    EVERYTHING,
    NOTHING,
    LabelSelector,
    Requirement,
    from_labels,
    requirement,
)
from haven.apimachinery.selectors.names import label_key_errors, label_value_errors
from haven.apimachinery.selectors.structs import (
    format_label_selector,
    from_label_selector,
    validate_label_selector,
    validate_labels,
)
from haven.apimachinery.selectors.text import parse_labels

__all__ = [
    "EVERYTHING",
    "FIELDS_EVERYTHING",
    "NOTHING",
    "FieldRequirement",
    "FieldSelector",
    "LabelSelector",
    "Requirement",
    "SelectorError",
    "escape_field_value",
    "format_label_selector",
    "from_label_selector",
    "from_labels",
    "label_key_errors",
    "label_value_errors",
    "parse_fields",
    "parse_labels",
    "requirement",
    "validate_label_selector",
    "validate_labels",
]
