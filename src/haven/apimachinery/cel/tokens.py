"""Cut an expression into tokens and read its literals.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax.
"""

import re
from typing import Final, NamedTuple

__all__ = ["RESERVED", "NotAnExpressionError", "Token", "bytes_value", "string_value", "tokens_of"]

RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "package",
        "namespace",
        "null",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
)

_STRING: Final = (
    r"[rR]\"\"\"(?:.|\n)*?\"\"\"|[rR]'''(?:.|\n)*?'''|[rR]\"[^\"\n\r]*\"|[rR]'[^'\n\r]*'"
    r"|\"\"\"(?:\\(?:.|\n)|[^\\])*?\"\"\"|'''(?:\\(?:.|\n)|[^\\])*?'''"
    r"|\"(?:\\.|[^\\\"\n\r])*\"|'(?:\\.|[^\\'\n\r])*'"
)
_TOKEN: Final = re.compile(
    rf"""
    (?P<space>[\t\x20\r\n\f]+|//[^\n]*)
  | (?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
  | (?P<uint>(?:0x[0-9a-fA-F]+|[0-9]+)[uU])
  | (?P<int>0x[0-9a-fA-F]+|[0-9]+)
  | (?P<bytes>[bB](?:{_STRING}))
  | (?P<string>{_STRING})
  | (?P<ident>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<escaped>`[A-Za-z0-9_.\-/\x20]+`)
  | (?P<op>==|!=|<=|>=|&&|\|\||[\[\]{{}}().,\-!?:+*/%<>])
    """,
    re.VERBOSE,
)
_KEYWORDS: Final = frozenset(("in", "true", "false", "null"))
_ESCAPES: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_ESCAPE: Final = re.compile(
    r"\\(?:([abfnrtv\\'\"`?])|[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.|\n)?)"
)


class NotAnExpressionError(Exception):
    """The text does not follow the grammar. What to tell the client is found out by syntaxerrors.py."""


class Token(NamedTuple):
    """`kind` is the operator or keyword itself, or one of float, uint, int, bytes, string, ident, escaped, end."""

    kind: str
    text: str
    offset: int


def tokens_of(source: str) -> list[Token]:
    """Return the tokens, ending with one of kind "end"; raise NotAnExpressionError for what no token starts with."""
    tokens: list[Token] = []
    position = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise NotAnExpressionError(source)
        kind = match.lastgroup or ""
        text = match.group()
        if kind != "space":
            if kind == "op" or text in _KEYWORDS:
                kind = text
            tokens.append(Token(kind, text, position))
        position = match.end()
    tokens.append(Token("end", "", len(source)))
    return tokens


def string_value(text: str) -> str:
    """Return what a string literal means; raise ValueError with the reason for an escape that is none."""
    body, raw = _unquoted(text)
    if raw:
        return body

    def replaced(match: re.Match[str]) -> str:
        char, hexa, four, eight, octal, _ = match.groups()
        if char:
            return _ESCAPES[char]
        if octal:
            return chr(int(octal, 8))
        number = hexa or four or eight
        if not number:
            raise NotAnExpressionError(text)
        code = int(number, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise ValueError("invalid unicode code point")
        return chr(code)

    return _ESCAPE.sub(replaced, body)


def bytes_value(text: str) -> bytes:
    """Return what a bytes literal (without its b) means."""
    body, raw = _unquoted(text)
    if raw:
        return body.encode()
    out = bytearray()
    position = 0
    for match in _ESCAPE.finditer(body):
        out += body[position : match.start()].encode()
        position = match.end()
        char, hexa, four, eight, octal, _ = match.groups()
        if char:
            out += _ESCAPES[char].encode()
        elif octal:
            out.append(int(octal, 8))
        elif hexa:
            out.append(int(hexa, 16))
        elif four or eight:
            raise ValueError("unable to unescape string")
        else:
            raise NotAnExpressionError(text)
    return bytes(out) + body[position:].encode()


def _unquoted(text: str) -> tuple[str, bool]:
    raw = text[0] in "rR"
    if raw:
        text = text[1:]
    body = text[3:-3] if text[:3] in ('"""', "'''") and len(text) >= 6 else text[1:-1]
    return body.replace("\r\n", "\n").replace("\r", "\n"), raw
