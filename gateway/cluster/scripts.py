"""What the server does at once: scripts that change everything that they change, or nothing, and for whom that is.

Invariant: what a script of the log changes is changed only for who has the lease, and however often it is asked, once.
"""

from __future__ import annotations

import hashlib

from gateway.cluster.questions import Append, Begin, Meet
from gateway.cluster.revoked import Revoke, Revoked

__all__ = ["SCRIPTS", "Script"]

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
redis.call('PUBLISH', log, ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
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
  redis.call('PUBLISH', log, ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
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

Script = Meet | Begin | Append | Revoked | Revoke

SCRIPTS: dict[type[Script], tuple[str, str, tuple[str, str, str, str]]] = {
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
