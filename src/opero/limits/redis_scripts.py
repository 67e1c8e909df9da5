"""The scripts that a Redis server runs for a limit, each in one step and by the server's clock.

    grant    grant permits to a process, each with the time from which it is free; if there are
             too few, give the process a place in line
    learn    adapt the rate, if a process's proposal fits (see `redis_rate`)
    give     take back the last grant, all or the end of it
    pause    grant nothing for a while

The record of a limit is one hash with these fields:

    NAME     the arrival time of the limit of that name
    was NAME what it was before the last grant
    last     the last grant
    paused   the end of a pause
    born     when the record was made
    @...     a process in line: since when it waits, how many permits it wants, and when the others
             take it for dead
"""

from __future__ import annotations

from typing import Final

from opero.clients.redis import Script

from .redis_rate import ADAPT

HORIZON: Final = 100_000_000
"""How far ahead, in nanoseconds, a permit may be granted."""

NAP: Final = 5_000_000
"""The shortest time between two requests that got nothing, in nanoseconds."""

_TIME = """
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local paused = tonumber(redis.call('HGET', KEYS[1], 'paused') or '0')
local pause = math.max(paused - now, 0)
local function text(number) return string.format('%.3f', number) end
"""
"""Microseconds since a moment in late 2023, so that a double can store eighths of them."""

_GRANT = (
    f"local HORIZON, NAP = {HORIZON // 1000}, {NAP // 1000}"
    """
local function grant(ARGV)
local me, serial, since, born, halt = ARGV[1], ARGV[2], tonumber(ARGV[3]) or now, ARGV[4], ARGV[5]
local weight, more, extra = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local horizon, patience = now + tonumber(ARGV[9]), tonumber(ARGV[10])
local record, all = {}, redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do record[all[at]] = all[at + 1] end
local made, lost, renew = record.born or text(now), 0, false
if born ~= '' and born ~= made then -- the record that this client knew is gone
  if tonumber(halt) > now then paused, pause, lost = tonumber(halt), tonumber(halt) - now, 1 end
end
local cells, longest = {}, 0
for at = 11, #ARGV, 4 do
  local interval, tolerance = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local arrival = tonumber(record[ARGV[at]] or '0')
  if born ~= '' and born ~= made and tonumber(ARGV[at + 3]) > now then
    arrival, lost = math.max(arrival, tonumber(ARGV[at + 3])), 1
  end
  local bound = now + math.max(2 * HORIZON, pause) + 2 * tolerance + interval
  if arrival > bound then -- no permit can have moved it there: the server's clock has gone back
    arrival, renew = bound, true
  end
  cells[#cells + 1] = {ARGV[at], arrival, interval, tolerance, arrival}
  longest = math.max(longest, interval)
end
renew = renew or lost == 1
local before, ahead, others = 0, 0, 0 -- in line: clients, and the permits that they want
for field, value in pairs(record) do
  if string.sub(field, 1, 1) == '@' and field ~= me then
    local joined, wanted, stale = string.match(value, '(%S+) (%S+) (%S+)')
    if tonumber(stale) < now then
      redis.call('HDEL', KEYS[1], field)
    else
      others = others + 1
      if tonumber(joined) < since then before, ahead = before + 1, ahead + tonumber(wanted) end
    end
  end
end
local share = math.max(1, math.floor(HORIZON / longest / (others + 1)))
local most = more + extra + 1
if others > 0 then most = math.min(most, share) end
local start, granted, size, slot, turn = now + pause, 0, weight, 0, 0
while true do
  slot, turn = start, start
  for _, cell in ipairs(cells) do
    local free = (size - 1) * cell[3] - cell[4]
    slot = math.max(slot, cell[2] + free)
    turn = math.max(turn, math.max(cell[2], start) + ahead * cell[3] + free)
  end
  if granted >= most or turn > horizon then break end
  for _, cell in ipairs(cells) do cell[2] = math.max(cell[2], slot) + size * cell[3] end
  granted, size = granted + 1, 1
end
local last = math.max(start, now)
if granted > 0 or renew then
  for _, cell in ipairs(cells) do
    redis.call('HSET', KEYS[1], cell[1], text(cell[2]), 'was ' .. cell[1], text(cell[5]))
    last = math.max(last, cell[2])
  end
  redis.call('HSET', KEYS[1], 'last', me .. serial, 'paused', text(paused), 'born', made)
end
if granted > 0 then since = now end
local come, left = 0, more + 1 - granted
if left > 0 and patience >= turn - now then
  local wanted = math.max(size, math.min(left, share))
  come = slot + (wanted - size + ahead) * longest - now - HORIZON
  come = math.min(come, slot - now - HORIZON / 2 + math.min(before, 4) * HORIZON / 16)
  come = come + math.max(before - 4, 0) * longest
  come = math.max(math.min(come, 1000000), NAP)
  local stale = now + come + HORIZON * 3 / 8
  redis.call('HSET', KEYS[1], me, text(since) .. ' ' .. wanted .. ' ' .. text(stale))
  last = math.max(last, stale)
else
  if record[me] then redis.call('HDEL', KEYS[1], me) end
  since = ''
end
if since ~= '' then since = text(since) end
if granted > 0 or renew or since ~= '' then
  if not record.born then redis.call('HSET', KEYS[1], 'born', made) end
  redis.call('PEXPIRE', KEYS[1], math.ceil((last - now) / 1000) + 2000)
end
local reply = {granted, text(now), text(start), text(turn), text(come)}
for _, each in ipairs({since, made, text(paused), lost}) do reply[#reply + 1] = each end
for _, cell in ipairs(cells) do
  reply[#reply + 1] = text(cell[5])
  reply[#reply + 1] = text(cell[3])
  reply[#reply + 1] = text(cell[2])
end
return reply
end
"""
)
GRANT = Script(_TIME + _GRANT + "return grant(ARGV)")
LEARN = Script(_TIME + ADAPT + "return {state, text(now), applied}")
GRANT_ADAPTED = Script(
    _TIME
    + ADAPT
    + _GRANT
    + """
local asked = {}
for at = 5, #ARGV do asked[#asked + 1] = ARGV[at] end
asked[12], asked[13] = interval, interval * burst
return {grant(asked), state, text(now), applied}
"""
)
GIVE_BACK = Script("""
if ARGV[1] ~= '' then redis.call('HDEL', KEYS[1], ARGV[1]) end
if redis.call('HGET', KEYS[1], 'last') ~= ARGV[2] then return 0 end
for at = 3, #ARGV, 2 do
  local arrival = ARGV[at + 1]
  if arrival == '' then arrival = redis.call('HGET', KEYS[1], 'was ' .. ARGV[at]) end
  redis.call('HSET', KEYS[1], ARGV[at], arrival)
end
redis.call('HDEL', KEYS[1], 'last')
return 1
""")
"""Take back the last grant, all or the end of it."""
PAUSE = Script(
    _TIME
    + """
paused = math.max(paused, now + tonumber(ARGV[1]) * 1000)
local born = redis.call('HGET', KEYS[1], 'born') or text(now)
local arrival = tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or '0')
arrival = math.max(arrival, paused + tonumber(ARGV[4]))
redis.call('HSET', KEYS[1], 'paused', text(paused), 'born', born, ARGV[2], text(arrival))
redis.call('HDEL', KEYS[1], 'last')
local left = math.ceil((arrival - now) / 1000) + 2000
if redis.call('PTTL', KEYS[1]) < left then redis.call('PEXPIRE', KEYS[1], left) end
return {born, text(paused)}
"""
)
