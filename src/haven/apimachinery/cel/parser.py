"""Parse an expression into its tree, macros expanded.

A recursive descent over the grammar. It only says whether the text is an expression; the wording of syntax errors is
syntaxerrors.py's. Complaints beyond the grammar (reserved words, macros used wrongly, literals out of range) are
collected here.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax.
"""

from collections.abc import Callable, Sequence
from typing import Final

from haven.apimachinery.cel import ast, macros, syntaxerrors
from haven.apimachinery.cel.errors import Issue, line_and_column
from haven.apimachinery.cel.tokens import RESERVED, NotAnExpressionError, Token, bytes_value, string_value, tokens_of
from haven.apimachinery.cel.values import Uint

__all__ = ["Parsed", "parse"]

_DIGITS_MAX = 4000  # Python converts few more.

CODE_POINTS_MAX: Final = 100_000
DEPTH_MAX: Final = 250

_OPERATORS: Final = {
    "<": "_<_", "<=": "_<=_", ">=": "_>=_", ">": "_>_", "==": "_==_", "!=": "_!=_", "in": "@in",
    "+": "_+_", "-": "_-_", "*": "_*_", "/": "_/_", "%": "_%_",
}  # fmt: skip
_LEVELS: Final = (
    frozenset(("<", "<=", ">=", ">", "==", "!=", "in")),
    frozenset(("+", "-")),
    frozenset(("*", "/", "%")),
)


class Parsed:
    """A tree, and the complaints that were found while it was built; with complaints the tree is of no use."""

    __slots__ = ("expr", "issues", "next_id", "source")

    def __init__(self, source: str, expr: ast.Expr, issues: list[Issue], next_id: int) -> None:
        self.source = source
        self.expr = expr
        self.issues = issues
        self.next_id = next_id


def parse(source: str) -> Parsed:
    """Return the expression's tree."""
    nothing = ast.Literal(0, -1, None)
    if len(source) > CODE_POINTS_MAX:
        text = f"expression code point size exceeds limit: size: {len(source)}, limit {CODE_POINTS_MAX}"
        return Parsed(source, nothing, [Issue(-1, -1, text)], 1)
    try:
        parser = _Parser(source)
        expr = parser.whole()
    except NotAnExpressionError:
        return Parsed(source, nothing, syntaxerrors.issues_of(source), 1)
    except (_TooDeepError, RecursionError):
        return Parsed(source, nothing, [Issue(-1, -1, f"expression recursion limit exceeded: {DEPTH_MAX}")], 1)
    return Parsed(source, expr, parser.issues, parser.next_id)


class _TooDeepError(Exception):
    """Nested deeper than any sensible expression."""


class _Parser(macros.Maker):
    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source
        self._tokens = tokens_of(source)
        self._position = 0
        self._depth = 0
        self.issues: list[Issue] = []

    def whole(self) -> ast.Expr:
        expr = self._expr()
        self._expect("end")
        return expr

    # --- tokens

    def _peek(self) -> str:
        return self._tokens[self._position].kind

    def _next(self) -> Token:
        token = self._tokens[self._position]
        self._position += 1
        return token

    def _accept(self, kind: str) -> Token | None:
        if self._tokens[self._position].kind != kind:
            return None
        return self._next()

    def _expect(self, kind: str) -> Token:
        token = self._accept(kind)
        if token is None:
            raise NotAnExpressionError(kind)
        return token

    def _complain(self, offset: int, message: str) -> ast.Expr:
        self.issues.append(Issue(*line_and_column(self._source, offset), message))
        return ast.Ident(self.new_id(), offset, "<<error>>")

    # --- grammar

    def _expr(self) -> ast.Expr:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _TooDeepError
        expr = self._logic("||", "_||_")
        question = self._accept("?")
        if question is not None:
            if_true = self._logic("||", "_||_")
            self._expect(":")
            if_false = self._expr()
            expr = ast.Call(self.new_id(), question.offset, "_?_:_", [expr, if_true, if_false])
        self._depth -= 1
        return expr

    def _logic(self, operator: str, function: str) -> ast.Expr:
        def operand() -> ast.Expr:
            return self._logic("&&", "_&&_") if operator == "||" else self._binary(0)

        terms = [operand()]
        operators: list[Token] = []
        while (token := self._accept(operator)) is not None:
            operators.append(token)
            terms.append(operand())
        if not operators:
            return terms[0]

        def balanced(low: int, high: int) -> ast.Expr:
            middle = (low + high + 1) // 2
            left = terms[middle] if middle == low else balanced(low, middle - 1)
            right = terms[middle + 1] if middle == high else balanced(middle + 1, high)
            return ast.Call(self.new_id(), operators[middle].offset, function, [left, right])

        return balanced(0, len(operators) - 1)

    def _binary(self, level: int) -> ast.Expr:
        operand: Callable[[], ast.Expr] = self._unary if level == 2 else lambda: self._binary(level + 1)
        expr = operand()
        count = 0
        while self._peek() in _LEVELS[level]:
            count += 1
            if count > DEPTH_MAX:
                raise _TooDeepError
            token = self._next()
            right = operand()
            expr = ast.Call(self.new_id(), token.offset, _OPERATORS[token.kind], [expr, right])
        return expr

    def _unary(self) -> ast.Expr:
        kind = self._peek()
        if kind not in ("!", "-"):
            return self._member(self._primary())
        first = self._next()
        count = 1
        while self._accept(kind) is not None:
            count += 1
        if kind == "-" and self._peek() in ("int", "float") and count == 1:
            return self._member(self._number(first))
        operand = self._member(self._primary())
        if count % 2 == 0:
            return operand
        return ast.Call(self.new_id(), first.offset, "!_" if kind == "!" else "-_", [operand])

    def _member(self, expr: ast.Expr) -> ast.Expr:
        count = 0
        while True:
            count += 1
            if count > DEPTH_MAX:
                raise _TooDeepError
            if (dot := self._accept(".")) is not None:
                expr = self._selected(expr, dot)
            elif (bracket := self._accept("[")) is not None:
                optional = self._accept("?") is not None
                index = self._expr()
                self._expect("]")
                expr = ast.Call(self.new_id(), bracket.offset, "_[?_]" if optional else "_[_]", [expr, index])
            else:
                return expr

    def _selected(self, operand: ast.Expr, dot: Token) -> ast.Expr:
        optional = self._accept("?") is not None
        name = self._next()
        if name.kind == "escaped":
            self._complain(name.offset, "unsupported syntax: '`'")
        elif name.kind != "ident":
            raise NotAnExpressionError(name.text)
        if optional:
            field = ast.Literal(self.new_id(), name.offset, name.text)
            return ast.Call(self.new_id(), dot.offset, "_?._", [operand, field])
        parenthesis = self._accept("(") if name.kind == "ident" else None
        if parenthesis is None:
            return ast.Select(self.new_id(), dot.offset, operand, name.text)
        return self._call(name.text, parenthesis, operand)

    def _call(self, name: str, parenthesis: Token, target: ast.Expr | None) -> ast.Expr:
        args: list[ast.Expr] = []
        if self._accept(")") is None:
            args = self._list_of(self._expr)
            self._expect(")")
        expander = macros.find(name, len(args), is_member=target is not None)
        if expander is not None:
            self.offset = parenthesis.offset
            try:
                return expander(self, target, args)
            except macros.MacroError as error:
                return self._complain(error.offset, error.message)
        return ast.Call(self.new_id(), parenthesis.offset, name, args, target)

    def _list_of(self, item: Callable[[], ast.Expr]) -> list[ast.Expr]:
        items = [item()]
        while self._accept(",") is not None:
            items.append(item())
        return items

    def _primary(self) -> ast.Expr:
        token = self._next()
        match token.kind:
            case "ident":
                return self._named(token, "", token)
            case ".":
                return self._named(self._expect("ident"), ".", token)
            case "(":
                expr = self._expr()
                self._expect(")")
                return expr
            case "[":
                return self._list(token)
            case "{":
                entries = self._entries(self._map_entry)
                return ast.MapExpr(self.new_id(), token.offset, entries)
            case "true" | "false":
                return ast.Literal(self.new_id(), token.offset, token.kind == "true")
            case "null":
                return ast.Literal(self.new_id(), token.offset, None)
            case "string" | "bytes":
                return self._text(token)
            case "int" | "uint" | "float":
                self._position -= 1
                return self._number(None)
        raise NotAnExpressionError(token.text)

    def _named(self, name: Token, leading: str, first: Token) -> ast.Expr:
        struct = self._struct_name(name, leading)
        if struct is not None:
            return struct
        if name.text in RESERVED:
            parenthesis = self._accept("(")
            if parenthesis is not None and self._accept(")") is None:
                self._list_of(self._expr)
                self._expect(")")
            return self._complain(first.offset, f"reserved identifier: {name.text}")
        parenthesis = self._accept("(")
        if parenthesis is None:
            return ast.Ident(self.new_id(), name.offset, leading + name.text)
        return self._call(leading + name.text, parenthesis, None)

    def _struct_name(self, name: Token, leading: str) -> ast.Expr | None:
        """Return the object literal that starts here, if one does: dotted names and an open brace."""
        position = self._position
        names = [name.text]
        while self._tokens[position].kind == "." and self._tokens[position + 1].kind == "ident":
            names.append(self._tokens[position + 1].text)
            position += 2
        if self._tokens[position].kind != "{":
            return None
        brace = self._tokens[position]
        self._position = position + 1
        entries = self._entries(self._field_entry)
        return ast.Struct(self.new_id(), brace.offset, leading + ".".join(names), entries)

    def _list(self, bracket: Token) -> ast.Expr:
        elements: list[ast.Expr] = []
        optional: set[int] = set()
        while self._peek() != "]":
            if self._accept("?") is not None:
                optional.add(len(elements))
            elif self._accept(",") is not None and not elements:
                break
            elements.append(self._expr())
            if self._accept(",") is None:
                break
        self._expect("]")
        return ast.ListExpr(self.new_id(), bracket.offset, elements, frozenset(optional))

    def _entries(self, entry: Callable[[], ast.Entry]) -> list[ast.Entry]:
        entries: list[ast.Entry] = []
        while self._peek() != "}":
            if self._accept(",") is not None and not entries:
                break
            entries.append(entry())
            if self._accept(",") is None:
                break
        self._expect("}")
        return entries

    def _map_entry(self) -> ast.Entry:
        optional = self._accept("?") is not None
        key = self._expr()
        colon = self._expect(":")
        return ast.Entry(self.new_id(), colon.offset, key, self._expr(), is_optional=optional)

    def _field_entry(self) -> ast.Entry:
        optional = self._accept("?") is not None
        name = self._next()
        if name.kind == "escaped":
            self._complain(name.offset, "unsupported syntax: '`'")
        elif name.kind != "ident":
            raise NotAnExpressionError(name.text)
        colon = self._expect(":")
        return ast.Entry(self.new_id(), colon.offset, name.text, self._expr(), is_optional=optional)

    def _text(self, token: Token) -> ast.Expr:
        try:
            value: object = string_value(token.text) if token.kind == "string" else bytes_value(token.text[1:])
        except ValueError as error:
            return self._complain(token.offset, str(error))
        return ast.Literal(self.new_id(), token.offset, value)

    def _number(self, minus: Token | None) -> ast.Expr:
        token = self._next()
        offset = token.offset if minus is None else minus.offset
        sign = -1 if minus is not None else 1
        if token.kind == "float":
            value = float(token.text) * sign
            if value in (float("inf"), float("-inf")):
                return self._complain(offset, "invalid double literal")
            return ast.Literal(self.new_id(), offset, value)
        text = token.text[:-1] if token.kind == "uint" else token.text
        if len(text) > _DIGITS_MAX:
            return self._complain(offset, f"invalid {token.kind} literal")
        number = int(text[2:], 16) if text.startswith("0x") else int(text)
        if token.kind == "uint":
            if number >= 1 << 64:
                return self._complain(offset, "invalid uint literal")
            return ast.Literal(self.new_id(), offset, Uint(number))
        number *= sign
        if not -(1 << 63) <= number < 1 << 63:
            return self._complain(offset, "invalid int literal")
        return ast.Literal(self.new_id(), offset, number)


def names_of(expr: ast.Expr) -> Sequence[str] | None:
    """Return the dotted name an expression spells (a.b.c), None if it is no plain name."""
    if isinstance(expr, ast.Ident):
        return [expr.name]
    if isinstance(expr, ast.Select) and not expr.test_only:
        names = names_of(expr.operand)
        return None if names is None else [*names, expr.field]
    return None
