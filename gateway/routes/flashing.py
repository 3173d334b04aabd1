"""`/flash/…`: images that the page writes to boards, and the broker that it may give them.

Invariant: an image is the same for everybody and holds no secret, so everyone may fetch it; the broker's user and
password go only to somebody who may publish all that a sensor does, and never to an anonymous client of a gateway that
asks for tokens.
"""

from __future__ import annotations

import re
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from gateway.access.grants import AccessError, Principal
from gateway.core.topics import covers
from gateway.door.refusals import principal_of
from gateway.routes.question import ApiError
from gateway.runtime import Gateway

__all__ = ["SENSOR_TOPICS", "broker_for_sensors", "flash_file"]

SENSOR_TOPICS = "sensors/#"
"""What a sensor publishes to: the leave to do the same is the leave to set one up."""

_NAME = re.compile(r"[\w-][\w.-]*\.(json|bin)")


async def flash_file(request: Request) -> Response:
    """`/flash/NAME`: the manifest, the tables of pins, or an image, of the folder that `GATEWAY_FLASH_FOLDER` names."""
    gateway: Gateway = request.app.state.gateway
    name = request.path_params["name"]
    folder = gateway.flash_folder
    if folder is None:
        raise ApiError(404, "bad_request", "there are no images here: GATEWAY_FLASH_FOLDER is not set")
    path = folder / name
    if _NAME.fullmatch(name) is None or not await run_in_threadpool(_is_inside, path, folder):
        raise ApiError(404, "bad_request", f"there is no image {name!r} here")
    media_type = "application/json" if name.endswith(".json") else "application/octet-stream"
    return FileResponse(path, media_type=media_type, headers={"Cache-Control": "no-cache"})


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether it is a file of this folder, also where a link leads elsewhere."""
    try:
        return path.is_file() and path.resolve().parent == folder.resolve()
    except (OSError, ValueError):
        return False


async def broker_for_sensors(request: Request) -> Response:
    """`/flash/broker`: the broker as boards see it, with a user and a password for them."""
    gateway: Gateway = request.app.state.gateway
    principal = principal_of(request.scope)
    if gateway.flash_broker is None:
        raise ApiError(404, "bad_request", "no broker is offered to boards here: GATEWAY_FLASH_BROKER_URL is not set")
    if not may_set_up(principal, gateway.guard.verifier is not None):
        error = AccessError(f"{principal.name} may not publish to '{SENSOR_TOPICS}', so not set up a sensor either")
        raise gateway.guard.refused(principal, error)
    return JSONResponse(gateway.flash_broker, headers={"Cache-Control": "no-store"})


def may_set_up(principal: Principal, takes_tokens: bool) -> bool:
    """Whether somebody may have the credentials of sensors.

    Args:
        principal: Who asks.
        takes_tokens: Whether this gateway can verify any; if so, an anonymous client has none to show for itself.
    """
    if principal.anonymous and takes_tokens:
        return False
    return any(covers(grant.topic_filter, SENSOR_TOPICS) for grant in principal.publish)
