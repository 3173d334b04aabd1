"""`/mqtt`: a WebSocket with the subprotocol `mqtt`, piped to the broker byte by byte (off unless a setting says so).

Invariant: bytes pass in order, and unread but for where packets end; neither side is read faster than the other takes
it or its address pays for, and a pipe ends with the token that opened it. Since no grant can be checked on this road,
it is open only to those who may read and write everything; what they may do there is the broker's own business, which
may or may not ask for a user name and password.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.access.budget import Accounts
from gateway.access.grants import AccessError, Action, Principal, explain
from gateway.core.protocol import CloseCode
from gateway.core.topics import covers
from gateway.door.asker import metered
from gateway.door.expiry import Expiry
from gateway.door.refusals import Refusal, label_of, payer_of, principal_of
from gateway.routes.places import take_place
from gateway.runtime import Gateway
from gateway.upstream.config import open_broker_stream
from gateway.upstream.packet_counts import PacketCounter

__all__ = ["mqtt_socket"]

logger = logging.getLogger(__name__)


CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 10.0

PACKETS_AT_ONCE = 32
"""Packets that are passed on before it is looked at again what their address owes."""

EVERYTHING = ("#", "$SYS/#")
"""What a principal must be granted for the pipe where there is a policy: whoever is trusted with the broker's own
topics is with all that start with `$`."""


async def mqtt_socket(websocket: WebSocket) -> None:
    """Pipes one client to the broker (MQTT 5 §6)."""
    gateway: Gateway = websocket.app.state.gateway
    if not gateway.offers_mqtt:
        text = "MQTT over WebSocket is off; GATEWAY_MQTT_WEBSOCKET=true turns it on"
        raise Refusal(404, "bad_request", "path", text)
    if "mqtt" not in websocket.scope["subprotocols"]:
        raise Refusal(400, "bad_request", "subprotocol", "the subprotocol must be mqtt")  # MQTT-6.0.0-3
    principal = principal_of(websocket.scope)
    if gateway.has_access_policy:
        for action in Action:
            for needed in EVERYTHING:
                if not any(covers(grant.topic_filter, needed) for grant in principal.grants(action)):
                    text = f"/mqtt is for those who may {action} to everything: {explain(principal, needed, action)}"
                    raise gateway.guard.refused(principal, AccessError(text))
    leave = take_place(websocket)
    try:
        await _pipe(websocket, gateway, principal)
    finally:
        leave()


async def _pipe(websocket: WebSocket, gateway: Gateway, principal: Principal) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await open_broker_stream(gateway.upstream_config)
    except (OSError, TimeoutError) as error:
        logger.info("%s: no connection to the broker for /mqtt: %s", label_of(websocket.scope), error)
        code = "upstream_unavailable"
        raise Refusal(503, code, code, "the broker can't be reached", [("retry-after", "5")]) from None
    await websocket.accept(subprotocol="mqtt")
    ended = asyncio.Event()
    farewell: list[tuple[CloseCode, str]] = []

    def end(code: CloseCode, reason: str) -> None:
        farewell.append((code, reason))
        ended.set()

    accounts = gateway.guard.accounts
    tasks = [
        asyncio.create_task(metered(_from_broker(websocket, reader, accounts)), name="mqtt pipe from the broker"),
        asyncio.create_task(metered(_to_broker(websocket, writer, accounts)), name="mqtt pipe to the broker"),
        asyncio.create_task(ended.wait(), name="end of the token of an mqtt pipe"),
    ]
    # bytes can't be told that the token ends soon
    expiry = Expiry(gateway.guard, asyncio.get_running_loop().call_later, lambda _left: None, end)
    expiry.watch(principal)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        expiry.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            if farewell:
                await websocket.close(*farewell[0])
            else:
                await websocket.close(CloseCode.NORMAL if not gateway.closing else CloseCode.RESTART)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await writer.wait_closed()  # a last DISCONNECT should get there
        writer.transport.abort()


async def _from_broker(websocket: WebSocket, reader: asyncio.StreamReader, accounts: Accounts) -> None:
    # `send` waits while the client's socket is full, and while it waits the broker's is not read
    while data := await reader.read(CHUNK_BYTES):
        await websocket.send_bytes(data)
        await _paid(websocket, accounts)


async def _to_broker(websocket: WebSocket, writer: asyncio.StreamWriter, accounts: Accounts) -> None:
    # packets and frames need not agree (MQTT-6.0.0-2); a text frame ends the connection (MQTT-6.0.0-1)
    counter = PacketCounter()
    while True:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect" or event.get("bytes") is None:
            return
        data, start = event["bytes"], 0
        while start < len(data):
            # a frame may have a hundred thousand packets in it
            end, packets = counter.take(data, start, PACKETS_AT_ONCE)
            accounts.relay(payer_of(websocket.scope), end - start, packets)
            writer.write(data[start:end])
            start = end
            await writer.drain()
            await _paid(websocket, accounts)


async def _paid(websocket: WebSocket, accounts: Accounts) -> None:
    """Waits until the address of a client owes nothing."""
    if (wait := accounts.wait(payer_of(websocket.scope))) > 0:
        await asyncio.sleep(wait)
