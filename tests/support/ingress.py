"""A stand-in for Home Assistant's Ingress: two proxies behind one another, and a page with a frame around an app.

Invariant: it does to a request what the two do, as their sources say, the awkward things among them. Home Assistant
passes the path on with its escapes renewed; the Supervisor takes the decoded path for an address, so that `#` and `?`
in it end the path, and does the same to the query of a WebSocket. Who the user is it says in headers, of which the
browser's own are dropped. It does not ask for a login.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

__all__ = ["PREFIX", "Ingress"]

PREFIX = "/api/hassio_ingress/T0kenOf-App_9"
_OF_USER = ("x-remote-user-id", "x-remote-user-name", "x-remote-user-display-name")
_NOT_PASSED_ON = {
    *("content-length", "transfer-encoding", "content-encoding", "connection", "upgrade"),
    *("sec-websocket-extensions", "sec-websocket-version", "sec-websocket-key", "sec-websocket-protocol"),
}


class Ingress:
    """Serves `/` with a frame, and the app below `PREFIX`.

    Attributes:
        port: where it listens on 127.0.0.1.
        user: what the Supervisor knows of the user who has logged in, as its headers say it; may be changed.
    """

    def __init__(self, app_port: int) -> None:
        """`app_port`: where the app listens on 127.0.0.1."""
        self.port = 0
        self.user: Mapping[str, str] = {}
        self._app_port = app_port
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="ingress")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_up.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    @property
    def url(self) -> str:
        """Where the app is, as a browser sees it, with a slash at its end."""
        return f"http://127.0.0.1:{self.port}{PREFIX}/"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        site = web.Application()
        site.router.add_get("/", self._frame)
        site.router.add_route("*", PREFIX + "/{path:.*}", self._pass_on)
        runner = web.AppRunner(site, shutdown_timeout=1)
        await runner.setup()
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            self._is_up.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _frame(self, _: web.Request) -> web.Response:
        frame = f"<!doctype html><iframe src='{PREFIX}/' width=1000 height=600></iframe>"
        return web.Response(text=frame, content_type="text/html")

    def _headers(self, request: web.Request) -> list[tuple[str, str]]:
        dropped = {*_NOT_PASSED_ON, *_OF_USER, "x-ingress-path", "x-hass-source"}
        passed = [(name, value) for name, value in request.headers.items() if name.lower() not in dropped]
        return [
            *passed,
            *self.user.items(),
            ("X-Ingress-Path", PREFIX),
            ("X-Hass-Source", "core.ingress"),
            ("X-Forwarded-For", f"{request.remote}, 172.30.32.1"),
            ("X-Forwarded-Host", request.host),
            ("X-Forwarded-Proto", request.scheme),
        ]

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        address = URL(f"http://127.0.0.1:{self._app_port}/{request.match_info['path']}")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._pass_socket_on(request, address)
        async with self._session.request(
            request.method,
            address,
            params=[*address.query.items(), *request.query.items()],
            headers=self._headers(request),
            data=await request.read() or None,
            allow_redirects=False,
            skip_auto_headers={"Content-Type", "User-Agent", "Accept"},
        ) as answer:
            kept = ((name, value) for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_ON)
            headers = [*kept, *(("Content-Encoding", value) for value in answer.headers.getall("Content-Encoding", []))]
            response = web.StreamResponse(status=answer.status, headers=dict(headers))
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            await response.write_eof()
            return response

    async def _pass_socket_on(self, request: web.Request, address: URL) -> web.WebSocketResponse:
        offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name]
        if request.query_string:
            renewed = URL("/").with_query(request.query_string)
            address = URL(f"{address}?{renewed.query_string}")
        async with self._session.ws_connect(address, headers=self._headers(request), protocols=offered) as app:
            browser = web.WebSocketResponse(protocols=offered)
            await browser.prepare(request)
            ways = [asyncio.create_task(_relay(browser, app)), asyncio.create_task(_relay(app, browser))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            return browser


async def _relay(source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, target: object) -> None:
    assert isinstance(target, web.WebSocketResponse | aiohttp.ClientWebSocketResponse)
    async for message in source:
        if message.type == aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type == aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
    await target.close()
