"""The expressions that choose devices: what they may use, and whether they compile and stay within their cost.

`device` has a driver, attributes and capacities by domain and name, and may be given away several times.
Source: https://kubernetes.io/docs/reference/kubernetes-api/resource/device-class-v1/ (CELDeviceSelector)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from haven.apimachinery.cel import types
from haven.apimachinery.cel.environment import Environment
from haven.apimachinery.cel.errors import CompileError, ProgramError
from haven.apimachinery.cel.library.quantities import QUANTITY
from haven.apimachinery.cel.schematypes import Declared
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, internal, invalid

__all__ = ["environment", "validate_expression"]

COST_MAX = 1_000_000
_DOMAIN_MAX = 63
_NAME_MAX = 32
_VALUE_MAX = 64
_ATTRIBUTES_MAX = 32


def _text(longest: int) -> Declared:
    return Declared(types.STRING, min_size=2, max_elements=longest)


def _by_domain_and_name(element: Declared) -> Declared:
    inner = Declared(
        types.map_type(types.STRING, element.type),
        min_size=2,
        max_elements=_ATTRIBUTES_MAX,
        key=_text(_NAME_MAX),
        element=element,
    )
    return Declared(
        types.map_type(types.STRING, inner.type),
        min_size=2,
        max_elements=_ATTRIBUTES_MAX,
        key=_text(_DOMAIN_MAX),
        element=inner,
    )


@cache
def _device() -> Declared:
    fields = {
        "driver": _text(_DOMAIN_MAX),
        "attributes": _by_domain_and_name(Declared(types.ANY, min_size=1, max_elements=_VALUE_MAX)),
        "capacity": _by_domain_and_name(Declared(QUANTITY, min_size=8, max_elements=8)),
        "allowMultipleAllocations": Declared(types.BOOL, min_size=4, max_elements=1),
    }
    return Declared(types.object_type("kubernetes.DRADevice"), min_size=2, fields=fields)


class _Sizes:
    """The sizes within a device; an attribute's is the same whatever its name."""

    def size(self, path: Sequence[str]) -> int | None:
        of_attribute = len(path) == 4 and tuple(path[:3]) == ("device", "attributes", "@values")
        return _VALUE_MAX if of_attribute else _device().size(path)


@cache
def environment() -> Environment:
    """Return what expressions may use."""
    return Environment({"device": _device().type}, [_device()])


def validate_expression(expression: str, path: Path) -> ErrorList:
    """Check one expression."""
    try:
        program = environment().compile(expression)
    except ProgramError as error:
        return [internal(path, f"program instantiation failed: {error}")]
    except CompileError as error:
        return [invalid(path, expression, f"compilation failed: {error}")]
    if program.output_type not in (types.BOOL, types.ANY):
        return [invalid(path, expression, f"must evaluate to bool or the unknown type, not {program.output_type}")]
    if program.estimate(_Sizes())[1] > COST_MAX:
        return [forbidden(path, "too complex, exceeds cost limit")]
    return []
