"""The connection to a Valkey server (or Redis 7): questions become scripts, and answers what they mean.

Invariant: a script changes everything that it changes, or nothing, and only for who has the lease; whatever goes wrong
is a `ServerError`, and the connection is made anew after it. Only it and `wire` import valkey.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from gateway.access.revocations import GRACE_SECONDS, MAX_REVOCATIONS
from gateway.cluster.address import Address
from gateway.cluster.entries import Id
from gateway.cluster.questions import Append, Begin, Look, Meet, Read, ServerError
from gateway.cluster.resp import Part, command, parts
from gateway.cluster.revoked import ROWS, Revoke, Revoked, Standing, Told, name_of, times_of
from gateway.cluster.views import Meta, View

if TYPE_CHECKING:
    from gateway.cluster.wire import Wire

__all__ = ["LEAST_VERSION", "RefusedError", "Server"]

ANSWER_SECONDS = 1.0
"""How long an answer may take, beside what a question waits for by itself."""

CONNECT_SECONDS = 2.0

LEAST_VERSION = (6, 2)
"""Of Redis: XTRIM by MINID. Valkey counts on from 7.2."""

_LOG_KEYS = ("lease", "meta", "log", "able")
_REVOKED_KEYS = ("revoked:version", "revoked", "revoked:numbers", "revoked:ends")

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

_REVOKED = """
local version = redis.call('GET', KEYS[1]) or ''
if version == ARGV[1] then return {version} end
local list, number = string.match(ARGV[1], '^(%w+):(%d+)$')
if not list or string.sub(version, 1, #list + 1) ~= list .. ':' then number = '-1' end
local limit = tonumber(ARGV[2])
local found = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. number, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
local names = {}
for at = 1, #found, 2 do names[#names + 1] = found[at] end
local times = #names > 0 and redis.call('HMGET', KEYS[2], unpack(names)) or {}
if #names == limit then version = string.match(version, '^%w+:') .. found[#found] end
return {version, names, times}
"""

# times are those of the server: nodes have clocks of their own
_REVOKE = """
local grace, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local ended = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', redis.call('TIME')[1] - grace)
for _, name in ipairs(ended) do
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  redis.call('ZREM', KEYS[4], name)
end
local list, number = string.match(redis.call('GET', KEYS[1]) or '', '^(%w+):(%d+)$')
list, number = list or ARGV[1], tonumber(number or 0)
local is_full, count = 0, redis.call('HLEN', KEYS[2])
for at = 4, #ARGV, 3 do
  local name, said, ends = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local before = redis.call('HGET', KEYS[2], name)
  if before then
    local said_before, ends_before = string.match(before, '^(%S+) (%S+)$')
    if tonumber(said_before) > tonumber(said) then said = said_before end
    -- Lua's numbers know no +inf
    if ends_before == '+inf' or (ends ~= '+inf' and tonumber(ends_before) > tonumber(ends)) then ends = ends_before end
  end
  local times = said .. ' ' .. ends
  if not before and count >= limit then
    is_full = 1
  elseif before ~= times then
    if not before then count = count + 1 end
    number = number + 1
    redis.call('HSET', KEYS[2], name, times)
    redis.call('ZADD', KEYS[3], number, name)
    redis.call('ZADD', KEYS[4], ends, name)
  end
end
redis.call('SET', KEYS[1], list .. ':' .. string.format('%d', number))
local last = tonumber(redis.call('ZREVRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2])
for _, key in ipairs(KEYS) do
  if last and last < 1e11 then redis.call('EXPIREAT', key, string.format('%d', last + grace + 1))
  else redis.call('PERSIST', key) end
end
return {list .. ':' .. string.format('%d', number), is_full}
"""


class RefusedError(ServerError):
    """The server can't be used for a cluster, today or tomorrow: it wants another password, or is another server."""


_Script = Meet | Begin | Append | Revoked | Revoke

_SCRIPTS: dict[type[_Script], tuple[str, str, tuple[str, str, str, str]]] = {
    kind: (text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), keys)
    for kind, text, keys in (
        (Meet, _MEET, _LOG_KEYS),
        (Begin, _BEGIN, _LOG_KEYS),
        (Append, _APPEND, _LOG_KEYS),
        (Revoked, _REVOKED, _REVOKED_KEYS),
        (Revoke, _REVOKE, _REVOKED_KEYS),
    )
}
"""Each with its hash and the four keys that it is about."""


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
        self._evalsha: dict[type[_Script], bytes] = {}
        self._eval: dict[type[_Script], bytes] = {}
        for kind, (text, digest, names) in _SCRIPTS.items():
            keys = [f"gateway:{{{name}}}:{each}" for each in names]
            self._evalsha[kind] = parts("EVALSHA", digest, len(keys), *keys)
            self._eval[kind] = parts("EVAL", text, len(keys), *keys)
        self._wire: Wire | None = None

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
        self._wire = Wire(connection)
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
        if wire is not None:
            wire.close()

    # asking

    async def ask(self, question: _Script | Read | Look) -> Any:
        """The answer to a question.

        Raises:
            ServerError: there is none. The question may have been done all the same, now or later.
        """
        if self._wire is None:
            try:
                await self._connected()
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

    def put(self, question: _Script | Read | Look, then: Callable[[Any], None]) -> bool:
        """As `ask`, for who waits in no task: `then` is called with the answer, or with a `ServerError`.

        It is called in the turn in which that comes. False where a connection has to be made first, which `ask` does.
        """
        wire = self._wire
        if wire is None:
            return False

        def take(answer: Any) -> None:
            if isinstance(answer, Exception):
                if isinstance(answer, _no_script()):
                    wire.send(*self._asked(question, self._eval), take)
                else:
                    then(self._failed(answer))
                return
            try:
                meaning = _meaning(question, answer)
            except _failures() as error:
                meaning = self._failed(error)
            then(meaning)

        wire.send(*self._asked(question, self._evalsha), take)
        return True

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

    def _asked(self, question: _Script | Read | Look, scripts: Mapping[type[_Script], bytes]) -> tuple[bytes, float]:
        """The command, and how many seconds its answer may take; a script begins as `scripts` has it."""
        seconds = ANSWER_SECONDS
        match question:
            case Read(after, wait, count):
                # a hundred times a second: `parts` would take thrice as long
                limit, wait_ms, at = b"%d" % count, b"%d" % int(wait * 1000), b"%d-%d" % after
                begun = b"%b$%d\r\n%b\r\n" % (self._xread, len(limit), limit)
                ended = b"%b$%d\r\n%b\r\n" % (self._streams, len(at), at)
                if wait_ms == b"0":  # as a time that would be for ever
                    return b"*6\r\n%b%b" % (begun, ended), seconds
                return b"*8\r\n%b$5\r\nBLOCK\r\n$%d\r\n%b\r\n%b" % (begun, len(wait_ms), wait_ms, ended), seconds + wait
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
        return text


def _meaning(question: _Script | Read | Look, answer: Any) -> Any:
    match question:
        case Read():
            # one stream was asked for; an entry has one field
            return [(Id.parse(at), fields[1]) for at, fields in answer[0][1]] if answer else []
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
