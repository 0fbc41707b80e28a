"""Regular expressions in Go's dialect (RE2), run by Python's engine.

Source: https://pkg.go.dev/regexp/syntax. What the dialects spell differently is translated: ends of text, POSIX
classes, ASCII-only classes, flags in the middle. Unicode classes by script are not known to Python and refused.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["InvalidRegexp", "compile_go"]

_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7F", "blank": r"\t ", "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ", "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
# The letters, numbers and so on of Unicode, as far as Python's classes can say it.
_UNICODE = {"L": r"[^\W\d_]", "N": r"\d", "Nd": r"\d", "Lu": r"[A-Z\u00C0-\u00DE]", "Ll": r"[a-z\u00DF-\u00FF]"}
_posix_class = re.compile(r"\[:(\^?)([a-z]+):\]")
_unicode_class = re.compile(r"\\([pP])(?:\{(\^?)(\w+)\}|(\w))")
_flags = re.compile(r"\(\?([imsU]+)\)")


class InvalidRegexp(ValueError):
    """The expression cannot be compiled."""


@lru_cache(maxsize=4096)
def compile_go(pattern: str) -> re.Pattern[str]:
    """Return the expression compiled; raise InvalidRegexp. Search with it: nothing is anchored."""
    try:
        return re.compile(_translated(pattern), 0)
    except re.error as error:
        raise InvalidRegexp(str(error)) from None


def _translated(pattern: str) -> str:
    result: list[str] = []
    position, in_class, multiline = 0, False, False
    opening = ""
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            unicode = _unicode_class.match(pattern, position)
            if unicode is not None:
                result.append(_unicode(unicode, in_class=in_class))
                position = unicode.end()
                continue
            following = pattern[position + 1 : position + 2]
            position += 2
            if following == "Q":
                end = pattern.find("\\E", position)
                end = len(pattern) if end < 0 else end
                result.append(re.escape(pattern[position:end]))
                position = end + 2
                continue
            result.append(_ESCAPES.get(following, "\\" + following) if not in_class else _class_escape(following))
            continue
        if in_class:
            posix = _posix_class.match(pattern, position)
            if posix is not None:
                if posix[2] not in _POSIX or posix[1]:
                    raise InvalidRegexp(f"invalid character class range: `{posix[0]}`")
                result.append(_POSIX[posix[2]])
                position = posix.end()
                continue
            if char == "[":
                char = "\\["
            in_class = char != "]" or result[-1] in ("[", "[^")
            result.append(char)
        elif char == "[":
            in_class = True
            negated = pattern[position + 1 : position + 2] == "^"
            result.append("[^" if negated else "[")
            position += negated
        elif char == "$" and not multiline:
            result.append(r"\Z")
        elif (flags := _flags.match(pattern, position)) is not None:
            multiline = multiline or "m" in flags[1]
            letters = flags[1].replace("U", "")
            opening += letters
            position = flags.end()
            continue
        else:
            result.append(char)
        position += 1
    text = "".join(result)
    return f"(?{''.join(sorted(set(opening)))})" * bool(opening) + text


_ESCAPES = {
    "z": r"\Z", "d": "[0-9]", "D": "[^0-9]", "w": "[0-9A-Za-z_]", "W": "[^0-9A-Za-z_]", "s": r"[\t\n\f\r ]",
    "S": r"[^\t\n\f\r ]", "C": ".", "a": r"\x07",
}  # fmt: skip
_IN_CLASS = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\f\r "}


def _class_escape(letter: str) -> str:
    return _IN_CLASS.get(letter, "\\" + letter)


def _unicode(found: re.Match[str], *, in_class: bool) -> str:
    name = found[3] or found[4]
    negated = (found[1] == "P") != bool(found[2])
    if name == "L" and not negated:
        return r"a-zA-Z\u00AA\u00B5\u00BA\u00C0-\u00D6\u00D8-\u00F6\u00F8-\uFFFF" if in_class else _UNICODE["L"]
    if name == "N" or name == "Nd":
        return r"\D" if negated else r"\d"
    known = _UNICODE.get(name)
    if known is None or negated:
        raise InvalidRegexp(f"invalid character class range: `{found[0]}`")
    return known[1:-1] if in_class else known
