"""A FastAPI site with live temperatures: the gateway has its sockets, the site says who may open them.

GATEWAY_URL is where the gateway is, GATEWAY_ACCESS_SECRET signs its tokens; SITE_USER may log in with SITE_PASSWORD.
"""

import os
import secrets
import time
from pathlib import Path
from typing import Annotated

import httpx
import jwt
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel

GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000")
SECRET = os.environ["GATEWAY_ACCESS_SECRET"]
USER, PASSWORD = os.environ["SITE_USER"], os.environ["SITE_PASSWORD"]
TOKEN_SECONDS = int(os.environ.get("SITE_TOKEN_SECONDS", "600"))
TOPIC = "sensors/living-climate/state"
PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8").replace("GATEWAY", GATEWAY)

app = FastAPI()


def token(subject: str, topics: dict[str, list[str]]) -> str:
    """A token for the gateway, by which somebody may subscribe and publish to topics."""
    now = int(time.time())
    claims = {"sub": subject, "iat": now, "exp": now + TOKEN_SECONDS, "topics": topics}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def user(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
    """Who is logged in; your own site has its own way to know."""
    right = secrets.compare_digest(f"{given.username}\0{given.password}".encode(), f"{USER}\0{PASSWORD}".encode())
    if not right:
        raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
    return given.username


User = Annotated[str, Depends(user)]


class Reading(BaseModel):
    """What a sensor sends to the site."""

    temperature: float


@app.get("/", response_class=HTMLResponse)
def page(_: User) -> str:
    """The page."""
    return PAGE


@app.get("/gateway-token")
def gateway_token(name: User, response: Response) -> dict[str, str]:
    """The token with which the page opens its connection, and renews it."""
    response.headers["Cache-Control"] = "no-store"
    return {"token": token(name, {"subscribe": [TOPIC]})}


@app.post("/temperatures", status_code=202)
async def send_temperature_update(reading: Reading, _: User) -> None:
    """Gives a temperature to everybody who looks at it."""
    headers = {"Authorization": f"Bearer {token('site', {'publish': [TOPIC]})}"}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{GATEWAY}/topics/{TOPIC}", json=reading.model_dump(), headers=headers)
    answer.raise_for_status()
