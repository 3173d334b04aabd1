"""The AsyncAPI 3 description of what goes over the WebSocket and event streams, made from the code that says it.

Invariant: commands are described by the very structures that parse them, codes and events by their own tables, so the
description can't fall behind; tests hold real traffic to it (tests/integration/test_asyncapi.py).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from gateway.alerts.machine import State
from gateway.archive.failures import Trouble
from gateway.core.parameters import PARAMETERS, parameters_of
from gateway.core.protocol import (
    ALERT_EVENTS,
    CLOSE_CODES,
    COMMANDS,
    DEVICE_EVENTS,
    ERROR_CODES,
    EVENT_STREAM_EVENTS,
    EVENTS,
    GAP_REASONS,
)
from gateway.core.shapes import Mode
from gateway.devices.model import CommandKind, FieldKind, Presence

__all__ = ["describe", "device_schema", "event_schema", "message_schema", "reading_schema"]


POSITION = {"type": "string", "pattern": "^[a-z0-9]{1,16}:[0-9]{1,19}$", "examples": ["k3f9:18273"]}
ID = {"type": ["integer", "string"], "description": "The id of the command that this answers."}
TOPICS = {"type": "array", "items": {"type": "string"}, "description": "Topic filters."}

_PROPERTIES = {
    "type": "object",
    "description": "MQTT 5 properties, with properties=1.",
    "additionalProperties": False,
    "properties": {
        "content_type": {"type": "string"},
        "response_topic": {"type": "string"},
        "correlation_data": {"type": "string", "contentEncoding": "base64"},
        "user_properties": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
        },
        "message_expiry_interval": {"type": "integer", "minimum": 0, "description": "Seconds."},
    },
}

message_schema: dict[str, Any] = {
    "type": "object",
    "required": ["topic", "payload", "time", "seq"],
    "additionalProperties": False,
    "properties": {
        "topic": {"type": "string", "minLength": 1},
        "payload": {"description": "The JSON value, else the text, else base64; with mode=mean or minmax the result."},
        "time": {"type": "integer", "description": "Arrival at the gateway, milliseconds since 1970."},
        "seq": {"type": "integer", "minimum": 1},
        "encoding": {"const": "base64", "description": "The payload is not UTF-8, or could not be decoded."},
        "decode": {"const": "failed", "description": "A rule is to make JSON of the payload, and can't."},
        "retained": {"const": True, "description": "The broker keeps it as the topic's retained message."},
        "qos": {"enum": [1, 2]},
        "skipped": {
            "type": "integer",
            "minimum": 1,
            "description": "Messages of this topic left out since the last one.",
        },
        "mode": {"enum": [mode.value for mode in Mode if mode is not Mode.LATEST]},
        "count": {"type": "integer", "minimum": 1, "description": "Messages in an aggregate."},
        "interval": {"type": "number", "exclusiveMinimum": 0, "description": "Seconds that an aggregate covers."},
        "properties": _PROPERTIES,
    },
}

reading_schema: dict[str, Any] = {
    "type": "object",
    "required": ["topic", "time"],
    "minProperties": 3,
    "maxProperties": 3,
    "properties": {
        "topic": message_schema["properties"]["topic"],
        "time": message_schema["properties"]["time"],
    },
    "additionalProperties": {"description": "The field of the stream under its own name: a JSON value."},
}

_STATE = {"enum": [state.value for state in State]}
_SINCE = {
    "type": "integer",
    "description": "When the condition began to hold, or the last message came; of what is ok, when it ended. "
    "Milliseconds since 1970.",
}
_VALUE = {"description": "What was read last: a number, a state or a text; null where there is none."}

_EVENT_MEMBERS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "subscribed": (
        ["topics", "position", "recovered"],
        {
            "id": ID,
            "topics": TOPICS,
            "position": POSITION,
            "recovered": {"type": "boolean", "description": "False: a gap event comes first."},
            "from": {
                "type": "integer",
                "minimum": 0,
                "description": "Every message of these topics with a higher seq comes: with this replay, for an "
                "earlier subscription, or live.",
            },
            "node": {"type": "string", "description": "The node of a cluster that answers; absent where there is one."},
        },
    ),
    "replayed": (["id"], {"id": ID}),
    "unsubscribed": (
        ["topics"],
        {"id": ID, "topics": TOPICS, "reason": {"const": "forbidden", "description": "A new token doesn't allow it."}},
    ),
    "published": (["topic"], {"id": ID, "topic": {"type": "string"}}),
    "authenticated": (
        [],
        {
            "id": ID,
            "subject": {"type": "string"},
            "expires": {"type": "integer", "description": "Milliseconds since 1970."},
        },
    ),
    "pong": (
        ["time"],
        {"id": ID, "time": {"type": "integer", "description": "Milliseconds since 1970."}, "position": POSITION},
    ),
    "gap": (
        ["reason", "lost"],
        {
            "reason": {"enum": list(GAP_REASONS)},
            "lost": {
                "type": ["integer", "null"],
                "minimum": 1,
                "description": "How many; null when nobody can know.",
            },
            "from": {"type": "integer", "minimum": 0},
            "to": {"type": "integer", "minimum": 0},
        },
    ),
    "upstream": (
        ["connected"],
        {
            "connected": {"type": "boolean"},
            "reason": {"type": "string"},
            "lost_at": {
                "type": "integer",
                "description": "When it was lost, milliseconds since 1970; absent while it has not been there yet.",
            },
        },
    ),
    "archive": (["kept"], {"kept": {"type": "boolean"}, "reason": {"enum": [*map(str, Trouble)]}}),
    "alert": (
        ["name", "state", "since", "firing", "pending", "left_out", "topics"],
        {
            "name": {"type": "string"},
            "state": _STATE,
            "since": {**_SINCE, "type": ["integer", "null"]},
            "firing": {"type": "integer", "minimum": 0, "description": "Topics that fire."},
            "pending": {"type": "integer", "minimum": 0, "description": "Topics that are about to."},
            "left_out": {"type": "integer", "minimum": 0, "description": "Messages for which there was no room."},
            "topic": {"type": "string", "description": "The topic that fires, or is pending, for longest."},
            "value": _VALUE,
            "summary": {"type": "string"},
            "reason": {
                "enum": ["where", "silent", "offline"],
                "description": "Why it fires, where `summary` is the gateway's own wording of that.",
            },
            "silent": {"type": "string", "description": "How long it has to be silent, such as 10m."},
            "topics": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["topic", "state", "since", "value"],
                    "additionalProperties": False,
                    "properties": {"topic": {"type": "string"}, "state": _STATE, "since": _SINCE, "value": _VALUE},
                },
            },
        },
    ),
    "position": (["position"], {"position": POSITION}),
    "expiring": (["seconds"], {"seconds": {"type": "number", "minimum": 0}}),
    "error": (
        ["code", "message"],
        {
            "id": ID,
            "code": {"enum": list(ERROR_CODES)},
            "message": {"type": "string"},
            "reason": {"type": "string", "description": "What in particular, such as the code of a token's fault."},
        },
    ),
}


def event_schema(event: str) -> dict[str, Any]:
    """The JSON schema of one event."""
    required, members = _EVENT_MEMBERS[event]
    return {
        "type": "object",
        "description": _ALL_EVENTS[event],
        "required": ["event", *required],
        "additionalProperties": False,
        "properties": {"event": {"const": event}, **members},
    }


device_schema: dict[str, Any] = {
    "type": "object",
    "required": [
        "id", "name", "kind", "model", "manufacturer", "area", "version", "announced_by", "availability", "fields",
        "commands", "announcements", "seen",
    ],
    "additionalProperties": False,
    "properties": {
        **{
            name: {"type": "string"}
            for name in ("id", "name", "kind", "model", "manufacturer", "area", "version")
        },
        "announced_by": {"type": "array", "items": {"type": "string"}, "description": "Habits."},
        "availability": {"enum": [presence.value for presence in Presence]},
        "announcements": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The topics that announce it, and nothing else: cleared, they take it away.",
        },
        "seen": {"type": ["integer", "null"], "description": "When its newest value came, milliseconds since 1970."},
        "fields": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "name", "kind", "unit", "device_class", "topic", "path"],
                "additionalProperties": False,
                "properties": {
                    **{name: {"type": "string"} for name in ("id", "name", "unit", "device_class", "topic")},
                    "kind": {"enum": [kind.value for kind in FieldKind]},
                    "path": {"type": ["string", "null"], "description": "Where in the payload its value stands."},
                    "scale": {"type": "number"},
                    "offset": {"type": "number"},
                    "metric": {"type": "string"},
                    "template": {"type": "string"},
                    "problem": {"type": "string", "description": "Why its value can't be had."},
                    "diagnostic": {"const": True},
                },
            },
        },
        "commands": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "name", "kind", "topic"],
                "additionalProperties": False,
                "properties": {
                    **{
                        name: {"type": "string"}
                        for name in ("id", "name", "topic", "before", "after", "unit", "field")
                    },
                    "kind": {"enum": [kind.value for kind in CommandKind]},
                    "payloads": {"type": "object", "additionalProperties": {"type": "string"}},
                    **{name: {"type": "number"} for name in ("min", "max", "step")},
                    "json": {"const": True},
                    "retain": {"const": True},
                    "problem": {"type": "string", "description": "Why it can't be given."},
                },
            },
        },
    },
}  # fmt: skip
"""A device, as the list and the stream of changes have it."""

_DEVICE_PAYLOADS: dict[str, dict[str, Any]] = {
    "devices": {"type": "object"},
    "device": {"$ref": "#/components/schemas/Device"},
    "gone": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
    "known": {"type": "object", "required": ["count"], "properties": {"count": {"type": "integer", "minimum": 0}}},
}

_ALL_EVENTS = EVENTS | EVENT_STREAM_EVENTS | ALERT_EVENTS
_STREAM_EVENTS = ("subscribed", "gap", "upstream", "archive", "expiring", "error", *EVENT_STREAM_EVENTS)
"""What is told to those who can't send commands."""


@cache
def describe(version: str) -> dict[str, Any]:
    """The whole document.

    Args:
        version: the gateway's.
    """
    _, components = msgspec.json.schema_components(COMMANDS.values(), ref_template="#/components/schemas/{name}")
    messages: dict[str, Any] = {
        "message": {
            "summary": "One arrival on the broker",
            "payload": {"$ref": "#/components/schemas/Message"},
            "contentType": "application/json",
            "examples": [
                {
                    "payload": {
                        "topic": "sensors/esp32-1/state",
                        "payload": {"temperature": 21.5},
                        "time": 1790000000123,
                        "seq": 18273,
                    }
                }
            ],
        }
    }
    messages["reading"] = {
        "summary": "One field of one arrival, for pages that know nothing of MQTT",
        "payload": {"$ref": "#/components/schemas/Reading"},
        "contentType": "application/json",
        "examples": [
            {"payload": {"temperature": 21.5, "topic": "sensors/esp32-1/state", "time": 1790000000123}},
        ],
    }
    for event, meaning in _ALL_EVENTS.items():
        messages[event] = {
            "summary": meaning,
            "payload": {"$ref": f"#/components/schemas/{_event_name(event)}"},
            "contentType": "application/json",
        }
    for event, meaning in DEVICE_EVENTS.items():
        messages[f"device_{event}"] = {
            "name": event,
            "summary": meaning,
            "payload": _DEVICE_PAYLOADS[event],
            "contentType": "application/json",
        }
    for name, command in COMMANDS.items():
        messages[f"{name}_command"] = {
            "summary": (command.__doc__ or "").partition("\n")[0],
            "payload": {"$ref": f"#/components/schemas/{command.__name__}"},
            "contentType": "application/json",
        }
    schemas = {
        **components,
        "Message": message_schema,
        "Reading": reading_schema,
        "Device": device_schema,
        **{_event_name(event): event_schema(event) for event in _ALL_EVENTS},
    }
    query, stream_query, event_query = (
        {"type": "object", "properties": {name: _parameter_schema(name) for name in parameters_of(use)}}
        for use in ("ws", "stream", "sse")
    )
    incoming = [f"{name}_command" for name in COMMANDS]
    outgoing = ["message", *EVENTS]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "MQTT to browser gateway",
            "version": version,
            "description": "Messages of an MQTT broker over WebSocket and server-sent events.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {"host": "localhost:8000", "protocol": "ws"},
            "http": {"host": "localhost:8000", "protocol": "http"},
        },
        "channels": {
            "ws": {
                "address": "/ws",
                "title": "Everything, with commands and events",
                "servers": [{"$ref": "#/servers/local"}],
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in [*outgoing, *incoming]},
                "bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}},
            },
            "stream": {
                "address": "/ws/{stream}/",
                "title": "One field of the messages, as the configuration of the gateway names it; no events",
                "servers": [{"$ref": "#/servers/local"}],
                "parameters": {"stream": {"description": "The name of a stream.", "examples": ["temperature"]}},
                "messages": {"reading": {"$ref": "#/components/messages/reading"}},
                "bindings": {"ws": {"method": "GET", "query": stream_query, "bindingVersion": "0.1.0"}},
            },
            "events": {
                "address": "/topics/{filter}",
                "title": "The same messages as server-sent events; also an upgrade to the WebSocket",
                "servers": [{"$ref": "#/servers/http"}, {"$ref": "#/servers/local"}],
                "parameters": {"filter": {"description": "A topic filter; # is written %23, + is written %2B."}},
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in ("message", *_STREAM_EVENTS)},
            },
            "alerts": {
                "address": "/alerts",
                "title": "Alerts as server-sent events",
                "servers": [{"$ref": "#/servers/http"}],
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (*ALERT_EVENTS, "expiring")},
            },
            "devices": {
                "address": "/devices",
                "title": "Devices, and what of them changes, as server-sent events; as JSON a list of them",
                "servers": [{"$ref": "#/servers/http"}],
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"}
                    for name in (*(f"device_{event}" for event in DEVICE_EVENTS), "expiring")
                },
            },
        },
        "operations": {
            "relay": {
                "action": "send",
                "channel": {"$ref": "#/channels/ws"},
                "messages": [{"$ref": f"#/channels/ws/messages/{name}"} for name in outgoing],
            },
            "follow": {
                "action": "receive",
                "channel": {"$ref": "#/channels/ws"},
                "messages": [{"$ref": f"#/channels/ws/messages/{name}"} for name in incoming],
            },
            "read": {"action": "send", "channel": {"$ref": "#/channels/stream"}},
            "watch_devices": {"action": "send", "channel": {"$ref": "#/channels/devices"}},
            "watch": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "bindings": {"http": {"method": "GET", "query": event_query, "bindingVersion": "0.3.0"}},
            },
            "watch_alerts": {"action": "send", "channel": {"$ref": "#/channels/alerts"}},
        },
        "components": {"messages": messages, "schemas": schemas},
        "x-close-codes": {
            str(int(code)): {"reconnect": again, "meaning": text} for code, (again, text) in CLOSE_CODES.items()
        },
        "x-error-codes": ERROR_CODES,
    }


def _parameter_schema(name: str) -> dict[str, Any]:
    parameter = PARAMETERS[name]
    if name == "topic":
        return {"type": "array", "items": {"type": "string"}, "description": parameter.text}
    default = {"default": parameter.default} if parameter.default else {}
    return {"type": "string", "description": parameter.text, **default}


def _event_name(event: str) -> str:
    return f"{event.title()}Event"
