"""The connection to a Valkey server (or Redis 7): questions become scripts, and answers what they mean.

Invariant: a script changes everything that it changes, or nothing, and only for who has the lease; whatever goes wrong
is a `ServerError`, and the connection is made anew after it. The only importer of valkey.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from typing import Any, assert_never

from gateway.cluster.address import Address
from gateway.cluster.entries import Id
from gateway.cluster.questions import Append, Begin, Look, Meet, Read, ServerError
from gateway.cluster.views import Meta, View

__all__ = ["LEAST_VERSION", "RefusedError", "Server"]

ANSWER_SECONDS = 1.0
"""How long an answer may take, beside what a question waits for by itself."""

CONNECT_SECONDS = 2.0

LEAST_VERSION = (6, 2)
"""Of Redis: XTRIM by MINID. Valkey counts on from 7.2."""

_KEYS = "local lease, meta, log = KEYS[1], KEYS[2], KEYS[3]\n"

_END = """
local function tail()
  local found = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  return found[1] and found[1][1] or ''
end
"""

_MEET = (
    _KEYS
    + _END
    + """
local token, milliseconds, broker = ARGV[1], ARGV[2], ARGV[3]
local holder = redis.call('GET', lease)
if token ~= '' and (not holder or holder == token) then
  redis.call('SET', lease, token, 'PX', milliseconds)
  holder = token
  local known = redis.call('HMGET', meta, 'token', 'broker')
  if ARGV[4] == '1' and known[1] == token and known[2] ~= broker then redis.call('HSET', meta, 'broker', broker) end
end
if ARGV[5] == '1' then redis.call('SET', KEYS[4], '1', 'PX', milliseconds) end
local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)
local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication')
local server = (string.match(info, 'run_id:(%w+)') or '') .. ':' .. (string.match(info, 'master_replid:(%w+)') or '')
return {
  redis.call('HGETALL', meta), holder or '', redis.call('PTTL', lease), first[1] and first[1][1] or '', tail(), server,
  redis.call('EXISTS', KEYS[4])
}
"""
)

_BEGIN = (
    _KEYS
    + _END
    + """
if redis.call('GET', lease) ~= ARGV[1] or tail() ~= ARGV[2] then return 0 end
redis.call('XADD', log, ARGV[3], 'e', ARGV[4])
redis.call('DEL', meta)
redis.call('HSET', meta, unpack(ARGV, 5))
return 1
"""
)

_APPEND = (
    _KEYS
    + """
if redis.call('GET', lease) ~= ARGV[1] then return 0 end
local tail = redis.call('HGET', meta, 'tail')
if tail ~= ARGV[3] then
  if tail ~= ARGV[2] then return 0 end
  redis.call('XADD', log, ARGV[3], 'e', ARGV[4])
  redis.call('HSET', meta, 'tail', ARGV[3], 'server', ARGV[5])
  if ARGV[6] ~= '' then redis.call('XTRIM', log, 'MINID', '~', ARGV[6]) end
end
if ARGV[7] == '1' then redis.call('DEL', lease) end
return 1
"""
)


class RefusedError(ServerError):
    """The server can't be used for a cluster, today or tomorrow: it wants another password, or is another server."""


class _Script:
    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_SCRIPTS = {Meet: _Script(_MEET), Begin: _Script(_BEGIN), Append: _Script(_APPEND)}


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
        self._keys = tuple(f"gateway:{{{name}}}:{part}" for part in ("lease", "meta", "log", "able"))
        self._lease_ms = int(lease_seconds * 1000)
        self._client: Any = None

    # connecting

    async def _connect(self) -> Any:
        from valkey.asyncio import Valkey
        from valkey.asyncio.retry import Retry
        from valkey.backoff import NoBackoff

        host, port = await self._find()
        client: Any = Valkey(
            host=host,
            port=port,
            db=self.address.database,
            **self._options,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=True,
        )
        self._client = client
        await client.initialize()
        return client

    @property
    def _options(self) -> dict[str, Any]:
        address = self.address
        options: dict[str, Any] = {
            "username": address.username,
            "password": address.password,
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": None,  # `ask` has the time
            "lib_name": None,
            "lib_version": None,
        }
        return options | self._tls_options

    @property
    def _tls_options(self) -> dict[str, Any]:
        if not self.address.is_tls:
            return {}
        ca_file = None if self.address.ca_file is None else str(self.address.ca_file)
        minimum = ssl.TLSVersion.TLSv1_2
        return {"ssl": True, "ssl_check_hostname": True, "ssl_min_version": minimum, "ssl_ca_certs": ca_file}

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

        times: dict[str, Any] = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
        sentinel: Any = Sentinel(list(self.address.hosts), sentinel_kwargs=times | login | self._tls_options)  # type: ignore[no-untyped-call]
        try:
            found: tuple[str, int] = await sentinel.discover_master(self.address.service)
        except (MasterNotFoundError, ValkeyError):
            return None
        finally:
            for each in sentinel.sentinels:
                await each.aclose()
        return found

    async def close(self) -> None:
        """Gives the connection up; the next question makes another one."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.aclose(close_connection_pool=True)

    # asking

    async def ask(self, question: Meet | Begin | Append | Read | Look) -> Any:
        """The answer to a question.

        Raises:
            ServerError: there is none. The question may have been done all the same, now or later.
        """
        from valkey import exceptions as failures

        extra = question.seconds if isinstance(question, Read) else 0.0
        try:
            async with asyncio.timeout(ANSWER_SECONDS + extra + (0 if self._client else CONNECT_SECONDS)):
                client = self._client or await self._connect()
                return await self._ask(client, question)
        except TimeoutError:
            await self.close()
            raise ServerError(f"{self.address} does not answer within {ANSWER_SECONDS:g} s") from None
        except (failures.ValkeyError, OSError, ValueError, RuntimeError) as error:
            await self.close()
            raise self._failure(error) from None
        except ServerError:
            await self.close()
            raise

    def _failure(self, error: Exception) -> ServerError:
        """Why it failed, in words."""
        from valkey import exceptions as failures

        text = str(error)
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

    async def _ask(self, client: Any, question: Meet | Begin | Append | Read | Look) -> Any:
        match question:
            case Meet(token, broker, is_able):
                told = "" if broker is None else broker
                return _view(
                    await self._run(
                        client, Meet, token or "", self._lease_ms, told, int(broker is not None), int(is_able)
                    )
                )
            case Begin(before, at, meta, data):
                found = await self._run(client, Begin, meta.token, str(before or ""), str(at), data, *_pairs(meta))
                return bool(found)
            case Append():
                trim = "" if question.trim is None else str(question.trim)
                found = await self._run(
                    client,
                    Append,
                    question.token,
                    str(question.before),
                    str(question.at),
                    question.data,
                    question.server,
                    trim,
                    int(question.is_end),
                )
                return bool(found)
            case Read(after, seconds, count):
                block = ("BLOCK", int(seconds * 1000)) if seconds >= 0.001 else ()
                found = await client.execute_command(
                    "XREAD", "COUNT", count, *block, "STREAMS", self._keys[2], str(after)
                )
                return [(Id.parse(at), _data(fields)) for at, fields in _entries(found)]
            case Look(at):
                found = await client.execute_command("XRANGE", self._keys[2], str(at), str(at))
                return _data(found[0][1]) if found else None
            case _:
                assert_never(question)

    async def _run(self, client: Any, kind: type, *arguments: Any) -> Any:
        from valkey.exceptions import NoScriptError

        script = _SCRIPTS[kind]
        try:
            return await client.execute_command("EVALSHA", script.digest, 4, *self._keys, *arguments)
        except NoScriptError:
            return await client.execute_command("EVAL", script.text, 4, *self._keys, *arguments)

    async def check(self) -> str:
        """Whether this server can be used for a cluster; what it is.

        Raises:
            RefusedError: it can't.
            ServerError: nobody knows: it can't be reached.
        """
        from valkey import exceptions as failures

        try:
            async with asyncio.timeout(ANSWER_SECONDS + CONNECT_SECONDS):
                client = self._client or await self._connect()
                info: dict[str, Any] = await client.info()
                kind = await client.execute_command("TYPE", self._keys[2])
        except TimeoutError:
            await self.close()
            raise ServerError(f"{self.address} does not answer within {ANSWER_SECONDS + CONNECT_SECONDS:g} s") from None
        except (failures.ValkeyError, OSError, ValueError, RuntimeError) as error:
            await self.close()
            raise self._failure(error) from None
        version = tuple(int(part) for part in str(info.get("redis_version", "0.0")).split(".")[:2])
        text = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version')}"
        if version < LEAST_VERSION:
            raise RefusedError(f"{self.address} is {text}: a cluster needs Valkey, or Redis from 6.2 on")
        if info.get("cluster_enabled") and self.address.database:
            raise RefusedError(f"{self.address} is a Valkey cluster, which has no database {self.address.database}")
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if info.get("maxmemory") and policy != "noeviction":
            text = f"{self.address} throws data away when it is full (maxmemory-policy {policy})"
            raise RefusedError(f"{text}: a cluster needs noeviction")
        if kind not in (b"none", b"stream", "none", "stream"):
            raise RefusedError(f"the key {self._keys[2]!r} on {self.address} is something else than a log")
        return text


def _entries(found: Any) -> Any:
    """The entries of XREAD's answer: by stream, as a list or, in RESP3, a map."""
    if not found:
        return []
    return next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]


def _data(fields: Any) -> bytes:
    if isinstance(fields, dict):
        data: bytes = fields[b"e"]
        return data
    found: bytes = fields[1]
    return found


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
