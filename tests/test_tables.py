"""What must agree is one table: code, AsyncAPI, the client library's types and docs/protocol.md say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.access.tokens import TokenError
from gateway.archive.failures import Trouble
from gateway.core.fields import BOOKKEEPING_NAMES, POSITION_NAMES
from gateway.core.messages import Properties
from gateway.core.parameters import PARAMETERS, check_parameters, parameters_of
from gateway.core.protocol import (
    ALERT_EVENTS,
    CLOSE_CODES,
    COMMANDS,
    DEVICE_EVENTS,
    ERROR_CODES,
    EVENT_STREAM_EVENTS,
    EVENTS,
    GAP_REASONS,
    SUBPROTOCOLS,
    CloseCode,
    ProtocolError,
)
from gateway.core.shapes import SHAPE_PARAMETERS, Mode
from gateway.ops.asyncapi import describe, message_schema
from gateway.ops.explain import Step

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
TYPES = (ROOT / "web/client/src/protocol.ts").read_text(encoding="utf-8")
DOCUMENT = describe("0")


def typed(name: str) -> Any:
    """A table of protocol.ts."""
    found = re.search(rf"^export const {name} = (.*?) as const;$", TYPES, re.MULTILINE | re.DOTALL)
    assert found is not None, f"protocol.ts has no {name}"
    text = re.sub(r"^(\s*)(\w+):", r'\1"\2":', found[1], flags=re.MULTILINE)
    return json.loads(re.sub(r",(\s*[\]}])", r"\1", text))


def table(header: str) -> list[list[str]]:
    """The rows of a table of docs/protocol.md, by the beginning of its header."""
    rows = PAGE.partition(f"\n| {header}")[2].split("\n")[2:]
    end = next(number for number, row in enumerate(rows) if not row.startswith("|"))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[:end]]


def named(header: str) -> list[str]:
    return [name for row in table(header) for name in re.findall(r"`([^`]+)`", row[0])]


def test_events() -> None:
    assert typed("EVENTS") == list(EVENTS)
    assert named("event | meaning") == list(EVENTS)
    assert {f"{event.title()}Event" for event in EVENTS} <= DOCUMENT["components"]["schemas"].keys()
    assert set(EVENTS) <= DOCUMENT["channels"]["ws"]["messages"].keys()
    assert set(EVENT_STREAM_EVENTS) <= DOCUMENT["channels"]["events"]["messages"].keys()
    assert not set(EVENT_STREAM_EVENTS) & {*EVENTS, *DOCUMENT["channels"]["ws"]["messages"]}
    assert all(f"`{event}`" in PAGE for event in (*EVENT_STREAM_EVENTS, *ALERT_EVENTS))
    assert set(ALERT_EVENTS) < DOCUMENT["channels"]["alerts"]["messages"].keys()
    assert named("event of a device | meaning") == list(DEVICE_EVENTS)
    assert {f"device_{event}" for event in DEVICE_EVENTS} <= DOCUMENT["channels"]["devices"]["messages"].keys()


def test_commands() -> None:
    members = {
        name: [field for field in command.__struct_fields__ if field != "id"] for name, command in COMMANDS.items()
    }
    assert {name: set(fields) for name, fields in typed("COMMANDS").items()} == {
        name: set(fields) for name, fields in members.items()
    }
    assert {f"{name}_command" for name in COMMANDS} <= DOCUMENT["channels"]["ws"]["messages"].keys()
    for name in COMMANDS:
        assert f'"command":"{name}"' in PAGE.replace('"command": "', '"command":"'), name


def test_modes() -> None:
    assert typed("MODES") == [mode.value for mode in Mode]
    [row] = [row for row in table("query | meaning") if row[0] == "`mode`"]
    assert set(Mode) <= set(re.findall(r"`(\w+)`", row[1]))
    assert message_schema["properties"]["mode"]["enum"] == [mode.value for mode in Mode if mode is not Mode.LATEST]


def test_query_parameters() -> None:
    assert named("query | meaning") == list(parameters_of("ws"))
    # a page that chooses another format has no use for the library's messages
    assert {*typed("PARAMETERS"), "format"} == SHAPE_PARAMETERS <= PARAMETERS.keys()
    queries = {
        name: set(channel["bindings"]["ws"]["query"]["properties"])
        for name, channel in DOCUMENT["channels"].items()
        if "bindings" in channel
    }
    assert queries == {"ws": set(parameters_of("ws")), "stream": set(parameters_of("stream"))}
    for name in PARAMETERS:
        assert re.search(rf"`[?&]?{name}\b", PAGE), f"docs/protocol.md says nothing of {name}"


def test_sub_protocols() -> None:
    assert "sub-protocol " + " or ".join(f"`{name}`" for name in SUBPROTOCOLS) in PAGE


def test_gap_reasons() -> None:
    assert typed("GAP_REASONS") == named("reason of a gap") == list(GAP_REASONS)
    reasons = DOCUMENT["components"]["schemas"]["GapEvent"]["properties"]["reason"]["enum"]
    assert reasons == list(GAP_REASONS)


def worded(page: str, name: str) -> dict[str, str]:
    """A table of words of the dashboard, by what the gateway calls it."""
    source = (ROOT / "web/dashboard/src/core" / page).read_text(encoding="utf-8")
    found = re.search(rf"^(?:export )?const {name}\b.*? = \{{\n(.*?)^\}};", source, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no {name}"
    return dict(re.findall(r"^  (\w+):\s+(.+),$", found[1], re.MULTILINE))


def test_words_of_the_dashboard_for_what_the_gateway_names() -> None:
    assert worded("told.ts", "ERROR_WORDS").keys() == ERROR_CODES.keys()
    assert worded("told.ts", "CLOSE_WORDS").keys() == {code.name for code in CloseCode}
    # `reader` is what the page itself lost
    assert worded("losses.ts", "WORDS").keys() == {*GAP_REASONS, "reader"}
    assert worded("losses.ts", "ARCHIVE_WORDS").keys() == {str(trouble) for trouble in Trouble}
    steps = set(re.findall(r"`(\w+)`", re.findall(r"name: (.*?)\.\n", Step.__doc__ or "", re.DOTALL)[0]))
    assert worded("told.ts", "STEP_WORDS").keys() == steps
    assert steps - worded("told.ts", "FAULT_WORDS").keys() == {"alerts"}, "watching is no fault"


def test_reasons_that_the_dashboard_has_words_for() -> None:
    reasons = worded("told.ts", "REASON_WORDS").keys()
    tokens = set(re.findall(r"`(\w+)`", re.findall(r"one of: (.*?)\.", TokenError.__doc__ or "", re.DOTALL)[0]))
    assert len(tokens) > 10
    assert tokens <= reasons
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    assert {reason for reason in reasons if f'"{reason}"' not in code} == set()


def test_codes() -> None:
    assert typed("ERROR_CODES") == named("code | meaning") == list(ERROR_CODES)
    assert typed("CLOSE_CODES") == {code.name: code.value for code in CloseCode}
    assert {CloseCode[name] for name in typed("RECONNECTABLE")} == {code for code in CloseCode if CLOSE_CODES[code][0]}
    assert [int(row[0]) for row in table("code | come back?")] == sorted(CLOSE_CODES)
    assert DOCUMENT["x-close-codes"].keys() == {str(int(code)) for code in CLOSE_CODES}


def test_members_of_a_message_and_its_properties() -> None:
    members = list(message_schema["properties"])
    assert set(typed("MESSAGE")) == set(members)
    assert set(members) <= {"topic", *named("member | meaning")}
    assert set(typed("PROPERTIES")) == set(Properties.__annotations__)
    assert set(message_schema["properties"]["properties"]["properties"]) == set(Properties.__annotations__)


USES = (
    "ws",
    "stream",
    "json",
    "ndjson",
    "csv",
    "sse",
    "svg",
    "payload",
    "list",
    "devices",
    "changes",
    "publish",
    "alerts",
    "explain",
)


@pytest.mark.parametrize("use", USES)
def test_a_parameter_that_would_have_no_effect_is_refused_on_every_way_in(use: str) -> None:
    check_parameters([*parameters_of(use), "_"], use)
    for name in {"tpoic", *PARAMETERS} - set(parameters_of(use)):
        with pytest.raises(ProtocolError, match=f"query parameter '{name}': is not known; known are .*token"):
            check_parameters([name], use)


def test_names_that_nobody_draws_unasked() -> None:
    source = (ROOT / "web/dashboard/src/core/values.ts").read_text(encoding="utf-8")

    def names(table: str) -> set[str]:
        found = re.search(rf"^const {table} =\s+/\^\(([\w|]+)\)\$/i;$", source, re.MULTILINE)
        assert found is not None, f"values.ts has no {table}"
        return set(found[1].split("|"))

    assert names("BOOKKEEPING") == BOOKKEEPING_NAMES
    assert names("POSITION") == POSITION_NAMES
