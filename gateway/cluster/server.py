"""The connection to a Valkey server (or Redis 7): questions become commands, and answers what they mean.

Invariant: whatever goes wrong is a `ServerError`, and the connection is made anew after it. Who reads the log gets its
entries in a row, whether the server pushed them or was asked. Only it and `wire` import valkey.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from gateway.access.revocations import GRACE_SECONDS, MAX_REVOCATIONS
from gateway.cluster.address import Address
from gateway.cluster.entries import Id
from gateway.cluster.pushes import Pushes
from gateway.cluster.questions import Append, Begin, Look, Meet, Read, ServerError
from gateway.cluster.resp import Part, command, parts
from gateway.cluster.revoked import ROWS, Revoke, Revoked, Standing, Told, name_of, times_of
from gateway.cluster.scripts import SCRIPTS, Script
from gateway.cluster.views import Meta, View

if TYPE_CHECKING:
    from gateway.cluster.wire import Wire

__all__ = ["LEAST_VERSION", "RefusedError", "Server"]

ANSWER_SECONDS = 1.0
"""How long an answer may take, beside what a question waits for by itself."""

CONNECT_SECONDS = 2.0

LEAST_VERSION = (6, 2)
"""Of Redis: XTRIM by MINID. Valkey counts on from 7.2."""


class RefusedError(ServerError):
    """The server can't be used for a cluster, today or tomorrow: it wants another password, or is another server."""


_HELLO = command(2, parts("HELLO", 3))
"""From now on RESP3: a connection that has subscribed to a channel may ask for other things, too."""


class Server:
    """One connection, made when something is asked."""

    def __init__(self, address: Address, name: str, *, lease_seconds: float) -> None:
        """Opens nothing.

        Args:
            address: where it is.
            name: of the cluster, in the names of its keys.
            lease_seconds: how long a lease lasts.
        """
        self.address = address
        self._log = f"gateway:{{{name}}}:log"
        self._xread, self._streams = parts("XREAD", "COUNT"), parts("STREAMS", self._log)
        self._lease_ms = int(lease_seconds * 1000)
        # what commands begin with
        self._evalsha: dict[type[Script], bytes] = {}
        self._eval: dict[type[Script], bytes] = {}
        for kind, (text, digest, names) in SCRIPTS.items():
            keys = [f"gateway:{{{name}}}:{each}" for each in names]
            self._evalsha[kind] = parts("EVALSHA", digest, len(keys), *keys)
            self._eval[kind] = parts("EVAL", text, len(keys), *keys)
        self._subscribe, self._unsubscribe = (
            command(2, parts(each, self._log)) for each in ("SUBSCRIBE", "UNSUBSCRIBE")
        )
        self._wire: Wire | None = None
        self._pushes = Pushes()
        self._is_subscribed = False

    # connecting

    async def _connect(self) -> Wire:
        from valkey.asyncio.connection import Connection, SSLConnection

        from gateway.cluster.wire import Wire

        host, port = await self._find()
        address = self.address
        connection = (SSLConnection if address.is_tls else Connection)(
            host=host,
            port=port,
            db=address.database,
            username=address.username,
            password=address.password,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=None,  # `Wire.ask` has the time
            lib_name=None,
            lib_version=None,
            **self._tls_options,
        )
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._wire = Wire(connection, self._take_push)
        return self._wire

    @property
    def _tls_options(self) -> dict[str, Any]:
        if not self.address.is_tls:
            return {}
        ca_file = None if self.address.ca_file is None else str(self.address.ca_file)
        minimum = ssl.TLSVersion.TLSv1_2
        return {"ssl_check_hostname": True, "ssl_min_version": minimum, "ssl_ca_certs": ca_file}

    async def _find(self) -> tuple[str, int]:
        """Where the server is now."""
        address = self.address
        if address.service is None:
            return address.hosts[0]
        # first without a password: a Sentinel that has none refuses every one
        found = await self._ask_sentinels({})
        if found is None and address.password is not None:
            found = await self._ask_sentinels({"username": address.username, "password": address.password})
        if found is None:
            raise ServerError(f"the Sentinels know no server {address.service!r}, or can't be asked")
        return found

    async def _ask_sentinels(self, login: dict[str, Any]) -> tuple[str, int] | None:
        from valkey.asyncio.sentinel import MasterNotFoundError, Sentinel
        from valkey.exceptions import ValkeyError

        tls = {"ssl": self.address.is_tls} | self._tls_options
        times: dict[str, Any] = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
        sentinel: Any = Sentinel(list(self.address.hosts), sentinel_kwargs=times | login | tls)  # type: ignore[no-untyped-call]
        try:
            found: tuple[str, int] = await sentinel.discover_master(self.address.service)
        except (MasterNotFoundError, ValkeyError):
            return None
        finally:
            for each in sentinel.sentinels:
                await each.aclose()
        return found

    def close(self) -> None:
        """Gives the connection up, and with it what was asked; the next question makes another one."""
        wire, self._wire = self._wire, None
        self._pushes.stop()
        self._is_subscribed = False
        if wire is not None:
            wire.close()

    # asking

    async def ask(self, question: Script | Read | Look) -> Any:
        """The answer to a question.

        Raises:
            ServerError: there is none. The question may have been done all the same, now or later.
        """
        if self._wire is None:
            try:
                wire = await self._connected()
                await wire.ask(_HELLO, ANSWER_SECONDS)
            except _failures() as error:
                raise self._failed(error) from None
        answered = asyncio.get_running_loop().create_future()
        self.put(question, answered.set_result)
        try:
            answer = await answered
        except asyncio.CancelledError:
            self.close()
            raise
        if isinstance(answer, ServerError):
            raise answer
        return answer

    def put(self, question: Script | Read | Look, then: Callable[[Any], None]) -> bool:
        """As `ask`, for who waits in no task: `then` is called with the answer, or with a `ServerError`.

        It is called in the turn in which that comes. False where a connection has to be made first, which `ask` does.
        """
        wire = self._wire
        if wire is None:
            return False
        if type(question) is Read and question.seconds:
            pushed = self._pushes.read(question.after, question.count)
            if pushed is not None:
                self._give(wire, question, pushed, then)
                return True
        elif type(question) is not Meet and type(question) is not Look:
            self._pushes.stop()

        def take(answer: Any) -> None:
            if isinstance(answer, Exception):
                if isinstance(answer, _no_script()):
                    wire.send(*self._asked(question, self._eval), take)
                else:
                    then(self._failed(answer))
                return
            try:
                meaning = _meaning(question, answer)
                self._note(question, meaning)
            except _failures() as error:
                meaning = self._failed(error)
            then(meaning)

        data, seconds = self._asked(question, self._evalsha)
        if self._is_subscribed is not self._pushes.is_near:
            self._is_subscribed = self._pushes.is_near
            data = (self._subscribe if self._is_subscribed else self._unsubscribe) + data
        wire.send(data, seconds, take)
        return True

    def _give(self, wire: Wire, question: Read, pushed: list[tuple[Id, bytes]], then: Callable[[Any], None]) -> None:
        """Answers with what was pushed; waits for it where that is nothing yet."""

        def take(answer: Any) -> None:
            if isinstance(answer, Exception) and not isinstance(answer, TimeoutError):
                then(self._failed(answer))
            else:
                then(self._pushes.read(question.after, question.count) or [])

        if pushed:
            asyncio.get_running_loop().call_soon(then, pushed)  # who takes it asks again
        else:
            wire.wait(question.seconds, take)

    def _take_push(self, pushed: bytes) -> None:
        self._pushes.take(pushed)
        if self._wire is not None:
            self._wire.end_wait()

    def _note(self, question: Script | Read | Look, meaning: Any) -> None:
        """Notes what an answer says of how far the stream was read."""
        pushes = self._pushes
        match question:
            case Meet():
                pushes.check(meaning.tail)
            case Read(after, seconds, count) if seconds:
                if len(meaning) >= count:
                    pushes.stop()
                elif self._is_subscribed:
                    pushes.begin(meaning[-1][0] if meaning else after)
                else:
                    pushes.is_near = True

    def _failed(self, error: Exception) -> ServerError:
        self.close()
        return self._failure(error)

    async def _connected(self) -> Wire:
        async with asyncio.timeout(CONNECT_SECONDS + ANSWER_SECONDS):
            return await self._connect()

    def _failure(self, error: Exception) -> ServerError:
        """Why it failed, in words."""
        from valkey import exceptions as failures

        text = str(error)
        if isinstance(error, ServerError):
            return error
        if isinstance(error, TimeoutError):
            return ServerError(f"{self.address} does not answer within {ANSWER_SECONDS:g} s")
        if isinstance(error, failures.AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
            return RefusedError(f"{self.address} refuses this user or password: {text}")
        if isinstance(error, failures.NoPermissionError) or text.startswith("NOPERM"):
            return RefusedError(f"{self.address} does not permit this user what a cluster needs: {text}")
        if isinstance(error, failures.InvalidResponse):
            return RefusedError(f"what answers at {self.address} is no Valkey or Redis server")
        if isinstance(error, failures.OutOfMemoryError) or text.startswith("OOM"):
            return ServerError(f"{self.address} is full: its maxmemory is reached")
        if isinstance(error, failures.ReadOnlyError) or "READONLY" in text:
            return ServerError(f"{self.address} is a replica: it can only be read")
        if isinstance(error, failures.BusyLoadingError):
            return ServerError(f"{self.address} is still loading its data")
        return ServerError(f"{self.address} can't be asked: {text or type(error).__name__}")

    def _asked(self, question: Script | Read | Look, scripts: Mapping[type[Script], bytes]) -> tuple[bytes, float]:
        """The command, and how many seconds its answer may take; a script begins as `scripts` has it."""
        seconds = ANSWER_SECONDS
        match question:
            case Read(after, _, count):
                return command(6, self._xread, parts(count), self._streams, parts(str(after))), seconds
            case Append(token, before, at, data, server, trim, is_end):
                last = "" if trim is None else str(trim)
                arguments: Sequence[Part] = (token, str(before), str(at), data, server, last, int(is_end))
            case Look(at):
                return command(4, parts("XRANGE", self._log, str(at), str(at))), seconds
            case Meet(holder, broker, is_able):
                told = "" if broker is None else broker
                arguments = holder or "", self._lease_ms, told, int(broker is not None), int(is_able)
            case Begin(previous, at, meta, data):
                arguments = meta.token, str(previous or ""), str(at), data, *_pairs(meta)
            case Revoked(version):
                arguments = version, ROWS
            case Revoke(list_name, revocations):
                rows = (text for each in revocations for text in (name_of(each), *times_of(each)))
                arguments = list_name, int(GRACE_SECONDS), MAX_REVOCATIONS, *rows
            case _:
                assert_never(question)
        return command(7 + len(arguments), scripts[type(question)], parts(*arguments)), seconds

    async def check(self) -> str:
        """Whether this server can be used for a cluster; what it is.

        Raises:
            RefusedError: it can't.
            ServerError: nobody knows: it can't be reached.
        """
        try:
            wire = self._wire or await self._connected()
            found = (await wire.ask(command(1, parts("INFO")), ANSWER_SECONDS)).decode().splitlines()
            kind = await wire.ask(command(2, parts("TYPE", self._log)), ANSWER_SECONDS)
        except _failures() as error:
            raise self._failed(error) from None
        info = dict(line.split(":", 1) for line in found if ":" in line)
        version = tuple(int(part) for part in info.get("redis_version", "0.0").split(".")[:2])
        text = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version')}"
        if version < LEAST_VERSION:
            raise RefusedError(f"{self.address} is {text}: a cluster needs Valkey, or Redis from 6.2 on")
        if info.get("cluster_enabled", "0") != "0" and self.address.database:
            raise RefusedError(f"{self.address} is a Valkey cluster, which has no database {self.address.database}")
        policy = info.get("maxmemory_policy", "noeviction")
        if info.get("maxmemory", "0") != "0" and policy != "noeviction":
            text = f"{self.address} throws data away when it is full (maxmemory-policy {policy})"
            raise RefusedError(f"{text}: a cluster needs noeviction")
        if kind not in ("none", "stream", b"none", b"stream"):
            raise RefusedError(f"the key {self._log!r} on {self.address} is something else than a log")
        try:
            await wire.ask(_HELLO, ANSWER_SECONDS)
            # a node may be permitted to write the log and not to use a channel
            publish = command(3, parts("PUBLISH", self._log, ""))
            await wire.ask(self._subscribe + self._unsubscribe + publish, ANSWER_SECONDS)
        except _failures() as error:
            raise self._failed(error) from None
        return text


def _meaning(question: Script | Read | Look, answer: Any) -> Any:
    match question:
        case Read():
            # one stream was asked for; an entry has one field
            entries = () if answer is None else next(iter(answer.values()))
            return [(Id.parse(at), fields[1]) for at, fields in entries]
        case Append() | Begin():
            return bool(answer)
        case Look():
            return answer[0][1][1] if answer else None
        case Meet():
            return _view(answer)
        case Revoked():
            version, names, times = (*answer, [], [])[:3]
            return Standing(version.decode(), list(zip(names, times, strict=True)))
        case Revoke():
            return Told(answer[0].decode(), bool(answer[1]))
        case _:
            assert_never(question)


def _no_script() -> type[Exception]:
    """What a server says that has not been sent this script since it was started."""
    from valkey.exceptions import NoScriptError

    return NoScriptError


def _failures() -> tuple[type[Exception], ...]:
    """What may go wrong while a server is asked."""
    from valkey.exceptions import ValkeyError

    return ServerError, ValkeyError, OSError, ValueError, RuntimeError


def _pairs(meta: Meta) -> list[str]:
    pairs = {
        "epoch": meta.epoch,
        "base": str(meta.base),
        "token": meta.token,
        "node": meta.node,
        "since": str(meta.since),
        "server": meta.server,
        "tail": str(meta.tail),
        "broker": meta.broker,
        "before": " ".join(f"{epoch}:{last}" for epoch, last in meta.before),
    }
    return [text for pair in pairs.items() for text in pair]


def _before(text: str) -> tuple[tuple[str, int], ...]:
    pairs = (pair.rpartition(":") for pair in text.split())
    return tuple((epoch, int(last)) for epoch, _, last in pairs)


def _view(answer: list[Any]) -> View:
    pairs, holder, left, first, tail, server, is_somebody_able = answer
    names = iter(pairs)
    known = {name.decode(): value.decode() for name, value in zip(names, names, strict=True)}
    meta = None
    if known:
        try:
            meta = Meta(
                known["epoch"],
                Id.parse(known["base"]),
                known["token"],
                known["node"],
                int(known["since"]),
                known["server"],
                Id.parse(known["tail"]),
                known["broker"],
                _before(known.get("before", "")),
            )
        except (KeyError, ValueError) as error:
            raise ServerError(f"what is noted beside the shared log can't be read: {error!r}") from None
    return View(
        meta,
        holder.decode() or None,
        max(int(left), 0),
        Id.parse(first) if first else None,
        Id.parse(tail) if tail else None,
        server.decode(),
        bool(is_somebody_able),
    )
