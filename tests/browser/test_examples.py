"""`examples/`: sites with a back-end of their own beside a real gateway, in a real Chromium."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from playwright.sync_api import expect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.certificates import Authority
from tests.support.gateways import GatewayProcess
from tests.support.sites import clean_environment, site
from tests.support.waiting import PATIENCE_SECONDS, eventually, free_port, is_listening, missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

EXAMPLES = Path(__file__).parents[2] / "examples"
SECRET = "0123456789abcdef0123456789abcdef"
PASSWORD = "a-long-password"

pytestmark = [pytest.mark.slow]


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser of the test's own, with no cookies; no page may fail."""
    context = chromium.new_context()
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert errors == []


def needs(*modules: str) -> None:
    """Skips where a framework is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            missing(f"the package {module}")


def wait_for(page: Page, condition: Callable[[], bool], what: str) -> None:
    """Waits while events of the page come in."""

    def asked() -> bool:
        page.wait_for_timeout(50)
        return condition()

    eventually(asked, 30, what)


@dataclass
class Django:
    """The Django site of the example, and the gateway beside it."""

    origin: str
    gateway: GatewayProcess
    environment: dict[str, str]

    def manage(self, *arguments: str) -> None:
        """One of Django's commands."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=EXAMPLES / "django",
            env=clean_environment(self.environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def log_in(self, page: Page) -> None:
        """Logs in on the page that asks for it."""
        page.get_by_label("Username").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()


def django(gateway: GatewayProcess, folder: Path, *, origin: str, **more: str) -> Django:
    """The site with its database made and a user in it; not started."""
    needs("django")
    environment = {
        "DJANGO_DATABASE": str(folder / "db.sqlite3"),
        "DJANGO_SECRET_KEY": "of this test",
        "GATEWAY_URL": gateway.http,
        "GATEWAY_ACCESS_SECRET": SECRET,
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }
    made = Django(origin, gateway, environment)
    made.manage("migrate", "--verbosity", "0")
    made.environment["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    made.manage("createsuperuser", "--noinput", "--username", "anna", "--email", "anna@example.com")
    return made


class MakeLaptop(Protocol):
    """Starts the site as the example's first page says, with these variables."""

    def __call__(self, **environment: str) -> Django: ...


@pytest.fixture
def make_laptop(make_gateway: MakeGateway, mosquitto: Broker, tmp_path: Path) -> Iterator[MakeLaptop]:
    """`runserver` on a port of its own, and the gateway on another."""
    with contextlib.ExitStack() as stack:

        def make(**environment: str) -> Django:
            port = free_port()
            config = str(EXAMPLES / "django/gateway.toml")
            origins = [f"http://127.0.0.1:{port}"]
            gateway = make_gateway(mosquitto, config=config, access_secret=SECRET, access_origins=origins)
            made = django(gateway, tmp_path, origin=origins[0], DJANGO_DEBUG="1", **environment)
            command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
            log = tmp_path / "django.log"
            stack.enter_context(site(command, port, cwd=EXAMPLES / "django", log=log, environment=made.environment))
            return made

        yield make


@pytest.fixture
def laptop(make_laptop: MakeLaptop) -> Django:
    """The site with tokens that live for eight seconds."""
    return make_laptop(SITE_TOKEN_SECONDS="8")


def refused(address: str, **headers: str) -> int:
    """With which status or close code a socket is refused."""
    try:
        with connect(address, additional_headers=headers, open_timeout=PATIENCE_SECONDS) as socket:
            socket.recv(timeout=20)
    except InvalidStatus as error:
        return error.response.status_code
    except ConnectionClosed as error:
        return 0 if error.rcvd is None else error.rcvd.code
    raise AssertionError("it was given something")


def test_djangos_page_shows_temperatures_to_who_is_logged_in_and_to_nobody_else(
    laptop: Django, context: BrowserContext
) -> None:
    page = context.new_page()
    page.goto(laptop.origin)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    stream = f"{laptop.gateway.ws}/ws/temperature/"
    assert refused(stream, Origin=laptop.origin) == 4001
    laptop.log_in(page)
    laptop.manage("send_temperature", "21.5")
    expect(page.locator("#temperature")).to_have_text("21.5")
    laptop.manage("send_temperature", "19")
    expect(page.locator("#temperature")).to_have_text("19")
    # it is loaded anew before its token ends, so it goes on
    page.wait_for_event("load", timeout=30_000)
    expect(page.locator("#temperature")).to_have_text("19")
    cookie = next(each for each in context.cookies() if each["name"] == "gateway")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    laptop.gateway.stop()  # nobody stays logged in for that
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert not [each for each in context.cookies() if each["name"] == "gateway"]


def test_djangos_page_with_the_client_library_outlives_its_tokens_and_ends_with_the_login(
    laptop: Django, context: BrowserContext
) -> None:
    page = context.new_page()
    tokens: list[int] = []
    page.on("response", lambda answer: tokens.append(answer.status) if "gateway-token" in answer.url else None)
    page.goto(f"{laptop.origin}/lasting/")
    laptop.log_in(page)
    laptop.manage("send_temperature", "21.5")
    expect(page.locator("#temperature")).to_have_text("21.5")
    # before its end a token is renewed, over the same connection
    wait_for(page, lambda: len(tokens) > 2, "two renewals")
    assert set(tokens) == {200}
    laptop.manage("send_temperature", "-3")
    expect(page.locator("#temperature")).to_have_text("-3")
    other = context.new_page()
    other.goto(laptop.origin)
    other.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible(timeout=30_000)


def test_logging_out_of_django_ends_at_once_what_is_open_by_long_tokens(
    make_laptop: MakeLaptop, context: BrowserContext
) -> None:
    laptop = make_laptop(SITE_TOKEN_SECONDS="3600")
    page = context.new_page()
    page.goto(laptop.origin)
    laptop.log_in(page)
    lasting = context.new_page()
    lasting.goto(f"{laptop.origin}/lasting/")
    laptop.manage("send_temperature", "21.5")
    for each in (page, lasting):
        expect(each.locator("#temperature")).to_have_text("21.5")
    [cookie] = [f"{each['name']}={each['value']}" for each in context.cookies() if each["name"] == "gateway"]
    other = context.new_page()
    other.goto(laptop.origin)
    other.get_by_role("button", name="Log out").click()
    expect(lasting.get_by_role("heading", name="Log in")).to_be_visible(timeout=30_000)
    laptop.manage("send_temperature", "-3")
    # who kept the cookie gets nothing, nor does the page that is still open
    stream = f"{laptop.gateway.ws}/ws/temperature/"
    assert refused(stream, Origin=laptop.origin, Cookie=cookie) == 4001
    expect(page.locator("#temperature")).to_have_text("21.5")


def test_a_group_of_djangos_users_is_a_role_of_the_gateway(laptop: Django, context: BrowserContext) -> None:
    laptop.gateway.stop()
    laptop.gateway.settings["roles"] = {
        "viewer": {"subscribe": ["sensors/+/state"]},
        "operators": {"publish": ["sensors/+/cmd"]},
    }
    laptop.gateway.start()
    page = context.new_page()
    page.goto(laptop.origin)
    laptop.log_in(page)
    expect(page.get_by_role("heading", name="Temperature")).to_be_visible()

    def rights() -> Any:
        return page.request.get(f"{laptop.gateway.http}/whoami").json()

    assert not rights()["publish"]
    code = (
        "from django.contrib.auth.models import Group, User; "
        "User.objects.get(username='anna').groups.add(Group.objects.create(name='operators'))"
    )
    laptop.manage("shell", "-c", code)
    page.goto(laptop.origin)
    assert "sensors/+/cmd" in str(rights()["publish"])


def test_behind_nginx_site_and_gateway_have_one_address_and_a_cookie_of_that_host_only(
    docker: None,
    make_gateway: MakeGateway,
    mosquitto: Broker,
    authority: Authority,
    chromium: Browser,
    tmp_path: Path,
) -> None:
    from testcontainers.core.container import DockerContainer

    port, public = free_port(), free_port()
    gateway = make_gateway(
        mosquitto,
        config=str(EXAMPLES / "django/gateway.toml"),
        access_secret=SECRET,
        access_origins="none",
        access_cookie="__Host-gateway",
        forwarded_allow_ips="127.0.0.1",
    )
    text = (EXAMPLES / "django/nginx.conf").read_text()
    pair = authority.issue("django", hosts=("localhost",))
    for source in (pair.cert, pair.key):
        shutil.copy(source, tmp_path / f"example.com{source.suffix}")
    for written, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{public} ssl"),
        ("server_name example.com", "server_name localhost"),
        ("http://127.0.0.1:8080", f"http://127.0.0.1:{port}"),
        ("http://127.0.0.1:8000", gateway.http),
    ):
        assert written in text
        text = text.replace(written, here)
    (tmp_path / "site.conf").write_text(text)
    made = django(gateway, tmp_path, origin=f"https://localhost:{public}", DJANGO_HOSTS="localhost")
    container = (
        DockerContainer("nginx:stable")
        .with_volume_mapping(str(tmp_path / "site.conf"), "/etc/nginx/conf.d/site.conf", "ro")
        .with_volume_mapping(str(tmp_path), "/etc/nginx/certs", "ro")
        .with_kwargs(network_mode="host")
    )
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    running = site(command, port, cwd=EXAMPLES / "django", log=tmp_path / "django.log", environment=made.environment)
    context = chromium.new_context(ignore_https_errors=True)
    try:
        with running, container:
            eventually(lambda: is_listening(public), 20, "nginx listens")
            page = context.new_page()
            page.goto(made.origin)
            made.log_in(page)
            made.manage("send_temperature", "21.5")
            expect(page.locator("#temperature")).to_have_text("21.5")
            cookie = next(each for each in context.cookies() if each["name"] == "__Host-gateway")
            assert cookie["secure"]
            assert cookie["path"] == "/"
            page.goto(f"{made.origin}/lasting/")
            expect(page.locator("#temperature")).to_have_text("21.5")
            assert page.request.get(f"{made.origin}/metrics").status == 404
    finally:
        context.close()


@pytest.fixture(params=["fastapi", "node"])
def small_site(
    request: pytest.FixtureRequest, make_gateway: MakeGateway, mosquitto: Broker, tmp_path: Path
) -> Iterator[str]:
    """The site of another example beside a gateway."""
    port = free_port()
    if request.param == "fastapi":
        needs("fastapi", "jwt", "httpx")
        command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)]
    else:
        node = shutil.which("node")
        if node is None:
            missing("Node.js")
        command = [node, "server.mjs"]
    gateway = make_gateway(mosquitto, access_secret=SECRET, access_origins=[f"http://127.0.0.1:{port}"])
    environment = {
        "GATEWAY_URL": gateway.http,
        "GATEWAY_ACCESS_SECRET": SECRET,
        "SITE_TOKEN_SECONDS": "8",
        "SITE_USER": "anna",
        "SITE_PASSWORD": PASSWORD,
        "PORT": str(port),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    folder = EXAMPLES / request.param
    # what the second shell does, after what the first one has left there
    [line] = [line for line in (folder / "README.md").read_text(encoding="utf-8").splitlines() if line[:5] == "curl "]
    curl = line.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{port}")
    (tmp_path / "curl.sh").write_text(f"SITE_PASSWORD={PASSWORD}\n{curl} -sS --fail\n")
    with site(command, port, cwd=folder, log=tmp_path / "site.log", environment=environment) as origin:
        yield origin


def test_another_back_end_gives_its_users_tokens_and_sends_temperatures(
    small_site: str, chromium: Browser, tmp_path: Path
) -> None:
    stranger = chromium.new_context()
    assert stranger.request.get(f"{small_site}/gateway-token").status == 401
    assert stranger.request.post(f"{small_site}/temperatures", data={"temperature": 1}).status == 401
    stranger.close()
    context = chromium.new_context(http_credentials={"username": "anna", "password": PASSWORD})
    try:
        page = context.new_page()
        tokens: list[int] = []
        page.on("response", lambda answer: tokens.append(answer.status) if "gateway-token" in answer.url else None)
        page.goto(small_site)
        subprocess.run(["sh", str(tmp_path / "curl.sh")], check=True, timeout=30)
        expect(page.locator("#temperature")).to_have_text("21.5")
        wait_for(page, lambda: len(tokens) > 1, "a renewal")
        assert page.request.post(f"{small_site}/temperatures", data={"temperature": -3}).status == 202
        expect(page.locator("#temperature")).to_have_text("-3")
    finally:
        context.close()


def test_every_example_for_a_back_end_says_how_it_is_started(tmp_path: Path) -> None:
    for name in ("django", "fastapi", "node"):
        text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
        # what makes the secrets, what takes them in the first shell and in the second
        [make] = [line for line in text.splitlines() if "umask" in line]
        take = ". ./.env"
        assert text.count(f"\n{take}\n") == 2
        shown = "printf '%s ' $GATEWAY_ACCESS_SECRET $DJANGO_SECRET_KEY $SITE_PASSWORD"
        shells = (f"{make}\n{take}\n{shown}", f"{take}\n{shown}")
        first, second = (
            subprocess.run(["sh", "-ec", shell], cwd=tmp_path, capture_output=True, check=True, timeout=30)
            for shell in shells
        )
        assert first.stdout == second.stdout
        assert len(first.stdout.split()) == 2
        assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
        for file in re.findall(r"`((?:\w+/)*\w+\.(?:py|mjs|html|toml|conf))`", text):
            assert (EXAMPLES / name / file).is_file(), f"{name}/README.md names {file}"
