"""What `helm template` makes of a chart: by Helm where it is installed, else by as much of Go's templates as ours use.

The second way knows values, variables, `if`, `with`, `range`, `define` and `include`, pipelines and a dozen functions;
anything else is an error, so that a template which it can't judge does not pass.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["ChartError", "has_helm", "render", "render_by_helm"]

_TAG = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[()|]|:=|[^\s()|]+')


class ChartError(Exception):
    """A template says `fail`, or something that is not known here."""


def has_helm() -> bool:
    """Whether Helm is installed."""
    return shutil.which("helm") is not None


def render_by_helm(chart: Path, values: dict[str, Any], release: str = "test") -> list[dict[str, Any]]:
    """The objects of a chart, as Helm makes them."""
    done = subprocess.run(
        ["helm", "template", release, str(chart), "--values", "-"],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise ChartError(done.stderr)
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def render(chart: Path, values: dict[str, Any], release: str = "test") -> list[dict[str, Any]]:
    """The objects of a chart."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    known = _merged(yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8")), values)
    data = {
        "Values": known,
        "Chart": {"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]},
        "Release": {"Name": release, "Service": "Helm", "Namespace": "default"},
    }
    defined: dict[str, list[Any]] = {}
    files = sorted((chart / "templates").iterdir())
    trees = {path: _parse(path.read_text(encoding="utf-8"), defined) for path in files}
    found: list[dict[str, Any]] = []
    for path, tree in trees.items():
        text = _Run(defined).text(tree, data, {"$": data})
        if path.suffix == ".yaml":
            found += [each for each in yaml.safe_load_all(text) if each]
    return found


def _merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {name: _merged(base[name], over[name]) if name in base and name in over else
                over.get(name, base.get(name)) for name in {**base, **over}}  # fmt: skip
    return over


# A tree is a list of texts, ("do", words) and (kind, words, then, otherwise).


def _parse(text: str, defined: dict[str, list[Any]]) -> list[Any]:
    tokens = list(_tokens(text))
    tree, rest = _block(tokens, 0, defined, ())
    if rest != len(tokens):
        raise ChartError(f"an end too many: {tokens[rest]}")
    return tree


def _tokens(text: str) -> Iterator[str | list[str]]:
    at, is_trimmed = 0, False
    for match in _TAG.finditer(text):
        plain = text[at : match.start()]
        plain = plain.lstrip() if is_trimmed else plain
        yield plain.rstrip() if match[1] else plain
        if not match[2].startswith("/*"):
            yield _WORD.findall(match[2])
        at, is_trimmed = match.end(), bool(match[3])
    yield text[at:].lstrip() if is_trimmed else text[at:]


def _block(tokens: list[Any], at: int, defined: dict[str, list[Any]], ends: tuple[str, ...]) -> tuple[list[Any], int]:
    tree: list[Any] = []
    while at < len(tokens):
        token = tokens[at]
        if isinstance(token, str):
            tree.append(token)
            at += 1
            continue
        word = token[0]
        if word in ends:
            return tree, at
        at += 1
        if word in ("if", "with", "range", "define"):
            then, at = _block(tokens, at, defined, ("end", "else"))
            otherwise: list[Any] = []
            if tokens[at][0] == "else":
                if len(tokens[at]) > 1:
                    raise ChartError("else if is not known here: put an if into the else")
                otherwise, at = _block(tokens, at + 1, defined, ("end",))
            if word == "define":
                defined[json.loads(token[1])] = then
            else:
                tree.append((word, token[1:], then, otherwise))
            at += 1
        else:
            tree.append(("do", token))
    if ends:
        raise ChartError(f"no end of a block; expected one of {ends}")
    return tree, at


class _Run:
    def __init__(self, defined: dict[str, list[Any]]) -> None:
        self._defined = defined

    def text(self, tree: list[Any], dot: Any, names: dict[str, Any]) -> str:
        parts: list[str] = []
        for node in tree:
            if isinstance(node, str):
                parts.append(node)
            elif node[0] == "do":
                words = node[1]
                if len(words) > 1 and words[1] == ":=":
                    names[words[0]] = self._value(words[2:], dot, names)
                else:
                    parts.append(_shown(self._value(words, dot, names)))
            else:
                kind, words, then, otherwise = node
                parts.append(self._choice(kind, words, then, otherwise, dot, names))
        return "".join(parts)

    def _choice(
        self, kind: str, words: list[str], then: list[Any], otherwise: list[Any], dot: Any, names: dict[str, Any]
    ) -> str:
        if kind == "range":
            key, value = words[0].rstrip(","), words[1]
            if words[2] != ":=":
                raise ChartError(f"range {words}")
            items = self._value(words[3:], dot, names) or {}
            return "".join(
                self.text(then, item, {**names, key: name, value: item}) for name, item in sorted(items.items())
            )
        found = self._value(words, dot, names)
        if not found:
            return self.text(otherwise, dot, names)
        return self.text(then, found if kind == "with" else dot, names)

    def _value(self, words: list[str], dot: Any, names: dict[str, Any]) -> Any:
        stages: list[list[str]] = [[]]
        depth = 0
        for word in words:
            depth += (word == "(") - (word == ")")
            if word == "|" and depth == 0:
                stages.append([])
            else:
                stages[-1].append(word)
        found: Any = None
        for number, stage in enumerate(stages):
            values = self._terms(stage, dot, names)
            found = _called(values if number == 0 else [*values, found], self)
        return found

    def _terms(self, words: list[str], dot: Any, names: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        at = 0
        while at < len(words):
            word = words[at]
            if word == "(":
                depth, end = 1, at + 1
                while depth:
                    depth += (words[end] == "(") - (words[end] == ")")
                    end += 1
                found.append(self._value(words[at + 1 : end - 1], dot, names))
                at = end
                continue
            found.append(self._term(word, dot, names))
            at += 1
        return found

    def _term(self, word: str, dot: Any, names: dict[str, Any]) -> Any:
        if word[0] == '"':
            return json.loads(word)
        if re.fullmatch(r"-?\d+", word):
            return int(word)
        if word == ".":
            return dot
        if word[0] in ".$":
            base, *path = word.split(".")
            value = dot if base == "" else names[base]
            for name in path:
                if not isinstance(value, dict) or name not in value:
                    raise ChartError(f"{word}: there is no {name}")
                value = value[name]
            return value
        if word not in _FUNCTIONS and word != "include":
            raise ChartError(f"{word} is not known")
        return _Function(word)

    def include(self, name: str, dot: Any) -> str:
        return self.text(self._defined[name], dot, {"$": dot})


class _Function(str):
    """The name of a function, apart from texts."""

    __slots__ = ()


def _called(values: list[Any], run: _Run) -> Any:
    if not isinstance(values[0], _Function):
        if len(values) > 1:
            raise ChartError(f"{values[0]} is no function")
        return values[0]
    if values[0] == "include":
        return run.include(*values[1:])
    return _FUNCTIONS[values[0]](*values[1:])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(value: Any) -> str:
    """As Helm has what stands in a file of values."""
    for kind, name in ((bool, "bool"), ((int, float), "float64"), (str, "string")):
        if isinstance(value, kind):
            return name
    return "other"


def _quoted(value: Any) -> str:
    """Go writes a large number with an exponent, unless it has been made an integer."""
    if _kind(value) == "float64" and not isinstance(value, _Integer) and abs(value) >= 1e6:
        shortest = next(text for places in range(17) if float(text := f"{value:.{places}e}") == value)
        digits, _, exponent = shortest.partition("e")
        return f'"{digits}e{exponent}"'
    return json.dumps(_shown(value), ensure_ascii=False)


class _Integer(int):
    """What `int64` makes."""


def _to_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=False).rstrip("\n")


def _fail(text: str) -> None:
    raise ChartError(text)


def _first_true(*values: Any) -> Any:
    return next((value for value in values if value), values[-1])


def _first_false(*values: Any) -> Any:
    return next((value for value in values if not value), values[-1])


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": _first_false,
    "default": lambda otherwise, value: value or otherwise,
    "eq": lambda a, b: a == b,
    "fail": _fail,
    "floor": math.floor,
    "gt": lambda a, b: a > b,
    "int": int,
    "int64": _Integer,
    "kindIs": lambda kind, value: _kind(value) == kind,
    "list": lambda *values: list(values),
    "nindent": lambda count, text: "\n" + "\n".join(" " * count + line if line else "" for line in text.split("\n")),
    "not": lambda value: not value,
    "or": _first_true,
    "printf": lambda form, *values: form % values,
    "quote": _quoted,
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "toJson": lambda value: json.dumps(value, sort_keys=True),
    "toYaml": _to_yaml,
}
