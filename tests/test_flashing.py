"""Images for boards over HTTP, and who is given the broker's credentials."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from firmware import keys
from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from gateway.routes import flashing
from tests.test_topics_api import Answer, ask, running

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


# -- keys of boards

KEY = "5e" * 32


async def leave(app: Starlette, board: str, key: object = KEY, authorization: str = "Bearer") -> Answer:
    data = json.dumps({"key": key}).encode()
    return await ask(app, f"/flash/keys/{board}", "POST", data=data, authorization=authorization)


async def test_a_key_is_kept_where_the_tool_finds_it_and_only_its_owner_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    path = tmp_path / "keys"
    monkeypatch.setenv(keys.VARIABLE, str(path))
    attic = keys.of("attic")  # the tool's own line stays
    async with running(flash_keys_file=path) as (app, _):
        answer = await leave(app, "kitchen")
        assert (answer.status, json.loads(answer.body)) == (201, {"id": "kitchen"})
        assert keys.load() == {"attic": attic, "kitchen": KEY}
        assert (await leave(app, "kitchen", "ab" * 32)).status == 201  # written anew: the later line counts
        assert (await leave(app, "kitchen")).status == 201  # and back again
        assert keys.of("kitchen") == KEY
        size = path.stat().st_size
        assert (await leave(app, "kitchen")).status == 201
        assert path.stat().st_size == size  # it is there already
        assert (await ask(app, "/flash/keys/kitchen")).status == 405  # nobody is given any
    assert "kitchen" in caplog.text
    assert KEY not in caplog.text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_new_file_of_keys_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with running(flash_keys_file=tmp_path / "keys") as (app, _):
        assert (await leave(app, "kitchen")).status == 201
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


async def test_a_line_without_an_end_stays_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"attic {KEY}")
    async with running(flash_keys_file=path) as (app, _):
        assert (await leave(app, "kitchen")).status == 201
    assert path.read_text() == f"attic {KEY}\nkitchen {KEY}\n"


async def test_only_who_may_set_up_sensors_leaves_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = secret_key(SECRET)

    def bearer(*publish: str) -> str:
        return f"Bearer {mint(key, subject='x', subscribe=(), publish=publish, ttl_seconds=60)}"

    async with running(flash_keys_file=path, access_secret=SECRET) as (app, _):
        assert (await leave(app, "kitchen")).status == 401
        for grants in ((), ("sensors/kitchen/#",)):
            assert (await leave(app, "kitchen", authorization=bearer(*grants))).status == 403
        assert not path.exists()
        assert (await leave(app, "kitchen", authorization=bearer("sensors/#"))).status == 201


@pytest.mark.parametrize(
    ("board", "key"),
    [("..", KEY), ("%0A", KEY), ("Kitchen", KEY), ("a%20b", KEY), ("k" * 65, KEY), ("k", KEY[1:]), ("k", KEY.upper()),
     ("k", KEY + "\nattic " + KEY), ("k", 5)],
)  # fmt: skip
async def test_what_is_no_key_is_refused_without_being_repeated(board: str, key: object, tmp_path: Path) -> None:
    async with running(flash_keys_file=tmp_path / "keys") as (app, _):
        answer = await leave(app, board, key)
        assert answer.status == 400
        assert KEY[1:] not in answer.body.decode().lower()
    assert not (tmp_path / "keys").exists()


async def test_a_file_of_keys_has_a_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashing, "MAX_FILE_BYTES", 200)
    path = tmp_path / "keys"
    async with running(flash_keys_file=path) as (app, _):
        assert [(await leave(app, f"board{number}")).status for number in range(4)] == [201, 201, 503, 503]
        assert (await leave(app, "board1")).status == 201  # is there
        assert len(path.read_text().splitlines()) == 2
        too_long = await ask(app, "/flash/keys/board1", method="POST", data=b" " * 2000)
        assert too_long.status == 413


async def test_a_gateway_that_keeps_no_keys_says_so_and_one_that_cannot(tmp_path: Path) -> None:
    async with running() as (app, _):
        answer = await leave(app, "kitchen")
        assert (answer.status, b"GATEWAY_FLASH_KEYS_FILE" in answer.body) == (404, True)
    async with running(flash_keys_file=tmp_path / "none" / "keys") as (app, _):
        answer = await leave(app, "kitchen")
        assert answer.status == 503
        assert KEY.encode() not in answer.body
