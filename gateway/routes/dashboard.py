"""The dashboard's page, as it is served at any depth of the address.

Invariant: the built page names its files relative to itself (`"./assets/…"`), so that it works behind any path prefix
without being told; below `/topics/…` the same page is served with the way back to the root instead. Only the page is
made here; the files beside it are served as they are, and who may see what is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from mimetypes import guess_type
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.access.grants import Principal
from gateway.door.content_policy import content_security_policy
from gateway.door.ingress import via_ingress
from gateway.door.refusals import principal_of

__all__ = [
    "STATIC",
    "Pages",
    "embed_policy",
    "identity",
    "index",
    "index_among",
    "not_built",
    "page_at",
    "takes_gzip",
    "whoami",
    "why_not_built",
]


HERE = Path(__file__).parents[1]
STATIC = HERE / "static"
PAGES = HERE / "pages"


async def index(request: Request) -> Response:
    """`/`: the dashboard where it was built, else the small page."""
    built = STATIC / "index.html"
    page = (built if built.exists() else PAGES / "index.html").read_text(encoding="utf-8")
    # only what shows a chart and nothing else may be put into a frame
    is_chart = "embed" in request.query_params and bool(request.path_params.get("filter"))
    origins = sorted(request.app.state.gateway.guard.origins.listed)
    policy = embed_policy(origins) if is_chart else content_security_policy(page)
    if via_ingress(request.scope):
        # Home Assistant shows the whole page in a frame of its own page, of the same origin
        policy = policy.replace("frame-ancestors 'none'", "frame-ancestors 'self'")
    raw_path = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    page = page_at(page, raw_path.decode("latin-1"), request.scope.get("root_path", ""))
    if not built.exists():
        page = page.replace(
            "<!-- how to build the dashboard -->", HOW_TO_BUILD.replace("`make web`", "<code>make web</code>")
        )
    return HTMLResponse(page, headers={"Cache-Control": "no-cache", "Content-Security-Policy": policy})


async def index_among(request: Request) -> Response:
    """The page where there are other representations, too, by what a request accepts (RFC 9110 §12.5.5)."""
    page = await index(request)
    page.headers.add_vary_header("Accept")
    return page


async def whoami(request: Request) -> Response:
    """`/whoami`: who the asker is taken for, until when, and what that allows."""
    gateway = request.app.state.gateway
    answer = identity(principal_of(request.scope), gateway.guard.verifier is not None, gateway.node)
    answer["views"] = gateway.view_topic
    answer["share_seconds"] = None if gateway.sharing is None else int(gateway.sharing.max_seconds)
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


HOW_TO_BUILD = "`make web` in a checkout builds them, with Node.js 20.19 or 22.12, or with access to PyPI and npm"


async def not_built(request: Request) -> Response:
    """Every other path where the web pages were not built."""
    return PlainTextResponse(
        f"{request.url.path} is not here: the dashboard and the client library were not built. {HOW_TO_BUILD}.\n",
        status_code=404,
    )


def why_not_built(static: Path = STATIC) -> str | None:
    """For the log: why there is only the small page; None where the dashboard was built."""
    if (static / "index.html").exists():
        return None
    with contextlib.suppress(OSError):
        # written by scripts/build_web.py where it could not build them; of npm's words the first lines say enough
        lines = (static / "not-built.txt").read_text(encoding="utf-8").strip().splitlines()
        return " ".join(line.strip() for line in lines[:4])
    return "they were not built"


_RELATIVE = '"./'
"""How each address in the built page begins."""


class Pages(StaticFiles):
    """The files beside the page: compressed for those who take it, and with a word on how long they are good.

    What the build names by its content (`assets/`) is good for ever; the rest is asked for again each time, and
    answered with 304 while it is the same.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file at this path, or what was compressed of it when it was built.

        Raises:
            HTTPException: there is none (404), or the method is not GET or HEAD (405).
        """
        accepted = Headers(scope=scope).get("accept-encoding", "")
        is_compressed = takes_gzip(accepted) and self.lookup_path(f"{path}.gz")[1] is not None
        response = await super().get_response(f"{path}.gz" if is_compressed else path, scope)
        response.headers["Vary"] = "Accept-Encoding"
        is_named_by_content = path.startswith("assets/") and response.status_code in (200, 304)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_named_by_content else "no-cache"
        if is_compressed:
            response.headers["Content-Encoding"] = "gzip"
            response.headers["Content-Type"] = f"{guess_type(path)[0] or 'application/octet-stream'}; charset=utf-8"
        return response

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Where a file is, and what the system knows of it; a path that can be none (too long, a NUL) is not there."""
        try:
            return super().lookup_path(path)
        except (OSError, ValueError):
            return "", None


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a value of `Accept-Encoding` takes gzip (RFC 9110 §12.5.3): it is named, or `*`, and not with `q=0`."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameters = part.partition(";")
        _, _, weight = parameters.partition("q=")
        try:
            weights[name.strip()] = float(weight) if weight else 1.0
        except ValueError:
            weights[name.strip()] = 0.0
    return next((weights[name] > 0 for name in ("gzip", "x-gzip", "*") if name in weights), False)


def page_at(page: str, raw_path: str, root_path: str = "") -> str:
    """The page with addresses that are right where it is shown.

    Args:
        page: `index.html` as it was built.
        raw_path: path of the request as it was sent, percent-encoding and all: a browser counts its slashes, not
            those that are escaped.
        root_path: what of it lies before the gateway's root.
    """
    depth = raw_path.removeprefix(root_path.rstrip("/")).lstrip("/").count("/")
    return page if depth == 0 else page.replace(_RELATIVE, '"' + "../" * depth)


def embed_policy(origins: Iterable[str]) -> str:
    """The content security policy of a chart that other pages may show in a frame (`?embed=1`).

    Args:
        origins: who may, besides this origin; none of them may read what is in it.
    """
    allowed = " ".join(["'self'", *origins])
    return content_security_policy().replace("frame-ancestors 'none'", f"frame-ancestors {allowed}")


def identity(principal: Principal, takes_tokens: bool, node: str | None = None) -> dict[str, Any]:
    """Who the gateway takes somebody for and what that allows, for `/whoami`; `expires` in milliseconds since 1970.

    Args:
        principal: who asks; it hears of itself only.
        takes_tokens: whether this gateway can verify any.
        node: which node of a cluster answers; None where there is one gateway.
    """
    return {
        "name": principal.subject,
        "anonymous": principal.anonymous,
        "expires": None if principal.expires_at is None else int(principal.expires_at * 1000),
        "subscribe": [grant.topic_filter for grant in principal.subscribe],
        "publish": [grant.topic_filter for grant in principal.publish],
        "notes": list(principal.notes),
        "tokens": takes_tokens,
        "node": node,
    }
