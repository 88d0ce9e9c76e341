--- Several processes that share listening sockets: one parent, which never serves, and its workers.
--
--   local supervisor = prefork.new { workers = 4, work = function(slot, ready) … return true end, drain_timeout = 10, log = log }
--   local ok, message = supervisor:run()      -- until SIGTERM or SIGINT; workers never return from here
--
-- The parent binds and loads before `run`, so workers share memory until they write to it, and a port is never lost with a worker.
--   * A worker that ends unasked is replaced: at once when it had lived for a while, with a growing pause when it had not.
--   * SIGHUP: `reload` runs in the parent, then the workers are replaced one by one; each goes when its successor serves. When
--     `reload` or a successor fails, the old ones go on.
--   * SIGTERM, SIGINT: the workers drain; those that are not done in time are killed. A second signal ends them now.
--   * SIGUSR1 goes on to the workers.
--   * Workers end when the parent dies, however it does.
-- Threads do not survive a fork. The core's pool notices that by itself; what `reload` and `work` start is up to them.
-- The parent has no event loop: a child would share its kernel side.

local net = require "mlserve.net"
local notify = require "mlserve.serve.transports.notify"
local options = require "mlserve.options"
local cqueues = require "cqueues"

local monotime = cqueues.monotime
local format, ipairs, pairs, tostring = string.format, ipairs, pairs, tostring
local max, min = math.max, math.min
local unpack = rawget(table, "unpack") or rawget(_G, "unpack")

local SIGHUP, SIGINT, SIGKILL, SIGUSR1, SIGTERM, SIGCHLD = 1, 2, 9, 10, 15, 17

local LIVED = 5            -- seconds after which a worker's end counts as the first
local FIRST_PAUSE = 0.1    -- before a worker that lived shorter is replaced; doubled with each further one …
local LAST_PAUSE = 10      -- … up to this
local HOPELESS = 5         -- workers in a row that ended before any had ever served
local KILL_GRACE = 1       -- beyond drain_timeout

local RULES = {
  workers = { type = "integer", min = 1, max = 256, required = true },
  work = { type = "function", required = true },
  reload = { type = "function" },
  stopping = { type = "function" },
  drain_timeout = { type = "number", min = 0, default = 10 },
  log = { type = "function", default = function() end },
}

local methods = {}
local mt = { __name = "mlserve.prefork", __index = methods }

function mt:__tostring() return format("mlserve.prefork{workers=%d}", self.count) end

-- In the child: serves, and ends the process whatever happens.
local function become_worker(self, slot, parent, fd)
  local ok, result, message
  self.signals:close()
  for worker in pairs(self.workers) do
    if worker.fd then net.close(worker.fd) end
  end
  if not net.end_with(parent, SIGTERM) then os.exit(0) end -- the parent has died meanwhile
  ok, result, message = xpcall(self.work, debug.traceback, slot, function() net.send(fd, "R", 1) end)
  if ok and result then os.exit(0) end
  self.log("error", format("worker %d: %s", slot, tostring(ok and message or result)))
  os.exit(1)
end

local function start_worker(self, slot)
  local ours, theirs = net.pair()
  if not ours then return nil, theirs end
  local parent = net.getpid()
  local pid, message = net.fork()
  if not pid then
    net.close(ours)
    net.close(theirs)
    return nil, message
  end
  if pid == 0 then
    net.close(ours)
    become_worker(self, slot, parent, theirs)
  end
  net.close(theirs)
  local worker = { pid = pid, slot = slot, fd = ours, started = monotime(), ready = false }
  self.workers[worker] = true
  return worker
end

local function pause_of(self, slot)
  local failures = self.failures[slot]
  return failures == 0 and 0 or min(LAST_PAUSE, FIRST_PAUSE * 2 ^ (failures - 1))
end

-- Fills a slot; when that is impossible now it is tried again later.
local function fill(self, slot)
  local worker, message = start_worker(self, slot)
  self.current[slot] = worker
  self.again[slot] = nil
  if worker then return end
  self.log("error", format("worker %d: %s", slot, tostring(message)))
  self.failures[slot] = self.failures[slot] + 1
  self.again[slot] = monotime() + pause_of(self, slot)
end

local function retire(self, worker)
  worker.retired = true
  worker.kill_at = monotime() + self.drain_timeout + KILL_GRACE
  net.kill(worker.pid, SIGTERM)
end

-- The next step of replacing the workers one by one.
local function roll(self)
  if self.successor or self.stopping then return end
  local slot = table.remove(self.to_replace, 1)
  if not slot then
    if self.rolling then
      self.rolling = false
      self.log("info", "reloaded: every worker is new")
      notify.ready(format("%d workers", self.count))
    end
    return
  end
  if not self.current[slot] then return roll(self) end -- it ended meanwhile: its replacement is new anyway
  local worker, message = start_worker(self, slot)
  if worker then
    self.successor = worker
    return
  end
  self.log("error", format("reload: worker %d: %s; the old ones go on", slot, tostring(message)))
  self.to_replace = {}
end

local function reload(self)
  if self.stopping then return end
  self.log("info", "SIGHUP: reloading")
  notify.reloading()
  if self.reload then
    local ok, result, message = pcall(self.reload)
    if not ok or not result then
      self.log("error", "reload: " .. tostring(ok and message or result) .. "; the old configuration goes on")
      notify.ready(format("%d workers", self.count))
      return
    end
  end
  self.to_replace, self.rolling = {}, true
  for slot = 1, self.count do self.to_replace[slot] = slot end
  roll(self)
end

local function stop(self)
  if self.stopping then
    self.log("info", "second signal: ending now")
  else
    self.log("info", "signal: draining")
    notify.stopping()
    if self.on_stopping then self.on_stopping() end
  end
  local limit = self.stopping and KILL_GRACE or self.drain_timeout + KILL_GRACE
  self.stopping = true
  for worker in pairs(self.workers) do
    net.kill(worker.pid, SIGTERM)
    worker.kill_at = min(worker.kill_at or math.huge, monotime() + limit)
  end
end

local function ended(self, worker, how, code)
  local slot = worker.slot
  self.workers[worker] = nil
  net.close(worker.fd)
  if worker.retired or self.stopping then return end
  local lived = monotime() - worker.started
  local text = format("worker %d (process %d) ended after %.1f s: %s %d", slot, worker.pid, lived, how, code)
  if worker == self.successor then
    self.successor, self.to_replace, self.rolling = nil, {}, false
    self.log("error", "reload: " .. text .. "; the old ones go on")
    notify.ready(format("%d workers", self.count))
    return
  end
  self.current[slot] = nil
  self.failures[slot] = lived < LIVED and self.failures[slot] + 1 or 0
  local pause = pause_of(self, slot)
  self.again[slot] = monotime() + pause
  self.log("warn", format("%s; the next one in %.1f s", text, pause))
  if not self.ever_ready then
    self.early = self.early + 1
    self.hopeless = self.early >= HOPELESS * self.count
  end
end

local function reap(self)
  local list = {}
  for worker in pairs(self.workers) do list[#list + 1] = worker end
  for _, worker in ipairs(list) do
    local pid, how, code = net.reap(worker.pid)
    if pid then ended(self, worker, how, code)
    elseif pid == nil then ended(self, worker, "lost", 0) end -- somebody else has waited for it
  end
end

local function became_ready(self, worker)
  worker.ready = true
  if worker == self.successor then
    local old = self.current[worker.slot]
    self.current[worker.slot], self.successor, self.again[worker.slot] = worker, nil, nil
    if old then retire(self, old) end
    roll(self)
  end
  self.ever_ready = true
  for slot = 1, self.count do
    if not (self.current[slot] and self.current[slot].ready) then return end
  end
  if not self.announced then
    self.announced = true
    notify.ready(format("%d workers", self.count))
  end
end

-- Waits for a signal, a worker's message, or the next thing that has its time.
local function wait(self)
  local now, wake, fds = monotime(), math.huge, { self.signals:pollfd() }
  for worker in pairs(self.workers) do
    if not worker.ready then fds[#fds + 1] = worker.fd end
    if worker.kill_at then wake = min(wake, worker.kill_at) end
  end
  for _, again in pairs(self.again) do wake = min(wake, again) end
  net.wait(wake == math.huge and -1 or max(0, wake - now), unpack(fds))
end

-- A worker that does not catch its signals yet would end by this one; it will open what is to be opened anyway.
local function pass_on(self, number)
  for worker in pairs(self.workers) do
    if worker.ready then net.kill(worker.pid, number) end
  end
end

local function turn(self)
  wait(self)
  for number in function() return self.signals:take() end do
    if number == SIGHUP then reload(self)
    elseif number == SIGUSR1 then pass_on(self, SIGUSR1)
    elseif number ~= SIGCHLD then stop(self) end
  end
  reap(self)
  local now, list = monotime(), {}
  for worker in pairs(self.workers) do list[#list + 1] = worker end
  for _, worker in ipairs(list) do
    if not worker.ready and net.receive(worker.fd, 1) then became_ready(self, worker) end
    if worker.kill_at and now >= worker.kill_at then
      self.log("warn", format("worker %d (process %d) did not end in time: killed", worker.slot, worker.pid))
      net.kill(worker.pid, SIGKILL)
      worker.kill_at = nil
    end
  end
  if self.stopping then return end
  for slot = 1, self.count do
    if self.again[slot] and now >= self.again[slot] then fill(self, slot) end
  end
end

--- Runs the workers until a signal says stop.
---@return boolean|nil ok
---@return string|nil message
function methods:run()
  local message
  self.signals, message = net.catch_signals(SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD)
  if not self.signals then return nil, message end
  for slot = 1, self.count do
    self.failures[slot] = 0
    fill(self, slot)
  end
  while not self.hopeless and (next(self.workers) or not self.stopping) do turn(self) end
  if self.hopeless then
    stop(self)
    while next(self.workers) do turn(self) end
  end
  self.signals:close()
  if self.hopeless then return nil, "workers end before they serve" end
  return true
end

local M = {}

---@param given table workers; work = function(slot, ready): serves in the child, calls ready() once it does, returns true or
--- nil, message; reload = function() -> true | nil, message; stopping = function called when the drain begins; drain_timeout; log
---@return table supervisor
function M.new(given)
  local values = options.check(given, RULES, "prefork.new")
  return setmetatable({
    count = values.workers, work = values.work, reload = values.reload, on_stopping = values.stopping,
    drain_timeout = values.drain_timeout, log = values.log,
    workers = {},            -- all that live: slot, pid, fd (says when it is ready), started, ready, retired, kill_at
    current = {}, again = {}, failures = {}, -- by slot: the worker, when to start the next one, short lives in a row
    to_replace = {}, rolling = false, successor = nil, early = 0, stopping = false,
  }, mt)
end

return M
