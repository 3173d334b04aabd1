"""`format=payload`: bytes as they came, and nothing of a publisher's run as a page."""

from __future__ import annotations

import pytest

from gateway.routes.payload_file import media_type_of
from tests.test_topics_api import ask, running

pytestmark = pytest.mark.anyio

PICTURES = {
    "image/png": b"\x89PNG\r\n\x1a\n....",
    "image/jpeg": b"\xff\xd8\xff\xe0....",
    "image/gif": b"GIF89a....",
    "image/webp": b"RIFF....WEBPVP8 ",
}


@pytest.mark.parametrize(("media_type", "data"), PICTURES.items())
def test_a_picture_is_known_by_its_first_bytes(media_type: str, data: bytes) -> None:
    assert media_type_of(data)[0] == media_type
    assert media_type_of(b"x" + data)[0] in ("application/octet-stream", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    "data",
    [b"<script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"", b"RIFF....AVI "],
)
def test_whatever_a_browser_might_run_is_text(data: bytes) -> None:
    assert media_type_of(data) == ("text/plain; charset=utf-8", "txt")


async def test_the_newest_payload_comes_as_a_file() -> None:
    async with running() as (app, gateway):
        gateway.history.append("cam/door", b"old", 1)
        gateway.history.append("cam/door", PICTURES["image/jpeg"], 2)
        answer = await ask(app, "/topics/cam/door?format=payload")
        assert (answer.status, answer.body) == (200, PICTURES["image/jpeg"])
        headers = answer.headers
        assert headers["content-type"] == "image/jpeg"
        assert headers["content-disposition"] == "attachment; filename*=UTF-8''cam-door.jpg"
        assert headers["content-security-policy"] == "default-src 'none'; sandbox; frame-ancestors 'none'"
        for known in (headers["etag"], f'"other", W/{headers["etag"]}', "*"):
            again = await ask(app, "/topics/cam/door?format=payload", if_none_match=known)
            assert (again.status, again.body) == (304, b"")
        assert (await ask(app, "/topics/cam/door?format=payload", if_none_match='"other"')).status == 200
        gateway.history.append("page", b"<script>", 3)
        assert (await ask(app, "/topics/page?format=payload")).headers["content-type"] == "text/plain; charset=utf-8"


async def test_what_is_no_one_topic_or_has_no_message_is_told() -> None:
    async with running() as (app, gateway):
        gateway.history.append("a", b"1", 1)
        assert (await ask(app, "/topics/b?format=payload")).status == 404
        assert (await ask(app, "/topics/%23?format=payload")).status == 400
        assert (await ask(app, "/topics/a?format=payload&topic=b")).status == 400
        assert (await ask(app, "/topics/a?format=payload&since=1h")).status == 400
