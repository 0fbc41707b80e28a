"""Expressions compile, cost and evaluate as upstream's do."""

from __future__ import annotations

from typing import Any

import pytest

from haven.apimachinery.cel import types
from haven.apimachinery.cel.environment import Environment
from haven.apimachinery.cel.errors import CompileError, ProgramError
from haven.apimachinery.cel.schematypes import declared

SCHEMA = {
    "type": "object",
    "required": ["replicas"],
    "properties": {
        "replicas": {"type": "integer"},
        "maxReplicas": {"type": "integer"},
        "foo-bar": {"type": "string"},
        "port": {"x-kubernetes-int-or-string": True},
        "when": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "items": {
            "type": "array",
            "maxItems": 10,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}}},
        },
    },
}
TREE = {
    "replicas": 3,
    "maxReplicas": 5,
    "foo-bar": "x",
    "port": "http",
    "when": "2020-01-01T00:00:00Z",
    "tags": ["b", "a"],
    "items": [{"name": "a1"}, {"name": "b"}],
    "unknown": 1,
}


def an_environment() -> tuple[Environment, dict[str, Any]]:
    self_type = declared(SCHEMA, "Self")
    assert self_type is not None
    env = Environment({"self": self_type.type, "other": self_type.type, "x": types.DYN}, [self_type])
    other = {**TREE, "tags": ["a", "b"], "items": [{"name": "b"}, {"name": "a1"}]}
    return env, {"self": self_type.value(TREE), "other": self_type.value(other), "x": {"a": {"b": [1, 2, 3]}}}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("self.replicas <= self.maxReplicas && self.items.all(i, i.name.startsWith('a'))", False),
        ("self.items.exists(i, i.name == 'b')", True),
        ("self.items.map(i, i.name)", ["a1", "b"]),
        ("self.items.filter(i, i.name != 'b').map(i, i.name)", ["a1"]),
        ("self.foo__dash__bar == 'x'", True),
        ("self.port == 'http'", True),
        ("self.when < timestamp('2021-01-01T00:00:00Z')", True),
        ("self.tags == other.tags && self.items == other.items", True),
        ("has(self.when) && !has(x.q)", True),
        ("x.a.b[1] + x.a.b[2]", 5),
        ("x.?a.?c.orValue(7)", 7),
        ("x.?a.?b.optMap(l, l.size()).orValue(0)", 3),
        ("1/0 == 1 || true", True),
        ("-dyn(duration('1s')) == duration('-1s')", True),
        ("false && x.q == 1", False),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v * 2)", {"a": 2, "b": 4}),
        ("[1, 2, 3].transformList(i, v, i % 2 == 0, v)", [1, 3]),
        ("[1, 2, 3].exists_one(v, v > 2)", True),
        ("[3, 1, 2].sort()", [1, 2, 3]),
        ("[{'a': 2}, {'a': 1}].sortBy(e, e.a)", [{"a": 1}, {"a": 2}]),
        ("quantity('1Gi').isGreaterThan(quantity('5M'))", True),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", True),
        ("ip('::1').family() == 6 && ip('::1').isLoopback()", True),
        ("url('https://a.b:8/c?d=e').getHost() + url('https://a.b/c?d=e').getQuery()['d'][0]", "a.b:8e"),
        ("semver('1.2.3').isLessThan(semver('v1.10', true))", True),
        ("format.dns1123Label().validate('a-b').hasValue()", False),
        ("'hello'.find('l+') + 'a1b22'.findAll('[0-9]+').join('-')", "ll1-22"),
        ("'%s has %d'.format([dyn('a'), dyn(3)])", "a has 3"),
        ("sets.equivalent([1, 2, 2], [2, 1])", True),
        ("[1, 2, 3].sum() == 6 && ['b', 'a'].isSorted() == false", True),
        ("type(1) == int && type('a') != int", True),
        ("1u + 2u == 3u && dyn(1) == dyn(1.0)", True),
        ("duration('1h') + duration('30m') == duration('90m')", True),
        ("timestamp('2020-02-29T10:00:00Z').getDayOfWeek()", 6),
        ("string(1000000.0) + string(duration('90s'))", "1e+0690s"),
        ("b'\\x41' == bytes('A') && '\\u0041' == 'A'", True),
        ("true ? 'a' : 'b'", "a"),
        ("-7 / 2 == -3 && -7 % 2 == -1", True),
    ],
)
def test_an_expression_has_the_value_that_the_language_says(expression: str, value: object) -> None:
    env, variables = an_environment()

    outcome = env.compile(expression).evaluate(variables)

    assert outcome.failure is None
    assert outcome.value == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("self.replicaz > 1", "ERROR: <input>:1:5: undefined field 'replicaz'\n | self.replicaz > 1\n | ....^"),
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^",
        ),
        (
            "nope",
            "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("namespace == 'a'", "ERROR: <input>:1:1: reserved identifier: namespace\n | namespace == 'a'\n | ^"),
        ("has(x)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(x)\n | ....^"),
        ("timestamp('a')", "ERROR: <input>:1:11: invalid timestamp argument\n | timestamp('a')\n | ..........^"),
    ],
)
def test_what_does_not_compile_is_refused_in_upstreams_words(expression: str, message: str) -> None:
    env, _ = an_environment()

    with pytest.raises(CompileError) as caught:
        env.compile(expression)

    assert str(caught.value) == message


def test_a_syntax_error_names_what_the_grammar_expected() -> None:
    with pytest.raises(CompileError) as caught:
        Environment({}).compile("1 ? 2")

    assert str(caught.value).startswith("ERROR: <input>:1:6: Syntax error: mismatched input '<EOF>' expecting ':'")


def test_a_constant_that_can_not_be_converted_is_no_program() -> None:
    with pytest.raises(ProgramError, match="type conversion error from 'string' to 'int'"):
        Environment({}).compile("int('a') == 1")


@pytest.mark.parametrize(
    ("expression", "actual", "estimated"),
    [
        ("self.replicas <= self.maxReplicas", 5, (5, 5)),
        ("self.items.all(i, i.name.startsWith('a'))", 15, (3, 63)),
        ("has(self.when)", 1, (1, 1)),
        ("self.replicas in [1, 2]", 2, (14, 14)),
        ("self.items.map(i, i.name)", 31, (13, 153)),
    ],
)
def test_costs_follow_upstreams_rules(expression: str, actual: int, estimated: tuple[int, int]) -> None:
    env, variables = an_environment()
    self_type = declared(SCHEMA, "Self")

    program = env.compile(expression)

    assert program.evaluate(variables).cost == actual
    assert program.estimate(self_type) == estimated


def test_an_evaluation_beyond_its_limit_is_cut_off() -> None:
    env, variables = an_environment()

    outcome = env.compile("[1, 2, 3].all(a, [1, 2, 3].all(b, a == b || a != b))").evaluate(variables, limit=20)

    assert outcome.is_over_limit
    assert outcome.failure == "operation cancelled: actual cost limit exceeded"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("string(x) == 'a'", "no such overload: string(map)"),
        ("uint(x.a.b) == 1u", "no such overload: uint(list)"),
        ("x.a.b.join() == 'a'", "no such overload: join(list)"),
        ("-dyn(x.a.b[0] == 1) == dyn(1)", "no such overload"),
        ("x.a.b[0].find('a') == 'a'", "no such overload"),
        ("x.a.b[0].all(i, i == 1)", "got 'types.Int', expected iterable type"),
        ("x.a.b[0].all(i, v, i == v)", "unsupported comprehension range type: types.Int"),
        ("dyn(optional.of(x)).all(i, i == 1)", "got '*types.Optional', expected iterable type"),
        ("dyn(quantity(string(x.a.b[0]))).all(i, i == 1)", "got 'cel.Quantity', expected iterable type"),
        ("duration('1s') + duration('9223372036s') == duration(x.a.b[0])", "integer overflow"),
    ],
)
def test_values_of_types_that_a_function_does_not_take_are_refused_in_upstreams_words(
    expression: str, message: str
) -> None:
    env, activation = an_environment()
    program = env.compile(expression)
    assert program.evaluate(activation).failure == message
