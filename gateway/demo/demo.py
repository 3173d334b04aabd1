"""A broker, simulated sensors and the gateway, started together and stopped together.

Invariant: whatever ends the demo (Ctrl-C, SIGTERM, a closed terminal, a part that dies), no process of it is left and
nothing of it stays on disk. What each part does is its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from urllib.parse import quote, unquote, urlsplit

from gateway.settings.table import Settings
from gateway.transport.sockets import ListenError, is_free, listen

__all__ = ["DemoError", "run", "start_broker"]


USUAL_PAGE_PORT = 8000
USUAL_BROKER_PORT = 1883
START_SECONDS = 20.0
STOP_SECONDS = 5.0

LOOPBACK_ORIGINS = ("http://localhost:*", "http://127.0.0.1:*")
"""Pages of this machine's development servers: what README shows works where it is pasted."""


class DemoError(Exception):
    """The demo can't start or go on; the text says why and what to do.

    Attributes:
        exit_code: 2 where what was asked for can't be, 1 where something failed.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Stopped(BaseException):
    """A signal asks the demo to end."""


class _Parts:
    """The demo's processes, and one that ends them if the demo is killed before it can.

    Attributes:
        folder: for their files; gone in the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        reading, self._line = os.pipe()
        command = [sys.executable, "-m", "gateway.demo.cleanup", str(folder)]
        self._survivor = subprocess.Popen(command, stdin=reading, start_new_session=True)  # noqa: S603
        os.close(reading)

    def _tell(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed it
            os.write(self._line, f"{text}\n".encode())

    @contextlib.contextmanager
    def process(
        self, command: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A child process that is gone at the end; its output goes to a file."""
        with log.open("wb") as output:
            # a session of its own: Ctrl-C reaches only us, and we stop the parts in order
            child = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._tell(f"+{child.pid}")
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            self._tell(f"-{child.pid}")

    def close(self) -> None:
        """Lets the survivor go, which removes the folder."""
        os.close(self._line)
        self._survivor.wait()


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "".join(f"\n    {line}" for line in lines[-5:])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def start_broker(
    parts: _Parts, *, lan: bool = False, prefer_embedded: bool = False
) -> Iterator[tuple[str, int, subprocess.Popen[bytes]]]:
    """A broker on a free port, 1883 if that is free; gives its name, port and process.

    Args:
        parts: where it belongs; its configuration and log are in their folder.
        lan: listen on every address, not on loopback only.
        prefer_embedded: not Mosquitto even if it is installed.

    Raises:
        DemoError: there is none, or it does not start.
    """
    mosquitto = None if prefer_embedded else _find_mosquitto()
    if mosquitto is None and find_spec("amqtt") is None:
        raise DemoError(
            "there is no broker to start: install Mosquitto, or the embedded one with "
            "pip install '.[demo]' in a checkout, or name one that runs with --broker mqtt://…"
        )
    host = "0.0.0.0" if lan else "127.0.0.1"
    name = "Mosquitto" if mosquitto else "embedded broker (amqtt)"
    log = parts.folder / "broker.log"
    # between choosing a port and listening on it another process may take it
    for attempt in range(3):
        port = USUAL_BROKER_PORT if attempt == 0 and is_free(USUAL_BROKER_PORT) else _free_port()
        if mosquitto:
            configuration = parts.folder / "mosquitto.conf"
            configuration.write_text(
                f"listener {port} {host}\nallow_anonymous true\npersistence false\n"
                "log_dest stderr\nlog_type error\nlog_type warning\n",
                encoding="ascii",
            )
            command = [mosquitto, "-c", str(configuration)]
        else:
            command = [sys.executable, "-m", "gateway.demo.embedded_broker", host, str(port)]
        with parts.process(command, log) as child:
            deadline = time.monotonic() + START_SECONDS
            while child.poll() is None and time.monotonic() < deadline:
                if _answers(port):
                    yield name, port, child
                    return
                time.sleep(0.05)
    raise DemoError(f"the {name} does not start:{_last_lines(log)}")


def _find_mosquitto() -> str | None:
    # Debian keeps it in a folder that is on root's PATH only, Homebrew in one that may be on nobody's
    folders = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
    return shutil.which("mosquitto", path=folders)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _lan_address() -> str:
    """This machine's address in its network, as others see it; nothing is sent to find it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # RFC 5737: an address that is nobody's
        address: str = sock.getsockname()[0]
        return address
    return "127.0.0.1"


def _listen(port: int | None) -> socket.socket:
    if port is None:
        with contextlib.suppress(ListenError):
            return listen("127.0.0.1", USUAL_PAGE_PORT)
        port = 0
    try:
        return listen("127.0.0.1", port)
    except ListenError as error:
        raise DemoError(str(error), 2) from None


class _Watch:
    """Ends the demo when one of its parts ends by itself."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.exit_code = 1
        self._ending = threading.Event()

    def over(self, name: str, child: subprocess.Popen[bytes], log: Path) -> None:
        """Watches one more part."""

        def wait() -> None:
            code = child.wait()
            if not self._ending.is_set():
                self.exit_code = 2 if code == 2 else 1  # what was asked of it can't be
                self.failure = f"the {name} ended (exit code {code}):{_last_lines(log)}"
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, name=f"watch {name}", daemon=True).start()

    def end(self) -> None:
        """From here on, parts are expected to end."""
        self._ending.set()


def _end_with_terminal() -> None:
    """Asks the demo to end when its terminal is closed, whoever leads the session there.

    The system tells the leader only, such as `make`, which then waits for us.
    """
    if not sys.stdin.isatty():
        return

    def wait() -> None:
        poll = select.poll()
        poll.register(sys.stdin.fileno(), 0)  # a hang-up comes without being asked for
        poll.poll()
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=wait, name="watch terminal", daemon=True).start()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  also when somebody pipes it


def run(
    *,
    broker_url: str | None = None,
    scenario: str | None = None,
    devices: int | None = None,
    rate: float = 1,
    seed: int = 7,
    port: int | None = None,
    lan: bool = False,
    prefer_embedded: bool = False,
    origins: Sequence[str] = (),
    write: Callable[[str], None] = _say,
) -> None:
    """Runs the demo until a signal asks it to end.

    Args:
        broker_url: the broker to use; None starts one.
        scenario: of the simulator; without one and without `devices` it is `home`.
        devices: how many simulated sensors; None is as many as the scenario has.
        rate: readings a second of each.
        seed: of the simulation.
        port: of the page; None is 8000, or a free one where that is taken.
        lan: whether the started broker listens on every address.
        prefer_embedded: start the embedded broker, not Mosquitto.
        origins: of other sites whose pages may use it, beside those of this machine's own servers where the broker is
            the demo's.
        write: takes what there is to say, line by line.

    Raises:
        DemoError: it can't start, or a part of it has ended.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Stopped

    def hang_up(_number: int, _frame: FrameType | None) -> None:
        # while the gateway serves, SIGTERM is what it listens to
        os.kill(os.getpid(), signal.SIGTERM)

    handlers = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: hang_up}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    watch = _Watch()
    _end_with_terminal()
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-demo-")))
            parts = _Parts(folder)
            stack.callback(parts.close)
            page = stack.enter_context(_listen(port))
            child = None
            if broker_url is None:
                name, broker_port, child = stack.enter_context(
                    start_broker(parts, lan=lan, prefer_embedded=prefer_embedded)
                )
                broker_url = f"mqtt://127.0.0.1:{broker_port}"
                shown_url = f"mqtt://{_lan_address()}:{broker_port}" if lan else broker_url
                watch.over(name, child, folder / "broker.log")
                # all that there is to read is the demo's own
                origins = (*LOOPBACK_ORIGINS, *origins)
            else:
                name, shown_url = "your broker", _without_user(broker_url)
            # after the broker on the stack: on the way out, parts end before the broker does
            stack.callback(watch.end)
            settings = _settings(broker_url, page, origins)
            if scenario is None and devices is None:
                scenario = "home"
            if devices != 0:
                log = folder / "sensors.log"
                command, environment = _simulator(broker_url)
                command += ["--scenario", scenario] if scenario else []
                command += ["--devices", str(devices)] if devices else []
                command += ["--rate", f"{rate:g}", "--seed", str(seed)]
                sensors = stack.enter_context(parts.process(command, log, environment))
                watch.over("simulator", sensors, log)
                stack.callback(watch.end)
            taken = _taken(port, page, broker_url if child else None)
            what = _sensors(scenario, devices)
            _serve(settings, page, lambda: _announce(write, page, name, shown_url, what, taken))
    except _Stopped:
        if not watch.failure:
            with contextlib.suppress(OSError):  # the terminal may be gone
                write("\nStopped.")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if watch.failure:
        raise DemoError(watch.failure, watch.exit_code)


def _without_user(broker_url: str) -> str:
    """The address of a broker as it may be shown: whoever can list processes or reads a screen sees it."""
    parts = urlsplit(broker_url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _simulator(broker_url: str) -> tuple[list[str], dict[str, str]]:
    """The simulator's command, and what its environment has beside ours."""
    user = urlsplit(broker_url)
    command = [sys.executable, "-m", "sensors_sim", "--broker", _without_user(broker_url)]
    if user.username:
        command += ["--username", unquote(user.username)]
    return command, {"SENSORS_SIM_PASSWORD": unquote(user.password)} if user.password else {}


def _settings(broker_url: str, page: socket.socket, origins: Sequence[str]) -> Settings:
    from pydantic import ValidationError

    try:
        return Settings(
            mqtt_url=broker_url,
            # nobody else's session, and none left behind
            mqtt_client_id=f"gateway-demo-{os.getpid()}",
            mqtt_session_expiry=0,
            port=page.getsockname()[1],
            access_origins=tuple(origins),
            view_topic="gateway/views",
            log_format="human",
            log_level="warning",
        )
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        flag = "--origin" if problem["loc"][0] == "access_origins" else "--broker"
        raise DemoError(f"{flag}: {problem['msg'].removeprefix('Value error, ')}", 2) from None


def _serve(settings: Settings, page: socket.socket, on_started: Callable[[], None]) -> None:
    from gateway import server
    from gateway.ops.logs import set_up_logging

    set_up_logging(settings.log_format, settings.log_level)
    server.serve(settings, sockets=[page], on_started=on_started)


def _sensors(scenario: str | None, devices: int | None) -> str:
    count = "" if devices is None else f"{devices} "
    kind = f"sensor{'' if devices == 1 else 's'}"
    return f"{count}simulated {kind}" + (f" (scenario {scenario})" if scenario else "")


def _taken(asked: int | None, page: socket.socket, broker_url: str | None) -> list[str]:
    """Which usual ports something else has.

    Args:
        asked: the page's port, as it was asked for; None for the usual one.
        page: its socket.
        broker_url: of the broker that the demo started; None where it started none.
    """
    taken = []
    if asked is None and page.getsockname()[1] != USUAL_PAGE_PORT:
        taken.append(f"Something else listens on port {USUAL_PAGE_PORT}, so the page has another one.")
    if broker_url is not None and urlsplit(broker_url).port != USUAL_BROKER_PORT:
        taken.append(f"Something else listens on port {USUAL_BROKER_PORT}, a broker perhaps: this demo has its own.")
    return taken


def _own_command() -> str:
    """What to type for `gateway`: its name where a shell finds this one, else its path."""
    command = Path(sys.argv[0])
    found = shutil.which("gateway")
    if command.name != "gateway" or (found is not None and Path(found).resolve() == command.resolve()):
        return "gateway"
    with contextlib.suppress(ValueError):
        return str(command.resolve().relative_to(Path.cwd()))
    return str(command.resolve())


def _announce(
    write: Callable[[str], None],
    page: socket.socket,
    broker: str,
    broker_url: str,
    sensors: str,
    taken: Sequence[str],
) -> None:
    host, port = page.getsockname()[:2]
    write(f"\n  {sensors} → {broker} → gateway → your browser\n")
    url = f"http://{host}:{port}"
    for what, where in (
        ("the page", f"{url}/"),
        ("every reading", f"ws://{host}:{port}/ws?topic={quote('sensors/#', safe='/')}"),
        ("temperatures only", f"ws://{host}:{port}/ws/temperature/"),
        ("for your own sensors", broker_url),
        ("in another terminal", f"{_own_command()} sub 'sensors/#' --url {url}"),
    ):
        write(f"  {what:<22} {where}")
    for line in taken:
        write(f"\n  {line}")
    write("\n  Ctrl-C stops everything.")
