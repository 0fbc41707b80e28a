"""What a label's key and value may look like.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["label_key_errors", "label_value_errors"]

_PART_MAX = 63
_PREFIX_MAX = 253
_KEY_FORMAT = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_SUBDOMAIN_FORMAT = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_key_part = re.compile(_KEY_FORMAT)
_label_value = re.compile(f"({_KEY_FORMAT})?")
_subdomain = re.compile(_SUBDOMAIN_FORMAT)

_KEY_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_KEY_FORMAT}')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'({_KEY_FORMAT})?')"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN_FORMAT}')"
)


@lru_cache(maxsize=4096)
def _label_key_errors(key: str) -> tuple[str, ...]:
    parts = key.split("/")
    errors: list[str] = []
    if len(parts) > 2:
        return (
            f"a valid label key {_KEY_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        )
    if len(parts) == 2:
        prefix = parts[0]
        if not prefix:
            errors.append("prefix part must be non-empty")
        else:
            if len(prefix.encode()) > _PREFIX_MAX:
                errors.append(f"prefix part must be no more than {_PREFIX_MAX} bytes")
            if not _subdomain.fullmatch(prefix):
                errors.append(f"prefix part {_SUBDOMAIN_RULE}")
    name = parts[-1]
    if not name:
        errors.append("name part must be non-empty")
    elif len(name.encode()) > _PART_MAX:
        errors.append(f"name part must be no more than {_PART_MAX} bytes")
    if not _key_part.fullmatch(name):
        errors.append(f"name part {_KEY_RULE}")
    return tuple(errors)


def label_key_errors(key: str) -> list[str]:
    """Return what is wrong with a label's key, or with any other qualified name; [] if nothing is."""
    return list(_label_key_errors(key))


def label_value_errors(value: str) -> list[str]:
    """Return what is wrong with a label's value; [] if nothing is."""
    errors: list[str] = []
    if len(value.encode()) > _PART_MAX:
        errors.append(f"must be no more than {_PART_MAX} bytes")
    if not _label_value.fullmatch(value):
        errors.append(_VALUE_RULE)
    return errors
