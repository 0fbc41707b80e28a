"""YAML bodies as upstream reads them, and answers in YAML as upstream writes them.

Upstream turns YAML into JSON first (sigs.k8s.io/yaml over go-yaml v2), so that dialect decides: yes, no, on and off are
booleans, a leading 0 means octal, times stay text, numbers in base 60 do not exist, `<<` merges, keys become text.
libyaml does the scanning, as in go-yaml, so that its complaints are the same ones.
"""

from __future__ import annotations

import json
import re
from functools import cmp_to_key
from typing import Any

import msgspec
import orjson
import yaml
from yaml._yaml import CParser
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from haven.apimachinery.goformat import quote

__all__ = ["InvalidYAML", "parse", "write"]


class InvalidYAML(ValueError):
    """The text is not YAML, or not YAML that JSON can express; the message is go-yaml's."""


_PLAIN = ""  # The tag that our resolver gives scalars which may be something else than text.
_STR, _INT, _FLOAT = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_BOOL, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_integer = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*))",
    re.ASCII,
)
_float = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_base60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", re.ASCII)
_timestamp = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}"
    r"(?:[Tt]\d{1,2}:\d{1,2}:\d{1,2}(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)| \d{1,2}:\d{1,2}:\d{1,2}(?:\.\d+)?)?",
    re.ASCII,
)

_indent = re.compile(rb"^[ \t?-]+", re.MULTILINE)
_DEPTH_MAX = 500  # Objects nest a dozen levels; schemas of definitions a few dozen.

# Bounds against documents that explode through aliases, as go-yaml has them.
_ALIASED_MIN, _VALUES_MIN = 100, 1000
_VALUES_LOW, _VALUES_HIGH = 400_000, 4_000_000


class _Composer(CParser):
    """libyaml's parser with a resolver that leaves the judging of plain scalars to us."""

    def __init__(self, data: bytes) -> None:
        CParser.__init__(self, data)

    def resolve(self, kind: type[Node], _value: str | None, implicit: Any) -> str:
        return _PLAIN if kind is not ScalarNode or implicit[0] else _STR

    def descend_resolver(self, _node: Node | None, _index: Any) -> None:
        """Paths play no part in our resolving."""

    def ascend_resolver(self) -> None:
        """Paths play no part in our resolving."""


def parse(data: bytes) -> tuple[Any, list[str]]:
    """Return the first document as a tree, and what strict reading complains about (keys given twice).

    Raise InvalidYAML. Of a key given twice the last value counts.
    """
    tree = _parse_json(data)
    return (tree, []) if tree is not None else _parse_yaml(data)


def _parse_yaml(data: bytes) -> tuple[Any, list[str]]:
    try:
        _check_depth(data)
        composer: Any = _Composer(data)
        try:
            node = composer.get_node() if composer.check_node() else None
        finally:
            composer.dispose()
    except yaml.MarkedYAMLError as error:
        raise InvalidYAML(_complaint(error, data)) from None
    except (yaml.reader.ReaderError, UnicodeDecodeError) as error:
        raise InvalidYAML(f"yaml: {_reader_complaint(error)}") from None
    if node is None:
        return None, []
    builder = _Builder()
    return builder.value(node), builder.duplicates


_odd_json = re.compile(
    rb"[^\n -~]"  # Line breaks of YAML's own, tabs, what may not be in it.
    rb"|\\u"  # Surrogates.
    rb'|"<<"'
    rb"|[0-9]{19}"  # Numbers that do not fit.
    rb'|"(?:[^"\\\\]|\\\\.){1000,}" *:'  # Keys have to be short,
    rb'|" *\n[ \n]*:'  # and to stand beside their colon.
).search


class _NotPlain(Exception):
    """YAML may read this JSON as something else."""


def _refuse(_text: str) -> Any:
    raise _NotPlain


_read_json = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse).decode


def _parse_json(data: bytes) -> dict[str, Any] | None:
    """Return what an object in JSON means in YAML, None unless it is sure to be the same: ten times as fast."""
    if not data.startswith(b"{") or data.count(b"[") + data.count(b"{") > _DEPTH_MAX or _odd_json(data):
        return None
    try:
        tree: dict[str, Any] = _read_json(data.decode("ascii"))
    except (_NotPlain, ValueError, RecursionError):
        return None
    # A key that comes twice is missed as its colon is.
    return tree if data.count(b":") == orjson.dumps(tree).count(b":") else None


def _check_depth(data: bytes) -> None:
    """Raise InvalidYAML if collections nest so deeply that composing them would exhaust the stack of the process."""
    # What each level costs at least: a bracket, or a step to the right (which a list within a map may share with it).
    steps = max((len(match.group()) for match in _indent.finditer(data)), default=0)
    if data.count(b"[") + data.count(b"{") + 2 * steps <= _DEPTH_MAX:
        return
    parser: Any = _Composer(data)
    depth = 0
    try:
        while parser.check_event():
            event = parser.get_event()
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEPTH_MAX:
                    raise InvalidYAML(f"yaml: exceeded max depth of {_DEPTH_MAX}")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    finally:
        parser.dispose()


def _complaint(error: yaml.MarkedYAMLError, data: bytes) -> str:
    if isinstance(error, yaml.composer.ComposerError):
        text = data.decode(errors="replace")
        found = re.compile(r"\*([\w-]+)").match(text, error.problem_mark.index if error.problem_mark else 0)
        return f"yaml: unknown anchor '{found.group(1) if found else ''}' referenced"
    line = 0
    for mark in (error.context_mark, error.problem_mark):
        if mark is not None and mark.line:
            # go-yaml counts lines from one for the scanner's complaints only.
            line = mark.line + (1 if isinstance(error, yaml.scanner.ScannerError) else 0)
            break
    where = f"line {line}: " if line else ""
    return f"yaml: {where}{error.problem or 'unknown problem parsing YAML content'}"


def _reader_complaint(error: Exception) -> str:
    if "control characters" in str(error):
        return "control characters are not allowed"
    return "invalid leading UTF-8 octet"


class _Builder:
    """Makes a tree of nodes, guarding against explosion."""

    def __init__(self) -> None:
        self.duplicates: list[str] = []
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._values = 0
        self._aliased = 0
        self._alias_depth = 0

    def value(self, node: Node) -> Any:
        self._values += 1
        if self._alias_depth:
            self._aliased += 1
            if self._aliased > _ALIASED_MIN and self._values > _VALUES_MIN and self._aliased > self._allowed():
                raise InvalidYAML("yaml: document contains excessive aliasing")
        if isinstance(node, ScalarNode):
            return _scalar(node)
        identity = id(node)
        if identity in self._open:
            raise InvalidYAML("yaml: anchor value contains itself")
        alias = identity in self._seen
        self._seen.add(identity)
        self._open.add(identity)
        self._alias_depth += alias
        try:
            if isinstance(node, SequenceNode):
                return [self.value(item) for item in node.value]
            assert isinstance(node, MappingNode), node
            result: dict[str, Any] = {}
            self._fill(node, result)
            return result
        finally:
            self._alias_depth -= alias
            self._open.discard(identity)

    def _allowed(self) -> float:
        if self._values <= _VALUES_LOW:
            return 0.99 * self._values
        if self._values >= _VALUES_HIGH:
            return 0.10 * self._values
        return (0.99 - 0.89 * (self._values - _VALUES_LOW) / (_VALUES_HIGH - _VALUES_LOW)) * self._values

    def _fill(self, node: MappingNode, result: dict[str, Any]) -> None:
        for key_node, value_node in node.value:
            if isinstance(key_node, ScalarNode) and key_node.value == "<<" and key_node.tag in (_PLAIN, _MERGE):
                self._merge(value_node, result)
                continue
            if not isinstance(key_node, ScalarNode):
                raise InvalidYAML("yaml: invalid map key: a map or a list")
            scalar = _scalar(key_node)
            key = _key(scalar)
            if key in result:
                shown = quote(scalar) if isinstance(scalar, str) else key
                self.duplicates.append(f"line {value_node.start_mark.line + 1}: key {shown} already set in map")
            result[key] = self.value(value_node)

    def _merge(self, node: Node, result: dict[str, Any]) -> None:
        if isinstance(node, MappingNode):
            merged = self.value(node)
            result.update(merged)
        elif isinstance(node, SequenceNode) and all(isinstance(item, MappingNode) for item in node.value):
            for item in reversed(node.value):
                self._merge(item, result)
        else:
            raise InvalidYAML("yaml: map merge requires map or sequence of maps as the value")


def _key(scalar: Any) -> str:
    if isinstance(scalar, str):
        return scalar
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    if isinstance(scalar, int | float):
        return str(scalar)
    raise InvalidYAML("unsupported map key of type: %!s(<nil>), key: <nil>")


def _scalar(node: ScalarNode) -> Any:
    text: str = node.value
    tag = node.tag
    if tag == _STR:
        return text
    resolved = _resolve(text)
    if tag == _PLAIN:
        return resolved
    if tag == "tag:yaml.org,2002:binary":
        return text
    if tag == _FLOAT and isinstance(resolved, int) and not isinstance(resolved, bool):
        return resolved
    matches = {
        _INT: isinstance(resolved, int) and not isinstance(resolved, bool),
        _FLOAT: isinstance(resolved, float),
        _BOOL: isinstance(resolved, bool),
        _NULL: resolved is None,
    }
    if not matches.get(tag, True):
        raise InvalidYAML(f"yaml: cannot decode {_short_tag(resolved)} `{text}` as a {tag.replace(_TAG_PREFIX, '!!')}")
    return resolved if tag in matches else text


_TAG_PREFIX = "tag:yaml.org,2002:"


def _short_tag(value: Any) -> str:
    if value is None:
        return "!!null"
    names = {str: "!!str", bool: "!!bool", int: "!!int", float: "!!float"}
    return names[type(value)]


def _resolve(text: str) -> Any:
    """Return what a plain scalar means."""
    first = text[:1]
    if first not in _HINTS:
        return text
    if text in _WORDS:
        value = _WORDS[text]
        if isinstance(value, float):
            raise InvalidYAML(f"json: unsupported value: {_GO_FLOATS[str(value)]}")
        return value
    if first not in "+-.0123456789":
        return text
    plain = text.replace("_", "")
    if first != "." and (number := _parse_integer(plain)) is not None:
        return number
    if _float.fullmatch(plain):
        value = float(plain)
        # JSON has one kind of number: what has no fraction is read as an integer later.
        if value.is_integer() and abs(value) < 1e21:
            return int(value) if -(2**63) <= value < 2**64 else value
        if value in (float("inf"), float("-inf")):
            return text
        return value
    return text


_DIGITS_MAX = 4000
"""Python converts few more to integers; no number that is one to us has as many."""
_HINTS = frozenset("yYnNtTfFoO~.+-0123456789") | {""}
_GO_FLOATS = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}


def _parse_integer(text: str) -> int | None:
    found = _integer.fullmatch(text) if len(text) <= _DIGITS_MAX else None
    if found is None:
        return None
    for name, base in (("dec", 10), ("hex", 16), ("oct", 8), ("bin", 2)):
        digits = found.group(name)
        if digits is not None:
            number = int(digits, base)
            break
    else:
        raise AssertionError(text)
    if found.group("sign") == "-":
        number = -number
    return number if -(2**63) <= number < 2**64 else None


# ---- writing


class _Dumper(yaml.CSafeDumper):
    """libyaml's emitter, told go-yaml's choices."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _represent_text(dumper: Any, text: str) -> Node:
    if "\n" in text:
        style: str | None = "|"
    elif _is_text(text):
        style = None
    else:
        style = '"'
    node: Node = dumper.represent_scalar(_STR, text, style=style)
    return node


def _is_text(text: str) -> bool:
    """Tell whether plain text would be read as text again, by readers of YAML 1.1 too."""
    if _timestamp.fullmatch(text) or _base60.fullmatch(text):
        return False
    if text in _WORDS or text == "<<":
        return False
    return isinstance(_resolve(text), str)


def _represent_map(dumper: Any, tree: dict[str, Any]) -> Node:
    items = [(key, tree[key]) for key in sorted(tree, key=cmp_to_key(_compare_keys))]
    node: Node = dumper.represent_mapping("tag:yaml.org,2002:map", items)
    return node


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(dict, _represent_map)


def _compare_keys(left: str, right: str) -> int:
    """Natural order: runs of digits compare as numbers, letters come after everything else."""
    for index in range(min(len(left), len(right))):
        a, b = left[index], right[index]
        if a == b:
            continue
        if a.isalpha() and b.isalpha():
            return -1 if a < b else 1
        if a.isalpha() or b.isalpha():
            return 1 if a.isalpha() else -1
        return _compare_from(left, right, index)
    return len(left) - len(right)


def _compare_from(left: str, right: str, index: int) -> int:
    a_digits, b_digits = _digits_at(left, index), _digits_at(right, index)
    a_value, b_value = int(a_digits or 0), int(b_digits or 0)
    if a_value != b_value:
        return -1 if a_value < b_value else 1
    if len(a_digits) != len(b_digits):
        return len(a_digits) - len(b_digits)
    return -1 if left[index] < right[index] else 1


def _digits_at(text: str, index: int) -> str:
    end = index
    while end < len(text) and text[end].isdecimal():
        end += 1
    return text[index:end]


def write(data: bytes) -> bytes:
    """Return JSON as YAML."""
    tree = msgspec.json.decode(data)
    text: str = yaml.dump(tree, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, width=80)
    # libyaml ends a document in which a text ended with blank lines expressly; go-yaml does not.
    return text.removesuffix("...\n").encode()
