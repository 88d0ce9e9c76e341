--- Models that would hold up nginx's event loop run in its thread pool.
--
-- Each model is measured when it comes into service. A request that should take less than `inline` seconds runs where it is,
-- since handing it over costs 30 microseconds and two copies; the expected time grows with the body, so a thousand rows for a
-- cheap model go to the pool as well. nginx gives each task a Lua state of its own and fails when it has none left, so no more
-- than `states` tasks are under way in a worker; others wait their turn, up to `queue` of them.

local format = string.format
local floor, max, min = math.floor, math.max, math.min
local getmetatable, pairs, pcall, select, setmetatable, tostring, type =
  getmetatable, pairs, pcall, select, setmetatable, tostring, type
local unpack = unpack or table.unpack -- luacheck: ignore

local nginx_client = require "mlserve.serve.transports.nginx_client"

local ngx = ngx -- luacheck: ignore

local M = {}
local methods = {}
local mt = { __name = "mlserve.nginx_pool", __index = methods }

local WORKER = "mlserve.serve.transports.nginx_worker"
local NO_STATE = "no available Lua vm" -- nginx's words
local DEADLINE = "Deadline Exceeded"
local LOOK = 0.05 -- seconds between looks whether the client of a waiting request is still there
local MAY_WAIT = { rewrite = true, access = true, content = true, timer = true }

--- The pool of one worker process.
---@param given table name: of nginx's thread_pool; states: tasks at a time; queue: requests that may wait; wait: seconds they
--- may; inline: seconds a request may take in the event loop
function M.new(given)
  return setmetatable({
    name = given.name, states = given.states, limit = given.queue, wait = given.wait, inline = given.inline,
    running = 0, waiting = 0, served = setmetatable({}, { __mode = "k" }),
  }, mt)
end

---------------------------------------------------------------------------------------------------------------------------
-- tasks

-- Waiting requests are woken by the one that leaves; where lua-resty-core is missing they look again each millisecond.
local function gate_of(self)
  if self.gate == nil then
    local ok, library = pcall(require, "ngx.semaphore")
    self.gate = ok and library.new(0) or false
  end
  return self.gate
end

local function leave(self)
  self.running = self.running - 1
  if self.waiting > 0 and self.gate then self.gate:post(1) end
end

local function clock() return require("mlserve.core").clock() end

-- Takes a place among the running; nil, message, code when there is none. `ticket` says what its holder has to give back.
local function enter(self, ticket)
  if self.running >= self.states then
    if self.waiting >= self.limit then
      return nil, format("%d requests wait for a thread already", self.waiting), "UNAVAILABLE"
    end
    local gate, client = gate_of(self), nginx_client.watch()
    local latest = ticket.deadline
    local deadline = clock() + self.wait
    if latest and latest < deadline then deadline = latest end
    self.waiting, ticket.state = self.waiting + 1, "waiting"
    repeat
      local left = deadline - clock()
      if left <= 0 or client.gone then
        self.waiting, ticket.state = self.waiting - 1, nil
        if client.gone then return nil, "Cancelled", "CANCELLED" end
        if deadline == latest then return nil, DEADLINE, "DEADLINE_EXCEEDED" end
        return nil, format("no thread became free within %g s", self.wait), "UNAVAILABLE"
      end
      if gate then gate:wait(min(left, LOOK)) else ngx.sleep(0.001) end
    until self.running < self.states
    self.waiting = self.waiting - 1
  end
  self.running, ticket.state = self.running + 1, "running"
  return true
end

-- Gives back what the ticket stands for, also that of a coroutine which was killed.
local function give_back(self, ticket)
  local state, model = ticket.state, ticket.model
  ticket.state, ticket.model = nil, nil
  if state == "waiting" then self.waiting = self.waiting - 1 elseif state == "running" then leave(self) end
  if model then
    model.busy = model.busy - 1
    if model.retired and model.busy == 0 then model:close() end
  end
end

local function pack(...) return { n = select("#", ...), ... } end

-- Runs a function of nginx_worker in a thread: what it returns, or nil, message, code.
local function run(self, ticket, name, ...)
  nginx_client.watch() -- the coroutine must not be killed before the ticket is given back
  local entered, message, code = enter(self, ticket)
  if not entered then
    give_back(self, ticket)
    return nil, message, code
  end
  local results = pack(ngx.run_worker_thread(self.name, WORKER, name, ...))
  local deadline = ngx.now() + self.wait
  while not results[1] and results[2] == NO_STATE and ngx.now() < deadline do -- those of abandoned tasks are free when these end
    ngx.sleep(0.001)
    results = pack(ngx.run_worker_thread(self.name, WORKER, name, ...))
  end
  give_back(self, ticket)
  if results[1] then return unpack(results, 2, results.n) end
  if results[2] == NO_STATE then return nil, "no Lua state is free for a thread: raise lua_worker_thread_vm_pool_size", "UNAVAILABLE" end
  return nil, tostring(results[2]), "INTERNAL"
end

--- Whether nginx has this thread pool and the present phase may wait for it. What is wrong with it is then in `reason`.
---@return boolean
function methods:usable()
  if not MAY_WAIT[ngx.get_phase()] then return false end
  if self.available == nil then
    if type(ngx.run_worker_thread) ~= "function" then
      self.available, self.reason = false, "this nginx has no ngx.run_worker_thread (lua-nginx-module 0.10.21 with --with-threads has)"
    else
      local ok, message = ngx.run_worker_thread(self.name, WORKER, "prepare")
      if not ok and message == NO_STATE then return false end -- asked again the next time
      self.available = ok and true or false
      if not ok then
        self.reason = format("thread pool '%s' cannot be used (%s): nginx.conf needs `thread_pool %s threads=4;` outside http {}",
          self.name, tostring(message), self.name)
      end
    end
  end
  return self.available
end

--- Makes the Lua states of the pool before requests need them: nginx makes them in its event loop.
function methods:prepare()
  if not self:usable() then return end
  local threads = {}
  local function prepare() ngx.run_worker_thread(self.name, WORKER, "prepare") end
  for i = 1, self.states do threads[i] = ngx.thread.spawn(prepare) end
  for i = 1, #threads do ngx.thread.wait(threads[i]) end
end

--- Runs a function of nginx_worker in a thread.
function methods:run(name, ...) return run(self, {}, name, ...) end

---------------------------------------------------------------------------------------------------------------------------
-- models

local model_methods = {}
local MERGING = { batched = true, batching = true, start_json = true, start_infer = true, start_proto = true } -- the pool's threads deal with it
local DIRECT = {
  signatures = true, model = true, version = true, handle = true, give = true, io = true, max_batch = true, statistics = true, batch_stats = true,
}

-- In a thread, or here when there is none. request: may have a timeout
local function offload(model, request, method, ...)
  local pool, servable = model.pool, model.servable
  if not servable then return nil, "the model has just been unloaded", "UNAVAILABLE" end
  if not pool:usable() then return servable[method](servable, ...) end
  if not model.number then
    local handle, message, code = servable:handle()
    if not handle then return nil, message, code end
    model.number = handle
  end
  local timeout = request and request.timeout
  local ticket = { model = model, deadline = timeout and clock() + timeout }
  model.busy = model.busy + 1
  pool.ticket = ticket -- for `within`, which looks before anything else runs
  return run(pool, ticket, "call", model.number, ticket.deadline or false, method, ...)
end

--- Answers a request by a method of the servable that takes its bytes.
---@param request table timeout: seconds until nobody wants the answer any more
---@param method string
---@param bytes string
function model_methods.answer(model, request, method, bytes, ...)
  if #bytes <= model.inline_bytes then return model.servable[method](model.servable, bytes, ...) end
  return offload(model, request, method, bytes, ...)
end

function model_methods.predict_json(model, body, signature)
  if #body <= model.inline_bytes then return model.servable:predict_json(body, signature) end
  return offload(model, nil, "predict_json", body, signature)
end

function model_methods.close(model)
  if model.servable and model.servable.close then model.servable:close() end
  model.servable, model.inline_bytes, model.pool.served[model] = nil, -1, nil
end

local model_mt = { __name = "mlserve.nginx_model", __index = model_methods }

-- The servable's other methods: what describes the model is asked here, what answers a request where it belongs.
local function add_methods(servable)
  for name in pairs(getmetatable(servable).__index) do
    if DIRECT[name] then
      model_methods[name] = function(model, ...) return model.servable[name](model.servable, ...) end
    elseif not model_methods[name] and not MERGING[name] then
      model_methods[name] = function(model, body, ...)
        if type(body) ~= "string" or #body <= model.inline_bytes then return model.servable[name](model.servable, body, ...) end
        return offload(model, nil, name, body, ...)
      end
    end
  end
end

--- A servable that decides for each request where it runs.
---@param servable userdata|table one without `handle` stays in the event loop
function methods:serve(servable)
  if type(servable) ~= "userdata" then return servable end
  if not model_methods.signatures then add_methods(servable) end
  local model = setmetatable({ pool = self, servable = servable, inline_bytes = -1, busy = 0 }, model_mt)
  self.served[model] = true
  return model
end

--- Sets what was measured. Without a measurement every request goes to the pool.
---@param model table of `serve`
---@param cost number|nil seconds that a request took
---@param bytes integer|string its body's size
---@return string|nil warning
function methods:set_cost(model, cost, bytes)
  model.measured, model.cost = true, cost
  local merged = model.servable.batched and model.servable:batched() and self.available
  model.inline_bytes = cost and cost <= self.inline and not merged and floor(bytes * self.inline / max(cost, 1e-7)) or -1
  if model.inline_bytes < 0 and self.available == false then
    return format("%s; requests hold up the worker: %s", cost and format("takes %.3g ms", cost * 1000) or
      format("its time is not known (%s)", tostring(bytes)), self.reason)
  end
end

--- Measures a model in a thread, or here when there is none.
---@return string|nil warning
function methods:measure(model)
  if model.measured or not model.servable then return nil end
  local cost, bytes
  if self:usable() then
    model.number = model.number or model.servable:handle()
    cost, bytes = self:run("measure", model.number)
  else
    cost, bytes = require(WORKER).cost(model.servable)
  end
  return self:set_cost(model, cost, bytes)
end

-- Closes a model as soon as no thread works with it.
local function retire(model)
  model.retired = true
  if model.busy == 0 then model:close() end
end

--- Closes the models that no version of the repository holds any more.
function methods:sweep(repository)
  local held = {}
  for _, name in pairs(repository:names()) do
    for _, entry in pairs(repository:versions(name) or {}) do
      if entry.servable then held[entry.servable] = true end
    end
  end
  for model in pairs(self.served) do
    if not held[model] and model.seen then retire(model) end
    model.seen = true -- one that was loaded a moment ago is not in the repository yet
  end
end

--- Calls a function that may wait for a thread, for a time only; the thread's work is then dropped.
---@param seconds number
---@param call function
---@return boolean in_time
---@return any what the function returns
function methods:within(seconds, call, ...)
  local results
  self.ticket = nil
  local thread = ngx.thread.spawn(function(...) results = pack(call(...)) end, ...)
  local ticket = self.ticket
  self.ticket = nil
  if not results and ticket then
    local timer = ngx.thread.spawn(function() ngx.sleep(seconds) end)
    ngx.thread.wait(thread, timer)
    if not results and ticket.state then
      ngx.thread.kill(thread)
      give_back(self, ticket)
      return false
    end
    ngx.thread.kill(timer)
  elseif not results then
    ngx.thread.wait(thread)
  end
  if results then return true, unpack(results, 1, results.n) end
  return true, nil, "the request could not be scored" -- the error is in nginx's log
end

return M
