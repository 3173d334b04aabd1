"""`/devices` and `/devices/{id}`: what announced itself, as a list, one by one, and as a stream of changes.

Invariant: each asker is told of a device what its grants cover, by whatever id. A stream of changes holds no queue: of
each device that changed while its reader was busy it tells how it is then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.access.budget import Budget
from gateway.access.grants import Grant, Owner, Principal
from gateway.core.filters import FilterSet
from gateway.core.frames import sse_event
from gateway.core.messages import encode_json
from gateway.core.protocol import CloseCode
from gateway.devices.records import Device
from gateway.devices.views import Asker, first_devices, tell, tell_all, values_of
from gateway.door.expiry import Expiry
from gateway.door.refusals import payer_of, principal_of
from gateway.routes.dashboard import index_among
from gateway.routes.event_stream import KEEP_ALIVE_SECONDS, RETRY_MS, stream_of
from gateway.routes.request import ApiError, check_query, has_newest, integer, representation_of
from gateway.routes.slices import Stride, in_slices, place
from gateway.runtime import Gateway
from gateway.transport.scopes import address_of

__all__ = ["asker_of", "device", "devices"]


CHANGE_SECONDS = 0.2
"""How long a stream waits after it told of changes, so that what changes often is told less often."""

PART_BYTES = 16 * 1024
"""Bytes of a stream that are handed to the server at once."""

DEVICE_BYTES = 60
"""Bytes that a stream takes for each device that it told of, or has still to tell of."""


def asker_of(principal: Principal) -> Asker:
    """What somebody may read and publish, as a test of single topics; each answer is remembered."""
    return Asker(_covered(principal.subscribe), _covered(principal.publish))


def _covered(grants: tuple[Grant, ...]) -> Any:
    filters = FilterSet(grant.topic_filter for grant in grants)
    if not filters:
        return lambda _topic: False
    is_all = "#" in filters
    known: dict[str, bool] = {}

    def covers(topic: str) -> bool:
        if is_all and topic[:1] != "$":
            return True
        found = known.get(topic)
        if found is None:
            found = known[topic] = filters.matches(topic)
        return found

    return covers


async def devices(request: Request) -> Response:
    """`GET /devices`: the devices that the asker may know of, by id; `limit` and `after` (an id) make pages."""
    gateway: Gateway = request.app.state.gateway
    match representation_of(request, "devices"):
        case "html":
            return await index_among(request)
        case "sse":
            check_query(request.query_params, "changes")
            owner = Owner(principal_of(request.scope), address_of(request.scope))
            memory = gateway.guard.accounts.remembers(payer_of(request.scope))
            if not memory.hold(DEVICE_BYTES * gateway.devices.count):
                text = "limit: streams of devices from this address, or all of them, take too much memory; come back"
                raise ApiError(503, "limit", text, [("retry-after", "10")], reason="stream_bytes")
            memory.hold(0)  # where it never begins
            return stream_of(request, _events(gateway, owner, memory))
    query = request.query_params
    check_query(query, "devices")
    limit = integer(query, "limit", "devices")
    asker = asker_of(principal_of(request.scope))
    async with place():
        search = first_devices(gateway.devices, asker, query.get("after", ""), limit + 1)
        found, total = await in_slices(search)
        bodies, digest = await in_slices(
            tell_all(found[:limit], asker, gateway.history, gateway.wall_clock_ms()),
        )
        head: dict[str, Any] = {"total": total}
        if len(found) > limit:
            head["next"] = found[limit - 1][0]
        tag = f'W/"{digest}-{total}-{len(found)}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept"}
        if has_newest(request, tag):
            return Response(status_code=304, headers=headers)
        answer = b'%b,"devices":[%b]}' % (encode_json(head)[:-1], b",".join(bodies))
    return Response(answer, headers=headers, media_type="application/json")


async def device(request: Request) -> Response:
    """`GET /devices/{id}`: one device, with the newest value of each of its fields."""
    gateway: Gateway = request.app.state.gateway
    if representation_of(request, "device") == "html":
        return await index_among(request)
    check_query(request.query_params, "changes")
    asker = asker_of(principal_of(request.scope))
    identifier = request.path_params["id"]
    known = gateway.devices.device(identifier)
    told = None if known is None else tell(known, asker, gateway.history, gateway.wall_clock_ms())
    is_named = known is not None and any(
        identifier in part.keys and asker.may_read(part.source) for part in known.parts
    )
    if known is None or told is None or not is_named:
        raise ApiError(404, "bad_request", f"no device {identifier[:80]!r} is known, or none that may be read")
    values = encode_json(await in_slices(values_of(known, asker, gateway.history)))
    answer = b'%b,"values":%b}' % (told.whole[:-1], values)
    return Response(answer, headers={"Cache-Control": "no-cache", "Vary": "Accept"}, media_type="application/json")


class _Reader:
    """Which devices a stream has still to tell of.

    Attributes:
        first: those that were there when it began, the last one first.
        changed: those that have changed since.
        told: the ids of those that were told, by their number.
        ready: set when there is something to tell.
        is_closed: whether the stream is to end.
        expiring: the seconds that a token has left, when that is to be told.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.first: list[Device] = list(gateway.devices.devices())[::-1]
        self.changed: dict[Device, None] = {}
        self.told: dict[int, str] = {}
        self.ready = asyncio.Event()
        self.is_closed = False
        self.expiring: int | None = None

    @property
    def cost(self) -> int:
        """About how many bytes it holds."""
        return DEVICE_BYTES * (len(self.first) + len(self.changed) + len(self.told))

    def next(self) -> Device | None:
        """The device to tell of next; None: all are told."""
        while self.first:
            device = self.first.pop()
            if device.number not in self.told and device not in self.changed:
                return device
        if not self.changed:
            return None
        device = next(iter(self.changed))
        del self.changed[device]
        if not self.changed:
            self.changed = {}  # an emptied one keeps its room
        return device

    def note(self, device: Device) -> None:
        """A device has changed."""
        self.changed[device] = None
        self.ready.set()

    def close(self, _code: CloseCode, _reason: str) -> None:
        """Ends the stream."""
        self.is_closed = True
        self.ready.set()

    def warn(self, left: float) -> None:
        """The token ends soon."""
        self.expiring = round(left)
        self.ready.set()


async def _events(gateway: Gateway, owner: Owner, memory: Budget) -> AsyncGenerator[bytes]:
    """The events; it ends where there is no room for what it has to remember, and its client comes back."""
    asker = asker_of(owner.principal)
    reader = _Reader(gateway)
    gateway.devices.listeners[reader.note] = None
    gateway.event_streams.add(reader)
    expiry = Expiry(
        gateway.guard,
        asyncio.get_running_loop().call_later,
        reader.warn,
        reader.close,
    )
    expiry.watch(owner.principal)
    is_known = False
    try:
        yield sse_event(b"{}", event="devices", retry_ms=RETRY_MS)
        while not reader.is_closed:
            reader.ready.clear()
            stride = Stride()
            part = b""
            while (changed := reader.next()) is not None and not reader.is_closed:
                part += _event_of(changed, asker, reader.told, gateway)
                if not memory.hold(reader.cost):
                    return
                if len(part) >= PART_BYTES:
                    yield part
                    part = b""
                if stride.is_over:
                    await stride.rest()
            if not is_known:
                is_known = True
                part += sse_event(encode_json({"count": len(reader.told)}), event="known")
            if reader.expiring is not None:
                left, reader.expiring = reader.expiring, None
                part += sse_event(encode_json({"event": "expiring", "seconds": left}), event="expiring")
            if part:
                yield part
                await asyncio.sleep(CHANGE_SECONDS)
            elif not reader.ready.is_set():
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        await reader.ready.wait()
                except TimeoutError:
                    yield b": \n"
    finally:
        expiry.cancel()
        gateway.event_streams.discard(reader)
        gateway.devices.listeners.pop(reader.note, None)
        memory.hold(0)


def _event_of(device: Device, asker: Asker, told: dict[int, str], gateway: Gateway) -> bytes:
    """What a stream is told of a device that has changed; nothing where that is nothing to it."""
    found = None if device.is_gone else tell(device, asker, gateway.history, gateway.wall_clock_ms())
    before = told.pop(device.number, None)
    event = b""
    if before is not None and (found is None or found.id != before):
        event = sse_event(encode_json({"id": before}), event="gone")
    if found is not None:
        told[device.number] = found.id
        event += sse_event(found.whole, event="device")
    return event
