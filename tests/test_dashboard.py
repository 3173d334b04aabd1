"""The dashboard's page finds its files and the gateway's root from any address."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from urllib.parse import urljoin

import pytest
from starlette.exceptions import HTTPException

from gateway.access.grants import Grant, Principal
from gateway.routes.dashboard import Pages, embed_policy, identity, page_at, takes_gzip

PAGE = '<meta name="gateway-root" content="./"><script src="./assets/a.js"></script>'


def root_of(page: str) -> str:
    return page.partition('content="')[2].partition('"')[0]


@pytest.mark.parametrize(
    ("address", "root_path", "root"),
    [
        ("/", "", "/"),
        ("/topics", "", "/"),
        ("/topics/a", "", "/"),
        ("/topics/sensors/+/state", "", "/"),
        # an escaped slash is no level for a browser
        ("/topics/a%2F%2Fb", "", "/"),
        ("/topics/%23", "", "/"),
        ("/gw/", "/gw", "/gw/"),
        ("/gw/topics/a/b", "/gw", "/gw/"),
        ("/gw/topics/a/b", "/gw/", "/gw/"),
    ],
)
def test_every_address_leads_back_to_the_root(address: str, root_path: str, root: str) -> None:
    page = page_at(PAGE, address, root_path)
    assert urljoin(f"http://host{address}", root_of(page)) == f"http://host{root}"
    assert urljoin(f"http://host{address}", root_of(page) + "assets/a.js") in {
        urljoin(f"http://host{address}", part) for part in page.split('"')
    }


def test_a_proxy_that_cuts_the_prefix_off_need_not_be_known() -> None:
    # the browser is at /gw/topics/a/b, the gateway sees /topics/a/b
    page = page_at(PAGE, "/topics/a/b")
    assert urljoin("http://host/gw/topics/a/b", root_of(page)) == "http://host/gw/"


def test_a_frame_is_allowed_to_this_origin_and_those_that_are_listed() -> None:
    policy = embed_policy(["https://wiki.example.org"])
    assert "frame-ancestors 'self' https://wiki.example.org" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'self'" in embed_policy([])


def test_who_asks_hears_of_its_grants_and_its_end() -> None:
    principal = Principal("ann", (Grant("sensors/#", "the token"),), (), expires_at=1_790_000_000.5, notes=("a note",))
    assert identity(principal, takes_tokens=True) == {
        "name": "ann",
        "anonymous": False,
        "expires": 1_790_000_000_500,
        "subscribe": ["sensors/#"],
        "publish": [],
        "notes": ["a note"],
        "tokens": True,
        "node": None,
    }
    assert identity(Principal(anonymous=True), takes_tokens=False)["expires"] is None
    assert identity(Principal(anonymous=True), takes_tokens=False, node="n1")["node"] == "n1"


def test_files_are_sent_compressed_to_those_who_take_it_and_say_how_long_they_are_good(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    for name in ("client.js", "assets/index-abc.js"):
        (tmp_path / name).write_text("export {}")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b"export {}"))
    (tmp_path / "icon.svg").write_text("<svg/>")

    def headers(path: str, accepted: str) -> dict[str, str]:
        scope = {"type": "http", "method": "GET", "headers": [(b"accept-encoding", accepted.encode())]}
        return dict(asyncio.run(Pages(directory=tmp_path).get_response(path, scope)).headers)

    client = headers("client.js", "br, gzip")
    assert client["content-encoding"] == "gzip"
    assert client["content-type"] == "text/javascript; charset=utf-8"
    assert client["cache-control"] == "no-cache"
    plain = headers("client.js", "identity")
    assert "content-encoding" not in plain
    assert plain["content-length"] == "9"
    assert plain["etag"] != client["etag"]
    assert "content-encoding" not in headers("icon.svg", "gzip")
    assert headers("assets/index-abc.js", "gzip")["cache-control"] == "public, max-age=31536000, immutable"
    with pytest.raises(HTTPException):
        headers("assets/index-old.js", "gzip")


@pytest.mark.parametrize("path", ["\0", "client.js\0", "a" * 300, "a/" * 5_000])
@pytest.mark.parametrize("accepted", ["", "gzip"])
def test_a_path_that_no_file_can_have_is_not_found(tmp_path: Path, path: str, accepted: str) -> None:
    scope = {"type": "http", "method": "GET", "headers": [(b"accept-encoding", accepted.encode())]}
    with pytest.raises(HTTPException) as caught:
        asyncio.run(Pages(directory=tmp_path).get_response(path, scope))
    assert caught.value.status_code == 404


@pytest.mark.parametrize(
    ("accept_encoding", "is_taken"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("deflate, x-gzip", True),
        ("*", True),
        ("gzip; q=1.0, *;q=0", True),
        ("gzip;q=0", False),
        ("gzip ; q=0.000", False),
        ("*, gzip;q=0", False),
        ("*;q=0", False),
        ("gzip;q=much", False),
        ("gzipped", False),
        ("", False),
    ],
)
def test_compressed_files_are_for_those_who_say_so(accept_encoding: str, is_taken: bool) -> None:
    assert takes_gzip(accept_encoding) is is_taken
