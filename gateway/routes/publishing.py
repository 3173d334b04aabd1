"""`POST /topics/{topic}`: a message published by a request.

Invariant: it is checked and counted before its body is read, and the answer says what became of it. Of two who say what
they mean to replace (`If-Match`, `If-None-Match`) one is refused, as long as both ask the same gateway.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.access.grants import AccessError, Principal, check_publication, may_read, require_subscribe
from gateway.core.frames import unframe
from gateway.core.messages import Message, Properties, encode_json
from gateway.core.protocol import CloseCode, ProtocolError
from gateway.core.since import Since, SinceKind
from gateway.core.topics import TopicError
from gateway.door.refusals import payer_of, principal_of
from gateway.routes.payload_file import tag_of
from gateway.routes.request import ApiError, check_query, flag, integer
from gateway.runtime import Gateway

__all__ = ["publish"]


CONFIRM_SECONDS = 5.0

_TURNS: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()
"""Of each gateway and topic, the turn of those who replace what they have seen."""


async def publish(request: Request) -> Response:
    """`POST /topics/{topic}`: publishes the body; `qos`, `retain` and `confirm` in the query.

    With `confirm=1` the answer waits until the message has come back from the broker, and gives its position; that is
    reading, so it takes a grant to read. So does a condition (RFC 9110 §13.1): `If-Match` with the `ETag` of
    `format=payload` publishes only while that is the newest payload, `If-None-Match: *` only while there is none.
    """
    gateway: Gateway = request.app.state.gateway
    topic = request.path_params["filter"]
    principal = principal_of(request.scope)
    query = request.query_params
    check_query(query, "publish")
    qos = integer(query, "qos", "publish")
    retain = flag(query, "retain")
    condition = _Condition(request.headers.get("if-match"), request.headers.get("if-none-match"))
    # the next one who has a condition is to see what this one did
    confirm = flag(query, "confirm") or condition.is_set
    with_properties = flag(query, "properties")
    try:
        check_publication(principal, topic)
        if confirm:
            require_subscribe(principal, [topic])
    except TopicError as error:
        raise ApiError(400, error.code, str(error)) from None
    except AccessError as error:
        raise gateway.guard.refused(principal, error) from None
    payer = payer_of(request.scope)
    gateway.take_publish(payer)
    payload = await request.body()
    gateway.guard.accounts.relay(payer, len(payload))
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/json":
        try:
            msgspec.json.decode(payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ApiError(400, "bad_payload", f"the body is not valid JSON: {error}") from None
    properties: Properties | None = None
    if with_properties and content_type:
        properties = {"content_type": content_type}
    if not condition.is_set:
        return await _published(
            gateway, principal, topic, payload, confirm, qos=qos, retain=retain, properties=properties
        )
    turn = _TURNS.setdefault((id(gateway), topic), asyncio.Lock())
    async with turn:
        condition.check(gateway, topic)
        answer = await _published(
            gateway, principal, topic, payload, confirm, qos=qos, retain=retain, properties=properties
        )
    answer.headers["ETag"] = tag_of(payload)
    return answer


class _Condition:
    """What somebody says of the payload that is to be replaced."""

    def __init__(self, match: str | None, none_match: str | None) -> None:
        if none_match is not None and none_match.strip() != "*":
            raise ApiError(400, "bad_request", "If-None-Match of a publish is '*', for a topic without a payload")
        self._wanted = None if match is None else {tag.strip() for tag in match.split(",")}
        self._is_new = none_match is not None
        self.is_set = self._wanted is not None or self._is_new

    def check(self, gateway: Gateway, topic: str) -> None:
        """Returns if it holds.

        Raises:
            ApiError: it doesn't (412).
        """
        state = gateway.history.topic(topic)
        last = None if state is None else state.last
        # an empty payload is how a retained message is cleared
        tag = None if last is None or last.is_empty else tag_of(last.payload)
        is_there = tag is not None
        wanted = self._wanted
        if (self._is_new and is_there) or (wanted is not None and not (is_there and wanted & {tag, "*"})):
            text = "another payload is there meanwhile" if is_there else "no payload is there any more"
            raise ApiError(412, "bad_request", text, reason="precondition")


async def _published(
    gateway: Gateway,
    principal: Principal,
    topic: str,
    payload: bytes,
    confirm: bool,
    *,
    qos: int,
    retain: bool,
    properties: Properties | None,
) -> Response:
    waiter = _Echo(gateway, topic, payload) if confirm else None
    try:
        try:
            is_new = may_read(principal, topic) and gateway.history.topic(topic) is None
            is_heard = await gateway.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        except ProtocolError as error:
            if error.code == "bad_topic":
                raise ApiError(400, error.code, str(error)) from None
            status = HTTPStatus.SERVICE_UNAVAILABLE if error.code == "upstream_unavailable" else HTTPStatus.BAD_GATEWAY
            raise ApiError(status, error.code, str(error), [("retry-after", "5")]) from None
        answer: dict[str, Any] = {"topic": topic, "qos": qos, "retain": retain}
        if not is_heard:
            answer["subscribers"] = 0
        if is_new:
            answer["new"] = True
        if waiter is not None:
            answer["position"] = await waiter.position()
        return Response(encode_json(answer), 202, media_type="application/json")
    finally:
        if waiter is not None:
            waiter.close()


class _Echo:
    """Waits for a message to come back from the broker."""

    def __init__(self, gateway: Gateway, topic: str, payload: bytes) -> None:
        self._gateway = gateway
        # the payload may have such a member, what stands behind it has numbers and names of ours only
        head, time, _ = Message.arrived(0, topic, payload, 0).body.rpartition(b',"time":')
        self._start = head + time
        self._payload = payload
        self._is_decoded = gateway.decoding.rule_of(topic) is not None
        self._found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._subscriber = gateway.hub.add(self, label="confirmation of a publish")
        gateway.hub.subscribe(self._subscriber, [topic], Since(SinceKind.NOW))

    def write(self, data: bytes) -> None:
        for _, body in unframe(data):
            if self._found.done():
                return
            if body.startswith(self._start) or self._is_decoded:
                envelope = msgspec.json.decode(body)
                if not self._is_decoded or self._came_as(envelope["topic"], envelope["seq"]):
                    self._found.set_result(f"{self._gateway.history.epoch}:{envelope['seq']}")

    def _came_as(self, topic: str, seq: int) -> bool:
        """Whether a message had our payload, of which its frame shows what a decoder made."""
        state = self._gateway.history.topic(topic)
        message = None if state is None else next(state.before(seq, seq - 1), None)
        return message is not None and message.payload == self._payload

    def buffered(self) -> int:
        return 0

    def close(self, _code: CloseCode = CloseCode.NORMAL, _reason: str = "") -> None:
        self._gateway.hub.remove(self._subscriber)

    async def position(self) -> str | None:
        """Its position; None when it has not come back in time (the gateway may not subscribe to this topic)."""
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                return await self._found
        except TimeoutError:
            return None
