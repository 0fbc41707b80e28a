"""Some six hundred expressions mean, cost and fail as upstream's engine says.

expressions.json was compared with cel-go in Kubernetes' environment of v1.36: complaints, values, failures, costs and
estimates.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from haven.apimachinery.cel import conversions, types, values
from haven.apimachinery.cel.environment import Environment, base_library
from haven.apimachinery.cel.errors import CompileError, ProgramError
from haven.apimachinery.cel.library.strings import json_patch_library
from haven.apimachinery.cel.schematypes import Declared, declared

TABLE = json.loads((Path(__file__).parent / "expressions.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def setup() -> tuple[Environment, Declared, dict[str, Any]]:
    self_type = declared(TABLE["schema"], "Self")
    assert self_type is not None
    variables = {"self": self_type.type, "other": self_type.type, "x": types.DYN}
    env = Environment(variables, [self_type], library=base_library().add(json_patch_library()))
    tree, other = TABLE["tree"], {**TABLE["tree"], **TABLE["other"]}
    return env, self_type, {"self": self_type.value(tree), "other": self_type.value(other), "x": TABLE["x"]}


def as_json(value: Any) -> Any:
    match value:
        case values.Optional():
            return as_json(value.value) if value.has_value else "NONE"
        case None | str() | bool():
            return value
        case int() | float():
            return float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case values.Timestamp():
            return conversions.timestamp_text(value)
        case values.Duration():
            return conversions.duration_text(value)
        case list() | values.ListView():
            return [as_json(item) for item in value]
        case dict() | values.MapView():
            return {key if isinstance(key, str) else _key(key): as_json(item) for key, item in values.entries(value)}
    return str(value)


def _key(key: Any) -> str:
    return str(key)


@pytest.mark.parametrize("row", TABLE["expressions"], ids=lambda row: row["expression"])
def test_an_expression_is_what_upstream_says(
    row: dict[str, Any], setup: tuple[Environment, Declared, dict[str, Any]]
) -> None:
    env, self_type, variables = setup

    refused = row.get("program") or row.get("issues")
    if refused is not None:
        with pytest.raises(ProgramError if "program" in row else CompileError) as caught:
            env.compile(row["expression"])
        assert str(caught.value) == refused
        return
    program = env.compile(row["expression"])
    outcome = program.evaluate(variables)

    assert str(program.output_type) == row.get("type")
    assert list(program.estimate(self_type)) == row["estimate"]
    assert outcome.failure == row.get("failure")
    assert outcome.cost == row["cost"]
    if "value" in row:
        assert as_json(outcome.value) == row["value"]
