"""What is wrong with numbers that may be percentages, such as maxUnavailable.

Source: the behaviour of pkg/apis/apps/validation.
"""

from __future__ import annotations

from haven.apimachinery.fielderrors import ErrorList, Path, invalid
from haven.apimachinery.validation.names import percent_errors
from haven.apimachinery.validation.objectmeta import validate_not_negative

__all__ = ["int_or_percent_value", "validate_at_most_100_percent", "validate_positive_int_or_percent"]


def validate_positive_int_or_percent(value: int | str, path: Path) -> ErrorList:
    """Check a number that is not negative, or a percentage."""
    if isinstance(value, int):
        return validate_not_negative(value, path)
    return [invalid(path, value, text) for text in percent_errors(value)]


def _percent(value: int | str) -> int | None:
    if isinstance(value, int) or percent_errors(value):
        return None
    return int(value[:-1])


def int_or_percent_value(value: int | str) -> int:
    """Return the number, whether absolute or of percents; 0 for neither."""
    if isinstance(value, int):
        return value
    percent = _percent(value)
    if percent is not None:
        return percent
    digits = value[1:] if value[:1] in ("-", "+") else value
    return int(value) if digits.isascii() and digits.isdigit() else 0


def validate_at_most_100_percent(value: int | str, path: Path) -> ErrorList:
    """Complain about more than all."""
    percent = _percent(value)
    return [invalid(path, value, "must not be greater than 100%")] if percent is not None and percent > 100 else []
