"""Network namespaces: one for the servers, one for each client, and between them lines that lose packets.

Invariant: what was made is taken away again, and nothing of the machine's own network is touched. Losing packets is
left to the kernel (netem) or, where that has none, to `relay`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from benchmarks.lines.plan import Line
from benchmarks.processes import BenchmarkError, Process

__all__ = ["Lines", "Means", "UnavailableError", "lines", "means_here", "netem"]

T = TypeVar("T")
Means = Literal["netem", "relay"]
"""What delays and loses packets."""

CLONE_NEWNET = 0x40000000


class UnavailableError(BenchmarkError):
    """Namespaces can't be made here; the text says why."""


def ip(*arguments: str) -> str:
    """Run `ip` and return what it says.

    Raises:
        BenchmarkError: it failed.
    """
    return _run([_program("ip"), *arguments])


def _program(name: str) -> str:
    program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise UnavailableError(f"the program {name} is missing (on Debian: apt install iproute2)")
    return program


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def netem(action: Literal["add", "change"], device: str, line: Line, *, is_cut: bool = False) -> list[str]:
    """Return the arguments of `tc` that make a device delay and lose packets, or lose all while it is cut."""
    return [
        *("qdisc", action, "dev", device, "root", "netem", "limit", "1000"),
        *("delay", f"{line.delay_ms:g}ms", f"{line.jitter_ms:g}ms", "loss", f"{100 if is_cut else 100 * line.loss:g}%"),
    ]


def means_here() -> Means:
    """Return what can delay and lose packets on this machine: netem, else the relay.

    Raises:
        UnavailableError: neither can, or namespaces can't be made; the text says what is missing.
    """
    if sys.platform != "linux":
        raise UnavailableError("network namespaces need Linux")
    if os.geteuid():
        raise UnavailableError("network namespaces need root (in a container CAP_NET_ADMIN and CAP_SYS_ADMIN, too)")
    name = f"gwl{os.getpid()}-try"
    try:
        with _namespace(name):
            ip("-n", name, "link", "add", "one", "type", "veth", "peer", "name", "other")
            try:
                _run([_program("tc"), "-n", name, *netem("add", "one", Line())])
            except BenchmarkError:
                _try_tun(name)
                return "relay"
            return "netem"
    except UnavailableError:
        raise
    except (BenchmarkError, OSError) as error:
        raise UnavailableError(f"network namespaces can't be made here: {error}") from None


def _try_tun(name: str) -> None:
    try:
        ip("-n", name, "tuntap", "add", "dev", "tun", "mode", "tun")
    except BenchmarkError as error:
        raise UnavailableError(f"the kernel has no netem (sch_netem), nor can TUN be used: {error}") from None


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[None]:
    ip("netns", "add", name)
    try:
        # router solicitations and the like would be counted as the clients' bytes
        for scope in ("all", "default"):
            _run([_program("ip"), "netns", "exec", name, "sh", "-c", _NO_IPV6.format(scope)])
        ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        with contextlib.suppress(BenchmarkError):
            ip("netns", "del", name)


_NO_IPV6 = "f=/proc/sys/net/ipv6/conf/{}/disable_ipv6; [ ! -e $f ] || echo 1 > $f"


@dataclass(slots=True)
class Lines:
    """The namespaces and the lines between them.

    Attributes:
        means: What delays and loses packets.
        line: What it does to them.
        server: The namespace of the servers.
        clients: Those of the clients.
    """

    means: Means
    line: Line
    server: str
    clients: list[str]
    _relay: Process | None = None
    _moved: list[int] = field(default_factory=list)

    def server_address(self, client: int) -> str:
        """Return the address under which a client finds the servers."""
        return f"10.89.{client}.1"

    def inside(self, namespace: str, command: Sequence[str]) -> list[str]:
        """Return the command that runs another one in a namespace, in the same process."""
        return [_program("ip"), "netns", "exec", namespace, *command]

    def at_server(self, call: Callable[[], T]) -> T:
        """Call a function in a thread within the servers' namespace; sockets and threads that it makes stay there."""
        return _within(self.server, call)

    def cut(self, is_cut: bool) -> None:
        """Cut every line, or join them again."""
        if self._relay is not None:
            self._relay.ask({"cut": is_cut})
            return
        for number, client in enumerate(self.clients):
            for namespace, device in ((self.server, f"line{number}"), (client, "line")):
                _run([_program("tc"), "-n", namespace, *netem("change", device, self.line, is_cut=is_cut)])

    def move(self) -> None:
        """Give every client another address: its connections get nothing any more, and nobody tells it."""
        for number, client in enumerate(self.clients):
            self._moved[number] += 1
            ip("-n", client, "address", "flush", "dev", "line")
            _give_address(client, number, self._moved[number])

    def bytes_of(self, client: int) -> int:
        """Return the bytes that a client sent and got, those that were lost on their way to the servers included."""
        [device] = json.loads(ip("-n", self.clients[client], "-j", "-s", "link", "show", "dev", "line"))
        return sum(int(device["stats64"][way]["bytes"]) for way in ("rx", "tx"))

    def packets(self) -> dict[str, Any] | None:
        """Return how many packets the relay has seen and dropped, cuts included; None where it is netem."""
        return None if self._relay is None else self._relay.ask({})


def _give_address(namespace: str, client: int, moved: int) -> None:
    address = f"10.89.{client}.{2 + moved % 250}"
    ip("-n", namespace, "address", "add", address, "peer", f"10.89.{client}.1/32", "dev", "line")


@contextlib.contextmanager
def lines(count: int, line: Line, directory: Path, *, means: Means, seed: int = 1) -> Iterator[Lines]:
    """Make the namespaces of servers and clients, joined by lines, and take all of it away in the end."""
    prefix = f"gwl{os.getpid()}"
    server, clients = f"{prefix}-s", [f"{prefix}-{number}" for number in range(count)]
    with contextlib.ExitStack() as stack:
        for name in (server, *clients):
            stack.enter_context(_namespace(name))
        made = Lines(means, line, server, clients, _moved=[0] * count)
        if means == "relay":
            pairs = [(f"{prefix}s{number}", f"{prefix}c{number}") for number in range(count)]
            wanted = json.dumps({**asdict(line), "lines": pairs, "seed": seed})
            command = [sys.executable, "-m", "benchmarks.lines.relay", wanted]
            made._relay = relay = stack.enter_context(Process("relay", command, directory, piped=True))
            relay.answer()
            for number, (near, far) in enumerate(pairs):
                ip("link", "set", near, "netns", server, "name", f"line{number}")
                ip("link", "set", far, "netns", clients[number], "name", "line")
        else:
            for number, client in enumerate(clients):
                veth = ("type", "veth", "peer", "name", "line", "netns", client)
                ip("-n", server, "link", "add", f"line{number}", *veth)
                for namespace, device in ((server, f"line{number}"), (client, "line")):
                    # netem delays and loses what it is given: bundles of many packets, unless there are none
                    ip("-n", namespace, "link", "set", device, "gso_max_segs", "1")
                    _run([_program("tc"), "-n", namespace, *netem("add", device, line)])
        for number, client in enumerate(clients):
            near = f"line{number}"
            ip("-n", server, "address", "add", made.server_address(number), "dev", near)
            ip("-n", server, "link", "set", near, "up")
            ip("-n", server, "route", "add", f"10.89.{number}.0/24", "dev", near)
            ip("-n", client, "link", "set", "line", "up")
            _give_address(client, number, 0)
        yield made


def _within(namespace: str, call: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[Exception] = []

    def enter() -> None:
        try:
            with Path(f"/run/netns/{namespace}").open("rb") as file:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(file.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"the namespace {namespace} can't be entered")
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=enter, name=f"in {namespace}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
