"""Images for boards over HTTP, and who is given the broker's credentials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.test_topics_api import ask, running

pytestmark = pytest.mark.anyio

SECRET = "a secret of more than thirty-two bytes"
BROKER = {"url": "mqtt://192.168.1.10", "username": "sensors", "password": "battery staple"}
OFFER: dict[str, Any] = {"flash_broker_url": "mqtt://sensors:battery%20staple@192.168.1.10"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    (images / "manifest.json").write_text(json.dumps({"builds": []}))
    (images / "esp32c3.bin").write_bytes(b"\xe9image")
    (images / "settings.toml").write_text("secret")
    (tmp_path / "secret.json").write_text("secret")
    (images / "link.json").symlink_to(tmp_path / "secret.json")
    return images


async def test_images_are_there_for_everyone_also_where_tokens_are_asked_for(folder: Path) -> None:
    async with running(flash_folder=folder, access_secret=SECRET) as (app, _):
        manifest = await ask(app, "/flash/manifest.json")
        assert (manifest.status, manifest.json()) == (200, {"builds": []})
        image = await ask(app, "/flash/esp32c3.bin")
        assert (image.status, image.body) == (200, b"\xe9image")
        assert image.headers["content-type"] == "application/octet-stream"
        assert (await ask(app, "/flash")).status == 200


@pytest.mark.parametrize(
    "name", ["settings.toml", "link.json", "..%2Fsecret.json", "%2e%2e", "none.bin", "x" * 300 + ".bin", "a%00.bin"]
)
async def test_nothing_else_of_the_disk_is_given(name: str, folder: Path) -> None:
    async with running(flash_folder=folder) as (app, _):
        answer = await ask(app, f"/flash/{name}")
        assert answer.status in (400, 404)
        assert b"secret" not in answer.body.replace(b"secret.json", b"")


async def test_without_a_folder_the_answer_names_the_setting() -> None:
    async with running() as (app, _):
        answer = await ask(app, "/flash/manifest.json")
        assert answer.status == 404
        assert b"GATEWAY_FLASH_FOLDER" in answer.body
        assert (await ask(app, "/flash/broker")).status == 404


async def test_the_broker_is_for_those_who_may_publish_as_sensors_do() -> None:
    def bearer(*publish: str) -> str:
        return f"Bearer {mint(secret_key(SECRET), ttl_seconds=60, subscribe=['#'], publish=list(publish))}"

    async with running(**OFFER, access_secret=SECRET) as (app, _):
        given = await ask(app, "/flash/broker", authorization=bearer("sensors/#"))
        assert (given.status, given.json()) == (200, BROKER)
        assert given.headers["cache-control"] == "no-store"
        assert (await ask(app, "/flash/broker", authorization=bearer("#"))).status == 200
        for grants in ((), ("sensors/+/cmd",), ("sensors/a/#", "sensors/b/#")):
            refused = await ask(app, "/flash/broker", authorization=bearer(*grants))
            assert refused.status == 403
            assert b"staple" not in refused.body
        assert (await ask(app, "/flash/broker")).status == 401


async def test_an_anonymous_client_gets_it_only_where_nobody_has_tokens() -> None:
    async with running(**OFFER) as (app, _):
        assert (await ask(app, "/flash/broker")).json() == BROKER
    roles = {"roles": {"all": {"subscribe": ["#"], "publish": ["#"]}}, "access_anonymous_role": "all"}
    async with running(**OFFER, **roles, access_secret=SECRET) as (app, _):
        assert (await ask(app, "/flash/broker")).status == 401
