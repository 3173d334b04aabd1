"""Hooks of MkDocs: what the site has beside `docs/`.

Three kinds of things: pages made from the code (metrics, events, AsyncAPI, OpenAPI), pages that lie elsewhere in the
repository, and files that pages link to. Every relative link is one of the repository, as it works where the page is
read in the repository; here it is turned to where the site has its target. A link without one fails the strict build.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.core.protocol import (
    ALERT_EVENTS,
    CLOSE_CODES,
    DEVICE_EVENTS,
    ERROR_CODES,
    EVENT_STREAM_EVENTS,
    EVENTS,
    GAP_REASONS,
)
from gateway.ops import asyncapi
from gateway.ops.metrics import METRICS
from gateway.ops.openapi import describe_http

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

BORROWED = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "reporting.md": "SECURITY.md",
    "client.md": "web/client/README.md",
    **{
        f"examples/{path.parent.name}.md": f"examples/{path.parent.name}/README.md"
        for path in sorted(ROOT.glob("examples/*/README.md"))
    },
}
"""Pages of the site that are files elsewhere in the repository."""

STYLE = """\
/* names in tables are not broken in the middle of a word */
.md-typeset td code { word-break: normal; overflow-wrap: normal; }
"""

_FILE = "The file, for tools: [{0}]({0})"

_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")
_CODE = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)


def _table(head: str, rows: Iterator[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows])


def _metrics() -> str:
    rows = (
        f"| `{row.name}` {' '.join(f'`{label}`' for label in row.labels)} | {row.kind.value} | {row.help} |"
        for row in METRICS.values()
    )
    text = "What `/metrics` tells Prometheus. [Operations](../operations.md#metrics) says how it is scraped.\n\n"
    return f"# Metrics\n\n{text}{_table('| metric and labels | type | meaning |', rows)}\n"


def _events() -> str:
    parts = [
        "# Events and codes",
        "What stands here is made from the code; [the protocol](../protocol.md) explains it.",
    ]
    for title, table in (
        ("Events", EVENTS),
        ("Only in event streams", EVENT_STREAM_EVENTS),
        ("Events of alerts", ALERT_EVENTS),
        ("Events of devices", DEVICE_EVENTS),
        ("Reasons of a gap", GAP_REASONS),
        ("Error codes", ERROR_CODES),
    ):
        rows = (f"| `{name}` | {meaning} |" for name, meaning in table.items())
        parts += [f"## {title}", _table("| name | meaning |", rows)]
    rows = (f"| {code.value} | {'yes' if back else 'no'} | {text} |" for code, (back, text) in CLOSE_CODES.items())
    parts += ["## Close codes", _table("| code | come back? | meaning |", rows)]
    return "\n\n".join(parts) + "\n"


def _fence(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def _asyncapi(described: dict[str, Any]) -> str:
    parts = [
        "# AsyncAPI",
        f"By these channels messages come; a gateway says so at `/asyncapi.json`. {_FILE.format('asyncapi.json')}.",
    ]
    for channel in described["channels"].values():
        parts += [f"## `{channel['address']}`", f"{channel['title']}."]
        query = channel.get("bindings", {}).get("ws", {}).get("query", {}).get("properties", {})
        if query:
            rows = (f"| `{name}` | {_cell(row.get('description', ''))} |" for name, row in query.items())
            parts.append(_table("| query | meaning |", rows))
        messages = ", ".join(f"[{name}](#{name.lower()})" for name in channel["messages"])
        parts.append(f"Messages: {messages}.")
    parts.append("## Messages")
    for name, message in described["components"]["messages"].items():
        parts += [f"### {name}", f"{message['summary'].rstrip('.')}."]
        parts += [_fence(example["payload"]) for example in message.get("examples", [])]
        schema = message["payload"].get("$ref", "").rpartition("/")[2]
        if schema:
            parts.append(f"Its schema: [{schema}](#{schema.lower()}).")
    parts.append("## Schemas")
    for name, schema in described["components"]["schemas"].items():
        parts += [f"### {name}", _fence(schema)]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """A text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _resolved(described: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """What a reference within a description stands for."""
    if "$ref" not in row:
        return row
    found: Any = described
    for name in row["$ref"].split("/")[1:]:
        found = found[name]
    return _resolved(described, found)


def _statuses(answers: dict[str, dict[str, Any]]) -> Iterator[str]:
    return (f"| {status} | {_cell(answer.get('description', ''))} |" for status, answer in sorted(answers.items()))


def _openapi(described: dict[str, Any]) -> str:
    parts = [
        "# OpenAPI",
        f"Everything under HTTP, as a gateway describes it at `/openapi.json`. {_FILE.format('openapi.json')}.",
    ]
    shared: dict[str, dict[str, Any]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method not in ("get", "post", "put", "delete", "patch", "head", "options"):
                continue
            parts += [f"## `{method.upper()} {path}`", operation.get("summary") or operation.get("description", "")]
            named = [_resolved(described, row) for row in operation.get("parameters", [])]
            if named:
                rows = (f"| `{row['name']}` | {row['in']} | {_cell(row.get('description', ''))} |" for row in named)
                parts.append(_table("| parameter | in | meaning |", rows))
            answers: dict[str, dict[str, Any]] = operation.get("responses", {})
            own = {status: answer for status, answer in answers.items() if "$ref" not in answer}
            shared |= {status: _resolved(described, answer) for status, answer in answers.items() if "$ref" in answer}
            parts.append(_table("| status | meaning |", _statuses(own)))
    if shared:
        parts += ["## Refusals", "Common to most of them.", _table("| status | meaning |", _statuses(shared))]
    return "\n\n".join(parts) + "\n"


def _linked(source: Path, text: str) -> Iterator[Path]:
    """Files of the repository that a page links to and that are no page."""
    pages = {ROOT / path for path in BORROWED.values()}
    for part in _CODE.split(text)[::2]:
        for link in _LINK.findall(part):
            target = Path(os.path.normpath(source.parent / link))
            if target.is_file() and target not in pages and not target.is_relative_to(ROOT / "docs"):
                yield target


def _named(nav: Any) -> Iterator[str]:
    """Each page that the navigation names."""
    for entry in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _named(entry)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts pages that `mkdocs.yml` names nowhere at the end of the navigation, so that none is out of reach."""
    nav: list[Any] = config.nav  # type: ignore[assignment]
    there = [path.relative_to(ROOT / "docs").as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    more: list[Any] = [name for name in (*there, *BORROWED) if name not in set(_named(nav))]
    if more:
        nav.append({"More": more})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what does not lie in docs/."""
    from mkdocs.structure.files import File

    described = asyncapi.describe(__version__)
    openapi = describe_http(__version__)
    made: dict[str, str | bytes] = {
        "reference/metrics.md": _metrics(),
        "reference/events.md": _events(),
        "reference/asyncapi.md": _asyncapi(described),
        "reference/asyncapi.json": json.dumps(described, ensure_ascii=False),
        "reference/openapi.md": _openapi(openapi),
        "reference/openapi.json": json.dumps(openapi, ensure_ascii=False),
        "assets/site.css": STYLE,
        "assets/iframe-worker.js": (ROOT / "scripts/iframe-worker.js").read_text(encoding="utf-8"),
    }
    made |= {name: (ROOT / path).read_text(encoding="utf-8") for name, path in BORROWED.items()}
    pages = [ROOT / path for path in BORROWED.values()] + sorted((ROOT / "docs").rglob("*.md"))
    for page in pages:
        for target in _linked(page, page.read_text(encoding="utf-8")):
            made[f"files/{target.relative_to(ROOT).as_posix()}"] = target.read_bytes()
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def _where(target: Path) -> str | None:
    """Where the site has a file of the repository."""
    for name, path in BORROWED.items():
        if target == ROOT / path:
            return name
    if target == ROOT / "README.md":
        return "index.md"
    if target.is_relative_to(ROOT / "docs"):
        return target.relative_to(ROOT / "docs").as_posix()
    return f"files/{target.relative_to(ROOT).as_posix()}" if target.is_file() else None


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turns links of the repository to where the site has their targets."""
    from mkdocs.exceptions import PluginError

    name = page.file.src_uri
    if name.startswith("reference/"):
        return markdown
    source = ROOT / BORROWED.get(name, f"docs/{name}")

    def turned(found: re.Match[str]) -> str:
        where = _where(Path(os.path.normpath(source.parent / found[1])))
        if where is None:
            raise PluginError(f"{source.relative_to(ROOT)} links to {found[1]}, which is no file")
        return os.path.relpath(where, Path(name).parent)

    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(turned, part) for part in parts[::2]]
    return "".join(parts)
