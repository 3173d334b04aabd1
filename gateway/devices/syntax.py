"""The grammar of templates: from a text to a tree, in a time that is bounded by its length.

A tree is made of tuples, the kind of the node first. What it means is for `templates`.

Invariant: reading raises nothing but `TemplateError`, which names what is not understood; a tree is no deeper than
recursion may go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gateway.devices.functions import FILTERS, METHODS, TESTS, UNDEFINED, TemplateError

__all__ = ["Node", "read_template"]


MAX_TOKENS = 300
"""Words and signs of one expression, which bounds how deep its tree is."""

MAX_NESTING = 40
Node = tuple[Any, ...]
"""The kind of a node, and what it is made of."""


_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)
    |(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<sign>==|!=|<=|>=|//|\*\*|[-+*/%~<>()\[\]{}.,:|=]))""",
    re.VERBOSE | re.DOTALL,
)
_OPENING = re.compile(r"\{[{%#]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "none": None, "None": None}
_VARIABLES = frozenset({"value", "value_json"})


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        token = _TOKEN.match(text, at)
        if token is None:
            raise TemplateError(f"{text[at : at + 20].strip()!r} is not understood")
        kind = token.lastgroup or ""
        found.append((kind, token[kind]))
        at = token.end()
        if len(found) > MAX_TOKENS:
            raise TemplateError(f"an expression has more than {MAX_TOKENS} words and signs")
    return found


class _Parser:
    """Reads an expression by recursive descent."""

    def __init__(self, text: str, names: set[str]) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._names = names

    def whole(self) -> Node:
        node = self.expression()
        if self._at < len(self._tokens):
            raise TemplateError(f"{self._tokens[self._at][1]!r} is not understood here")
        return node

    def assignment(self) -> tuple[str, Node]:
        kind, name = self._next()
        if kind != "name" or not self._accept("="):
            raise TemplateError("set: only one name is set at a time")
        return name, self.whole()

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise TemplateError("it ends too early")
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _accept(self, *words: str) -> str | None:
        if self._at < len(self._tokens):
            kind, word = self._tokens[self._at]
            if kind != "text" and word in words:
                self._at += 1
                return word
        return None

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            raise TemplateError(f"expected {word!r}, got {self._peek() or 'the end'!r}")

    def expression(self) -> Node:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise TemplateError(f"it is nested more than {MAX_NESTING} deep")
        node = self._or()
        while self._accept("if"):
            condition = self._or()
            other: Node = self.expression() if self._accept("else") else ("constant", UNDEFINED)
            node = ("if", condition, node, other)
        self._depth -= 1
        return node

    def _or(self) -> Node:
        node = self._and()
        while self._accept("or"):
            node = ("or", node, self._and())
        return node

    def _and(self) -> Node:
        node = self._not()
        while self._accept("and"):
            node = ("and", node, self._not())
        return node

    def _not(self) -> Node:
        count = 0
        while self._accept("not"):
            count += 1
        node = self._comparison()
        for _ in range(min(count, 2 + count % 2)):
            node = ("not", node)
        return node

    def _comparison(self) -> Node:
        node = self._sum()
        while True:
            if sign := self._accept("==", "!=", "<", ">", "<=", ">=", "in"):
                node = ("compare", sign, node, self._sum())
            elif self._peek() == "not" and self._tokens[self._at + 1 : self._at + 2] == [("name", "in")]:
                self._at += 2
                node = ("not", ("compare", "in", node, self._sum()))
            else:
                return node

    def _sum(self) -> Node:
        node = self._product()
        while sign := self._accept("+", "-", "~"):
            node = ("binary", sign, node, self._product())
        return node

    def _product(self) -> Node:
        node = self._unary()
        while sign := self._accept("*", "/", "//", "%"):
            node = ("binary", sign, node, self._unary())
        return node

    def _unary(self) -> Node:
        signs = 0
        while sign := self._accept("-", "+"):
            signs += sign == "-"
        node = self._postfix(self._primary())
        return ("binary", "*", node, ("constant", -1)) if signs % 2 else node

    def _postfix(self, node: Node) -> Node:
        while True:
            if self._accept("."):
                kind, name = self._next()
                if kind not in ("name", "number"):
                    raise TemplateError(f"{name!r} is not understood behind a dot")
                if self._accept("("):
                    if name not in METHODS:
                        raise TemplateError(f"the method {name!r} is not known here")
                    node = ("method", name, node, self._arguments(")"))
                else:
                    node = ("item", node, ("constant", name if kind == "name" else int(float(name))))
            elif self._accept("["):
                node = ("item", node, self.expression())
                self._expect("]")
            elif self._accept("|"):
                _, name = self._next()
                if name not in FILTERS:
                    raise TemplateError(f"the filter {name!r} is not known here")
                node = ("filter", name, node, self._arguments(")") if self._accept("(") else ())
            elif self._accept("is"):
                negated = self._accept("not")
                _, name = self._next()
                if name not in TESTS:
                    raise TemplateError(f"the test {name!r} is not known here")
                node = ("test", name, node)
                if negated:
                    node = ("not", node)
            else:
                return node

    def _arguments(self, end: str) -> tuple[Node, ...]:
        found: list[Node] = []
        while not self._accept(end):
            if found:
                self._expect(",")
            if self._tokens[self._at + 1 : self._at + 2] == [("sign", "=")]:
                self._at += 2  # an argument by name, in its usual place
            found.append(self.expression())
        return tuple(found)

    def _primary(self) -> Node:
        kind, word = self._next()
        if kind == "number":
            return ("constant", float(word) if "." in word or "e" in word.lower() else int(word[:18]))
        if kind == "text":
            return ("constant", re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), word[1:-1], flags=re.DOTALL))
        if kind == "name":
            if word in _CONSTANTS:
                return ("constant", _CONSTANTS[word])
            if self._accept("("):
                if word not in FILTERS:
                    raise TemplateError(f"the function {word!r} is not known here")
                arguments = self._arguments(")")
                if not arguments:
                    raise TemplateError(f"the function {word!r} needs a value")
                return ("filter", word, arguments[0], arguments[1:])
            if word not in self._names:
                raise TemplateError(f"{word!r} is not known here")
            return ("name", word)
        if word == "(":
            node = self.expression()
            self._expect(")")
            return node
        if word == "[":
            return ("list", self._arguments("]"))
        if word == "{":
            pairs: list[tuple[Node, Node]] = []
            while not self._accept("}"):
                if pairs:
                    self._expect(",")
                key = self.expression()
                self._expect(":")
                pairs.append((key, self.expression()))
            return ("dict", tuple(pairs))
        raise TemplateError(f"{word!r} is not understood here")


def _pieces(source: str) -> Iterator[tuple[str, str]]:
    """The texts, expressions and statements of a template, one after the other; each character is looked at once."""
    at = 0
    while (opening := _OPENING.search(source, at)) is not None:
        yield "text", source[at : opening.start()]
        start = opening.end()
        kind = opening[0][1]
        end = source.find("#}", start) if kind == "#" else _end_of(source, start, "}}" if kind == "{" else "%}")
        if end < 0:
            raise TemplateError(f"{opening[0]} is not closed")
        if kind != "#":
            yield ("output" if kind == "{" else "statement"), source[start:end].removeprefix("-").removesuffix("-")
        at = end + 2
    yield "text", source[at:]


def _end_of(source: str, start: int, closing: str) -> int:
    """Where an expression ends: at its bracket outside of texts and of other brackets; -1 where it doesn't."""
    depth = 0
    quote = ""
    skips = False
    for at in range(start, len(source)):
        character = source[at]
        if skips:
            skips = False
        elif quote:
            skips = character == "\\"
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "{":
            depth += 1
        elif depth == 0 and source.startswith(closing, at):
            return at
        elif character == "}":
            depth -= 1
    return -1


def read_template(source: str) -> tuple[Node, ...]:
    """The statements of a template: texts, outputs, conditions and settings."""
    names = set(_VARIABLES)
    root: list[Node] = []
    # the open conditions: their branches, and what is being read
    stack: list[tuple[list[tuple[Node | None, list[Node]]], list[Node]]] = []
    body = root
    for kind, piece in _pieces(source):
        if kind == "text":
            body.append(("text", piece))
        elif kind == "output":
            body.append(("output", _Parser(piece, names).whole()))
        else:
            word, _, rest = piece.strip().partition(" ")
            if word == "if":
                if len(stack) >= MAX_NESTING:
                    raise TemplateError(f"it is nested more than {MAX_NESTING} deep")
                branches: list[tuple[Node | None, list[Node]]] = [(_Parser(rest, names).whole(), [])]
                stack.append((branches, body))
                body = branches[-1][1]
            elif word in ("elif", "else", "endif") and stack:
                branches, outer = stack[-1]
                if word == "endif":
                    stack.pop()
                    outer.append(("choice", tuple((condition, tuple(inner)) for condition, inner in branches)))
                    body = outer
                else:
                    branches.append((_Parser(rest, names).whole() if word == "elif" else None, []))
                    body = branches[-1][1]
            elif word == "set":
                name, node = _Parser(rest, names).assignment()
                names.add(name)
                body.append(("set", name, node))
            else:
                raise TemplateError(f"the statement {word[:20]!r} is not known here")
    if stack:
        raise TemplateError("an if has no endif")
    return tuple(node for node in root if node[0] != "text" or node[1].strip())
