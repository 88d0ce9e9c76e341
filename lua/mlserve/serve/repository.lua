--- The models a process serves: name -> versions -> servable and state.
--
-- The nouns and states are TensorFlow Serving's: a version goes START, LOADING, AVAILABLE, UNLOADING, END and never back; a
-- failed load ends in END with its reason, and what has ended is remembered. Models come from programs (`add_model`), from
-- directories in TensorFlow Serving's layout, <base>/<version>/model.onnx (`add_directory`, `configure`), or from a directory of
-- such directories (`add_root`).
--
-- What is there is loaded at once by the functions that add it. Afterwards somebody calls `poll` again and again (a server's
-- event loop, nginx's timer): each call looks, does the next step, and says when it wants to be called again; models are then
-- read, compiled and warmed up by a thread of the core. A round of looking is stateless: from what lies in the directory and
-- from what is loaded follows what should be loaded (`choose`) and what may go (`settle`):
--
--   - A version counts when its directory has a model.onnx and nothing in it has changed for a moment: half a copy is no version.
--   - A version that does not load is skipped, so the next older one is served, and tried again when its files change, or
--     a few times later on.
--   - The old goes when all of the new answers. Who still holds it finishes with it; its memory is freed when nobody does.
--   - A directory that is gone, cannot be read, or has been replaced by an empty one (a disk that is no longer mounted) unloads nothing;
--     one whose versions were removed does.
--
-- Versions are strings of digits without leading zeros: int64 does not fit into LuaJIT's numbers.

local find, format, gsub = string.find, string.format, string.gsub
local concat, remove, sort = table.concat, table.remove, table.sort
local collectgarbage, error, ipairs, next, pairs, pcall, setmetatable, tostring, type =
  collectgarbage, error, ipairs, next, pairs, pcall, setmetatable, tostring, type
local huge, max, min = math.huge, math.max, math.min

local M = {}
local methods = {}
local mt = { __name = "mlserve.repository", __index = methods }

local MODEL_FILE = "model.onnx"
local WARM_UP_FILE = "assets.extra/warmup.jsonl"
local MAX_INT64 = "9223372036854775807"

local SETTLE = 0.2          -- seconds for which a directory must not have changed
local OLD = 2               -- seconds: what was last changed before that is whole
local SCAN_WATCHED = 1      -- seconds between rounds where the kernel tells of changes (network file systems do not)
local SCAN_UNWATCHED = 0.5  -- … and where it does not
local SCAN_SHORTEST = 0.05  -- … however fast changes come
local SLICE = 0.001         -- seconds of looking in one call of poll
local DRAIN = 0.02          -- seconds between looks whether somebody still holds what was unloaded
local DRAIN_STEP = 0.0005   -- seconds of the collector's work in one such look
local COLLECT, COLLECT_MOST = 0.25, 30 -- seconds until the collector does all of its work, at first and later on
local WAIT = 0.005          -- seconds between looks whether a load somebody asked for has ended
local RETRIES, RETRY_INTERVAL = 5, 60 -- TensorFlow Serving's max_num_load_retries and load_retry_interval_micros
local ENDED_MOST = 100      -- versions remembered after their end, for each model

--- Whether text may be the name of a model: it becomes part of paths and messages.
function M.valid_name(text)
  return type(text) == "string" and #text <= 128 and find(text, "^[%w_-][%w._-]*$") ~= nil
end

--- The canonical form of a version ("7" for "007" and 7); nil when it is no non-negative int64.
---@param version string|number
---@return string|nil
function M.version(version)
  if type(version) == "number" then
    if version < 0 or version > 9007199254740992 or version % 1 ~= 0 then return nil end
    version = format("%.0f", version)
  end
  if type(version) ~= "string" or not find(version, "^%d+$") then return nil end
  version = gsub(version, "^0+(%d)", "%1")
  if #version > #MAX_INT64 or #version == #MAX_INT64 and version > MAX_INT64 then return nil end
  return version
end

local function newer(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

local function core() return require "mlserve.core" end

-- What goes wrong before the first poll is told by what was called; afterwards nobody else would tell.
local function say(self, level, message, ...)
  if self.polled then self.log(level, format(message, ...)) end
end

local function load_options(self, path, name, version)
  return {
    model = name, version = version, limits = self.limits, warm_up_runs = self.warm_up,
    warm_up = gsub(path, "[^/]*$", "") .. WARM_UP_FILE,
  }
end

---@param options? table limits: of models loaded from files (see mlserve.model.load); warm_up: times that each warm-up request is run (1; 0: none);
--- admin: whether protocols may offer `load` and `unload` to clients (false); log: function(level, message);
--- scan_interval: seconds between looks at the directories, 0: never again (default 1, or 0.5 without inotify); retries (5), retry_interval (60 s);
--- loader: function(path, name, version) -> servable | nil, message, code, list: function(path) -> names | nil, message and
--- look: function(path) -> { model, stamp, age } in place of the core's; prepare: function(servable, name, directory) -> anything but nil | nil,
--- message, called with each that the core has loaded, before it answers
---@return table repository
function M.new(options)
  options = options or {}
  local self
  local function file_loader(path, name, version) return core().load_servable(path, load_options(self, path, name, version)) end
  self = setmetatable({
    models = {}, roots = {}, draining = {}, limits = options.limits, warm_up = options.warm_up or 1, admin = options.admin or false,
    log = options.log or function() end, scan_interval = options.scan_interval, retries = options.retries or RETRIES,
    retry_interval = options.retry_interval or RETRY_INTERVAL, prepare = options.prepare, loader = options.loader or file_loader, file_loader = file_loader,
    list = options.list or function(path) return core().list_directory(path) end,
    look = options.look or function(path) return core().look(path) end,
    clock = options.clock or function() return core().clock() end,
    next_scan = 0, last_scan = 0, explicit = 0,
    counts = { loaded = 0, failed = 0, unloaded = 0 }, -- for metrics
  }, mt)
  return self
end

local function check_name(name, level)
  if M.valid_name(name) then return end
  error(format("invalid model name %s: up to 128 letters, digits, '.', '_' and '-' expected, not beginning with '.'",
    type(name) == "string" and format("%q", name) or type(name)), level + 1)
end

local function model_of(self, name)
  local model = self.models[name]
  if not model then
    model = { name = name, versions = {}, order = {}, labels = {}, policy = { kind = "latest", count = 1 }, wanted_labels = {},
      held = {}, seen = {}, failed = {} }
    self.models[name] = model
  end
  return model
end

-- order: newest first; latest: the newest one that answers. Labels move when their version answers.
local function refresh(model)
  local order, ended = {}, 0
  for version in pairs(model.versions) do order[#order + 1] = version end
  sort(order, newer)
  model.order, model.latest = {}, nil
  for _, version in ipairs(order) do
    local entry = model.versions[version]
    if entry.state == "END" then ended = ended + 1 end
    if entry.state == "END" and ended > ENDED_MOST then
      model.versions[version] = nil
    else
      model.order[#model.order + 1] = version
      if entry.state == "AVAILABLE" and not model.latest then model.latest = entry end
    end
  end
  for label, version in pairs(model.wanted_labels) do
    local entry = model.versions[version]
    if entry and entry.state == "AVAILABLE" then model.labels[label] = version end
  end
end

local function new_entry(model, version, path)
  return { name = model.name, version = version, path = path, state = "START", error_code = "OK", error_message = "" }
end

-- ---- unloading ----

-- The version is no longer found; requests that have its entry keep it, so the record that stays is another table.
local function retire(self, model, entry, replaced)
  local record = new_entry(model, entry.version, entry.path)
  local servable = entry.servable
  entry.state = "END"
  if not replaced then
    record.state = "UNLOADING"
    model.versions[entry.version] = record
    refresh(model)
    self.counts.unloaded = self.counts.unloaded + 1
    say(self, "info", "model %s version %s: unloading", model.name, entry.version)
  end
  self.draining[#self.draining + 1] = {
    model = model, record = not replaced and record or nil, held = setmetatable({ servable = servable }, { __mode = "v" }),
  }
end

-- Some of the collector's work. In generational mode steps never reach what is old, so now and then all of it is done.
local function collect(self, steps)
  local now = self.clock()
  local stop = now + DRAIN_STEP
  if not steps or self.collect_at and now >= self.collect_at then
    self.collect_wait = min(2 * (self.collect_wait or COLLECT), COLLECT_MOST)
    self.collect_at = now + self.collect_wait
    collectgarbage()
    return
  end
  self.collect_at = self.collect_at or now + COLLECT
  repeat until collectgarbage("step", 0) or self.clock() >= stop
end

-- Looks whether what was retired has been collected. steps: with a little of the collector's work, else all of it. Memory goes back one look
-- later, when finalizers have run.
local function drain(self, steps)
  local left = {}
  if #self.draining == 0 and not self.freed then return end
  if not steps or self.loader == self.file_loader then collect(self, steps) end -- another loader's models are its own business
  if self.freed then
    self.freed = nil
    core().release_memory()
  end
  for _, each in ipairs(self.draining) do
    if each.held.servable ~= nil then
      left[#left + 1] = each
    else
      self.freed, self.collect_wait = self.loader == self.file_loader or nil, nil
      if each.record and each.record.state == "UNLOADING" then
        each.record.state = "END"
        refresh(each.model)
      end
    end
  end
  self.draining = left
  if #left == 0 then self.collect_at = nil end
end

-- ---- loading ----

-- What a load has given: a servable and its report, or nil, message and code. An entry of the same version answers meanwhile.
local function finish(self, model, entry, servable, message, code)
  local old = model.versions[entry.version]
  local replaces = old and old ~= entry and old.state == "AVAILABLE"
  if servable and self.prepare and self.loader == self.file_loader then
    local ok, fine, problem = pcall(self.prepare, servable, model.name, entry.path)
    if not ok or fine == nil then servable, message, code = nil, ok and problem or fine, "INVALID_ARGUMENT" end
  end
  if not servable then
    local seen = model.seen[entry.version]
    local failed = model.failed[entry.version] or { count = 0 }
    message = tostring(message or "unknown error")
    failed.count, failed.at, failed.stamp, failed.path = failed.count + 1, self.clock(), seen and seen.stamp, entry.path
    model.failed[entry.version] = failed
    entry.state, entry.error_code, entry.error_message = "END", code or "UNKNOWN", message
    if not replaces then model.versions[entry.version] = entry end
    refresh(model)
    message = format("model '%s' version %s: %s", model.name, entry.version, message)
    self.counts.failed = self.counts.failed + 1
    say(self, "warn", "%s", message)
    return message
  end
  entry.servable, entry.state, entry.report = servable, "AVAILABLE", type(message) == "table" and message or nil
  self.counts.loaded = self.counts.loaded + 1
  model.versions[entry.version], model.failed[entry.version] = entry, nil
  refresh(model)
  if replaces then retire(self, model, old, true) end
  say(self, "info", "model %s version %s: available%s", model.name, entry.version,
    entry.report and format(" (loaded in %.3f s, warmed up in %.3f s)", entry.report.load, entry.report.warm_up) or "")
end

local function begin(model, wanted)
  local entry, old = new_entry(model, wanted.version, wanted.path), model.versions[wanted.version]
  entry.state = "LOADING"
  if not old or old.state ~= "AVAILABLE" then
    model.versions[wanted.version] = entry
    refresh(model)
  end
  return entry
end

-- in this thread
local function load_now(self, model, wanted)
  local entry = begin(model, wanted)
  local ok, servable, message, code = pcall(self.loader, wanted.path .. "/" .. MODEL_FILE, model.name, wanted.version)
  if not ok then servable, message, code = nil, tostring(servable), "INTERNAL" end
  return finish(self, model, entry, servable, message, code)
end

-- in the core's thread; the job is done in a later call of poll. Returns a message when it cannot even begin.
local function load_aside(self, model, wanted)
  local path = wanted.path .. "/" .. MODEL_FILE
  local entry = begin(model, wanted)
  local ok, message, code
  if not self.thread then self.thread, message, code = core().loader() end
  if self.thread then ok, message, code = self.thread:start(path, load_options(self, path, model.name, wanted.version)) end
  if not ok then return finish(self, model, entry, nil, message, code) end
  self.job = { model = model, entry = entry }
end

local function is_held(model, version) return model.held_all or model.held[version] or false end

local function take_job(self)
  local job = self.job
  local servable, message, code
  if not job then return false end
  servable, message, code = self.thread:take()
  if servable == nil then return false end
  self.job = nil
  -- the model may have been unloaded or taken out of the configuration meanwhile
  if job.model.base == nil or is_held(job.model, job.entry.version) then
    servable, message, code = nil, "unloaded while it was being loaded", "CANCELLED"
  end
  job.message, job.done = finish(self, job.model, job.entry, servable or nil, message, code), true
  return true
end

-- ---- looking ----

-- array of { version, path }, newest first
local function versions_under(self, base)
  local names, message = self.list(base)
  local found, list = {}, {}
  if not names then return nil, message end
  sort(names)
  for _, name in ipairs(names) do
    local version = M.version(name)
    if version then found[version] = base .. "/" .. name end -- of "1" and "01" the last, as in TensorFlow Serving
  end
  for version, path in pairs(found) do list[#list + 1] = { version = version, path = path } end
  sort(list, function(a, b) return newer(a.version, b.version) end)
  return list
end

-- Whether a version directory is whole: it has the file, and nothing has changed for a moment (hasty: the file is enough). Second value: look
-- again soon.
local function is_whole(self, model, each, hasty)
  local now, info = self.clock(), self.look(each.path)
  local seen = model.seen[each.version]
  if not info and self.loader ~= self.file_loader then return true, false end -- a loader of one's own may know what is no directory
  if not info or not info.model then
    model.seen[each.version] = nil
    each.problem = info and "no " .. MODEL_FILE or "cannot be read"
    if self.watch then self.watch:add(each.path) end
    return false, false
  end
  if not seen or seen.stamp ~= info.stamp then
    seen = { stamp = info.stamp, since = now }
    model.seen[each.version] = seen
  end
  each.problem = "is still being written"
  return hasty or info.age >= OLD or now - seen.since >= SETTLE, true
end

-- Whether a version that failed may be tried again; its directory has just been looked at.
local function may_retry(self, model, each)
  local failed, seen = model.failed[each.version], model.seen[each.version]
  if not failed then return true end
  if failed.path ~= each.path or seen and failed.stamp ~= seen.stamp then
    failed.count = 0 -- other files: another version in all but name
    return true
  end
  return failed.count <= self.retries and self.clock() - failed.at >= self.retry_interval
end

local function answers(model, each)
  local entry = model.versions[each.version]
  return entry ~= nil and entry.state == "AVAILABLE" and entry.path == each.path
end

-- Which of the versions found should be served: those that are loaded or can be, by the policy. Then whether to look again soon because
-- one is not whole yet, and what the newest of these lacks.
local function choose(self, model, found, hasty)
  local policy, wanted, waiting, named, problem = model.policy, {}, false, nil, nil
  if policy.kind == "specific" then
    named = {}
    for _, version in ipairs(policy.versions) do named[version] = true end
  end
  for _, each in ipairs(found) do
    local entry = model.versions[each.version]
    if policy.kind == "latest" and #wanted >= policy.count then break end
    if not is_held(model, each.version) and (not named or named[each.version]) then
      if answers(model, each) or entry and entry.state == "LOADING" then
        wanted[#wanted + 1] = each
      else
        local whole, soon = is_whole(self, model, each, hasty)
        if not whole then waiting, problem = waiting or soon, problem or each
        elseif may_retry(self, model, each) then wanted[#wanted + 1] = each end
      end
    end
  end
  return wanted, waiting, problem and format("version %s: %s", problem.version, problem.problem)
end

-- What is not wanted goes when all that is wanted answers.
local function settle(self, model, wanted)
  local keep = {}
  if #wanted == 0 then return end
  for _, each in ipairs(wanted) do
    if not answers(model, each) then return end
    keep[each.version] = true
  end
  for version, entry in pairs(model.versions) do
    if not keep[version] and entry.state == "AVAILABLE" then retire(self, model, entry) end
  end
end

local function retire_all(self, model)
  for _, version in ipairs(model.order) do
    local entry = model.versions[version]
    if entry.state == "AVAILABLE" then retire(self, model, entry) end
  end
end

-- Says once what is wrong with a directory.
local function complain(self, model, message)
  if message and message ~= model.problem then say(self, "warn", "model '%s': %s", model.name, message) end
  model.problem = message
end

local function file_id(path)
  local ok, id = pcall(core().file_id, path)
  return ok and id or nil
end

-- All versions of a directory are gone. On purpose, when it still is the directory they were in; true: look again whether that lasts.
local function emptied(self, model)
  local now = self.clock()
  complain(self, model, format("no versions found under base path '%s'", model.base))
  if not model.latest or model.base_id == nil or file_id(model.base) ~= model.base_id then return false end
  model.empty_since = model.empty_since or now
  if now - model.empty_since >= SETTLE then retire_all(self, model) end
  return model.latest ~= nil
end

-- One look at a model. Returns the versions still to be loaded (empty: nothing to do), or nil and why there are none; the
-- third value says that something is not whole yet.
local function examine(self, model, hasty)
  local found, message = versions_under(self, model.base)
  local missing = {}
  local wanted, waiting, again
  if not found then
    complain(self, model, message)
    return nil, message
  end
  if #found == 0 then
    again = emptied(self, model)
    return nil, model.problem, again
  end
  model.empty_since, model.base_id = nil, file_id(model.base)
  wanted, waiting, message = choose(self, model, found, hasty)
  settle(self, model, wanted)
  for _, each in ipairs(wanted) do
    local entry = model.versions[each.version]
    if not answers(model, each) and not (entry and entry.state == "LOADING") then missing[#missing + 1] = each end
  end
  complain(self, model, not waiting and message or nil)
  if #wanted == 0 and message then return nil, message, waiting end
  return missing, nil, waiting
end

-- Loads all that should be, in this thread, each version once. Errors: one message for each that did not load. patient: what may still be
-- incomplete is left for another time; the second value says that there is some.
local function load_all(self, model, patient)
  local errors, tried = {}, {}
  local missing, message, waiting
  while true do
    local first
    missing, message, waiting = examine(self, model, not patient)
    if not missing and #errors == 0 and not patient then errors[1] = format("model '%s': %s", model.name, message) end
    for _, each in ipairs(missing or {}) do
      if not first and not tried[each.version] then first = each end
    end
    if not first then break end
    tried[first.version] = true
    errors[#errors + 1] = load_now(self, model, first)
  end
  drain(self, true)
  return errors, waiting or false
end

-- ---- adding ----

--- Serves an object of this program. An AVAILABLE version of the same number is replaced.
---@param name string
---@param servable table|userdata with predict_json and signatures
---@param version? number|string default 1
---@return table entry
function methods:add_model(name, servable, version)
  check_name(name, 2)
  local canonical = M.version(version or 1)
  if not canonical then
    error(format("version of model '%s': non-negative integer expected, got %s", name, tostring(version)), 2)
  end
  if servable == nil then error(format("model '%s': servable expected, got nil", name), 2) end
  local model = model_of(self, name)
  local entry, old = new_entry(model, canonical), model.versions[canonical]
  entry.servable, entry.state = servable, "AVAILABLE"
  model.versions[canonical] = entry
  refresh(model)
  if old and old.state == "AVAILABLE" then retire(self, model, old, true) end
  drain(self, true)
  return entry
end

--- Serves versions under <base>/<version>/model.onnx, the newest one unless options say otherwise, and from now on what `poll` finds there.
---@param name string
---@param base string
---@param options? table policy = { kind = "latest", count = N } | { kind = "all" } | { kind = "specific", versions = {…} },
--- labels = { label = version }: each applies as soon as its version is available
---@return boolean|nil ok
---@return string|nil message all that went wrong
function methods:add_directory(name, base, options)
  check_name(name, 2)
  if type(base) ~= "string" then error(format("base path of model '%s': string expected, got %s", name, type(base)), 2) end
  local model = model_of(self, name)
  model.base, model.held, model.held_all, model.failed = base, {}, nil, {}
  if options and options.policy then model.policy = options.policy end
  if options and options.labels then model.wanted_labels = options.labels end
  local errors = load_all(self, model)
  refresh(model)
  if #errors > 0 then return nil, concat(errors, "\n") end
  return true
end

-- Models of a directory of models that are not known yet; names: its entries.
local function new_models(self, root, names)
  local list = {}
  sort(names)
  for _, name in ipairs(names) do
    local path, model = root .. "/" .. name, self.models[name]
    if M.valid_name(name) and not (model and (model.base or next(model.versions))) then
      local found = versions_under(self, path)
      if found then
        if self.watch then self.watch:add(path) end
        if #found > 0 then list[#list + 1] = { name = name, path = path } end
      end
    end
  end
  return list
end

--- Serves every model under <root>/<name>/<version>/model.onnx, and from now on those that `poll` finds there. Subdirectories
--- whose name is no model name or which hold no version are left out.
---@return number count models found
---@return table errors messages of those that could not be served
function methods:add_root(root)
  local names, message = self.list(root)
  local errors, count = {}, 0
  self.roots[#self.roots + 1] = { path = root }
  if not names then return 0, { message } end
  for _, each in ipairs(new_models(self, root, names)) do
    local ok, problem = self:add_directory(each.name, each.path)
    count = count + 1
    if not ok then errors[#errors + 1] = problem end
  end
  return count, errors
end
methods.add_directories = methods.add_root

local function forget_model(self, model)
  retire_all(self, model)
  model.base, model.configured, model.wanted_labels, model.labels, model.problem = nil, nil, {}, {}, nil
end

--- Makes these the configured models (see mlserve.serve.config): new ones are added, those that were configured before and are no longer listed are
--- unloaded. Models added otherwise stay as they are.
---@param list table array of { name, base, policy, labels }
---@param now? boolean load here and now instead of in the next calls of `poll`
---@param all? boolean models that `add_directory` or a directory of models gave are unloaded too when they are not listed, and what was unloaded on
--- request or has failed is wanted again
---@return table errors
function methods:configure(list, now, all)
  local listed, errors = {}, {}
  for _, each in ipairs(list) do
    local model = model_of(self, each.name)
    listed[each.name] = true
    model.base, model.policy, model.configured = each.base, each.policy, true
    model.wanted_labels = each.labels or {}
    if all then model.held, model.held_all, model.failed = {}, nil, {} end
    for label in pairs(model.labels) do
      if not model.wanted_labels[label] then model.labels[label] = nil end
    end
    refresh(model)
    if now then
      for _, message in ipairs(load_all(self, model)) do errors[#errors + 1] = message end
    end
  end
  for name, model in pairs(self.models) do
    if (model.configured or all and model.base) and not listed[name] then forget_model(self, model) end
  end
  if all then self.roots = {} end
  self.next_scan = 0
  return errors
end

--- Reads a configuration file (see mlserve.serve.config) and serves what it lists.
---@param path string
---@param interval? number seconds between looks at the file for changes; 0 or nil: only `reload` reads it again
---@return table|nil errors of models that could not be served
---@return string|nil message when the file itself is no good
function methods:add_config(path, interval)
  local list, source = require("mlserve.serve.config").load(path)
  if not list then return nil, source end
  self.config = { path = path, source = source, interval = interval and interval > 0 and interval or nil, at = self.clock() }
  return self:configure(list, true)
end

-- The file again; unless forced only when its text has changed. A bad one changes nothing.
local function read_config(self, force)
  local config = self.config
  local file, source, list, message
  config.at = self.clock()
  file, message = io.open(config.path, "rb")
  source = file and file:read "*a"
  if file then file:close() end
  if source and source == config.source and not force then return true end
  if source then
    config.source = source
    list, message = require("mlserve.serve.config").parse(source, config.path)
  end
  if not list then
    message = message or config.path .. ": cannot be read"
    if message ~= config.problem or force then say(self, "error", "%s; the models stay as they are", message) end
    config.problem = message
    return nil, message
  end
  config.problem = nil
  self:configure(list)
  say(self, "info", "configuration read again: %s", config.path)
  return true
end

--- Reads the configuration file again, if there is one, and looks at all directories in the next call of `poll`.
---@return boolean|nil ok
---@return string|nil message the configuration stays as it was
function methods:reload()
  self.next_scan = 0
  if self.config then return read_config(self, true) end
  return true
end

-- ---- polling ----

local function own_watch(self)
  if self.watch ~= nil then return end
  self.watch = false
  if self.loader ~= self.file_loader or self.scan_interval == 0 then return end
  local ok, net = pcall(require, "mlserve.net") -- an nginx without it polls
  if ok and net.inotify then self.watch = net.inotify() or false end
end

-- Those to look at in this round; who comes behind the one loaded last is first, so nobody waits for ever.
local function round_of(self)
  local names, list, first = self:names(), {}, 0
  for i, root in ipairs(self.roots) do list[i] = root end
  for i, name in ipairs(names) do
    if self.last_loaded and name <= self.last_loaded then first = i end
  end
  for i = 1, #names do list[#list + 1] = self.models[names[(first + i - 1) % #names + 1]] end
  return list
end

local function look_at_root(self, root)
  local names, message = self.list(root.path)
  if self.watch then self.watch:add(root.path) end
  if not names then
    if message ~= root.problem then say(self, "warn", "%s", message) end
    root.problem = message
    return
  end
  root.problem = nil
  for _, each in ipairs(new_models(self, root.path, names)) do
    local model = model_of(self, each.name)
    model.base, model.held, model.held_all = each.path, {}, nil
    say(self, "info", "model %s: found in %s", each.name, root.path)
  end
end

local function look_at_model(self, model)
  local missing, _, waiting
  if not model.base then return end
  if self.watch then self.watch:add(model.base) end
  missing, _, waiting = examine(self, model)
  if waiting then self.waiting = true end
  if not missing or #missing == 0 then return end
  if self.loader ~= self.file_loader then
    load_now(self, model, missing[1])
    self.again = true
  elseif not self.job and self.explicit == 0 then
    self.last_loaded = model.name
    load_aside(self, model, missing[1])
  end
end

local function round(self, begun)
  self.todo = self.todo or round_of(self)
  while #self.todo > 0 do
    local each = remove(self.todo, 1)
    if each.versions then look_at_model(self, each) else look_at_root(self, each) end
    if #self.todo > 0 and self.clock() - begun > SLICE then return false end
  end
  self.todo, self.last_scan = nil, begun
  return true
end

local function interval_of(self)
  if self.again then return 0 end
  if self.waiting then return SETTLE / 2 end
  if self.scan_interval then return self.scan_interval > 0 and self.scan_interval or huge end
  return self.watch and SCAN_WATCHED or SCAN_UNWATCHED
end

--- Does what is to be done now, without waiting: looks for changes, starts a load, takes the result of one, frees what was unloaded. Call it again when
--- the time it returns is over or something in `pollables` is ready, whichever comes first. Never before a fork.
---@return number seconds
function methods:poll()
  local now = self.clock()
  self.polled = true
  own_watch(self)
  if self.watch and self.watch:take() then self.next_scan = min(self.next_scan, max(now, self.last_scan + SCAN_SHORTEST)) end
  if take_job(self) then self.next_scan = now end
  if self.config and self.config.interval and now - self.config.at >= self.config.interval then read_config(self) end
  if self.todo or now >= self.next_scan then
    if not self.todo then self.waiting, self.again = false, false end
    if round(self, now) then self.next_scan = now + interval_of(self) else self.next_scan = now end
  end
  drain(self, true)
  local delay = max(0, self.next_scan - self.clock())
  if #self.draining > 0 or self.freed then delay = min(delay, DRAIN) end
  if self.config and self.config.interval then delay = min(delay, max(0, self.config.at + self.config.interval - now)) end
  return min(delay, 60)
end

--- What wakes an event loop for `poll` before its time: objects with pollfd(), events() and timeout() (cqueues' protocol), none, one or two.
function methods:pollables()
  local list = {}
  if self.watch then list[1] = self.watch end
  if self.thread then list[#list + 1] = self.thread end
  return list
end

--- The versions in a directory.
---@param base string
---@return table|nil versions array of { version, path }, newest first
---@return string|nil message
function methods:scan(base)
  local found, message = versions_under(self, base)
  if not found then return nil, message end
  if #found == 0 then return nil, format("no versions found under base path '%s'", base) end
  return found
end

--- One look at one model, for who has a timer of its own instead of `poll`: loads with `loader`, which may yield, what is to be loaded.
---@param name string
---@return table errors one message for each version that could not be loaded
---@return boolean waiting something is there that may not be whole yet
function methods:aspire(name)
  local model = self.models[name]
  self.polled = true
  if not model or not model.base then return {}, false end
  return load_all(self, model, true)
end

--- Looks at everything and loads here and now what has changed: for a process that does not call `poll`, such as one that will fork.
---@return table errors one message for each version that could not be loaded
---@return boolean waiting something is there that may not be whole yet
function methods:load_changes()
  local errors, waiting = {}, false
  for _, root in ipairs(self.roots) do look_at_root(self, root) end
  for _, name in ipairs(self:names()) do
    local problems, incomplete = self:aspire(name)
    for _, problem in ipairs(problems) do errors[#errors + 1] = problem end
    waiting = waiting or incomplete
  end
  return errors, waiting
end

-- ---- asking ----

--- Gives a version a name ("stable"). The version must be AVAILABLE.
function methods:set_label(name, label, version)
  if type(label) ~= "string" or label == "" then error("label: non-empty string expected, got " .. type(label), 2) end
  local entry, message = self:get(name, version)
  if not entry then return nil, message end
  self.models[name].labels[label], self.models[name].wanted_labels[label] = entry.version, entry.version
  return true
end

--- The version that answers: the one given, the one labelled, or the latest available.
---@param name string
---@param version? string|number
---@param label? string
---@return table|nil entry { name, version, state = "AVAILABLE", servable }
---@return string|nil reason "model", "version" or "label": what was not found
function methods:get(name, version, label)
  local model = self.models[name]
  if not model then return nil, "model" end
  if label then
    version = model.labels[label]
    if not version then return nil, "label" end
  elseif not version then
    if model.latest then return model.latest end
    return nil, "model"
  end
  local entry = model.versions[M.version(version) or ""]
  if not entry or entry.state ~= "AVAILABLE" then return nil, "version" end
  return entry
end

--- Versions of a model, newest first, with their states; nil when nothing is known under this name.
---@param name string
---@return table|nil entries
function methods:versions(name)
  local model = self.models[name]
  if not model or #model.order == 0 then return nil end
  local entries = {}
  for i, version in ipairs(model.order) do entries[i] = model.versions[version] end
  return entries
end

--- Names of all models, sorted.
function methods:names()
  local names = {}
  for name in pairs(self.models) do names[#names + 1] = name end
  sort(names)
  return names
end

local INDEX_STATES = { START = "LOADING", LOADING = "LOADING", AVAILABLE = "READY", UNLOADING = "UNLOADING", END = "UNAVAILABLE" }

--- Everything known, as Triton's repository index has it.
---@return table array of { name, version (nil: none is known), state = "READY", "LOADING", "UNLOADING" or "UNAVAILABLE", reason (nil when READY) }
function methods:index()
  local list = {}
  for _, name in ipairs(self:names()) do
    local model = self.models[name]
    for _, version in ipairs(model.order) do
      local entry = model.versions[version]
      local reason = entry.error_message ~= "" and entry.error_message or entry.state == "END" and "unloaded" or nil
      list[#list + 1] = { name = name, version = version, state = INDEX_STATES[entry.state], reason = reason }
    end
    if #model.order == 0 then list[#list + 1] = { name = name, state = "UNAVAILABLE", reason = model.problem or "no version" } end
  end
  return list
end

-- ---- on request ----

--- Unloads a version (all versions when none is given), and keeps it so until `load` or `add_directory`. Requests that hold it finish with it.
---@return boolean|nil ok
---@return string|nil reason "model" or "version": what is not known
function methods:unload(name, version)
  local model = self.models[name]
  local wanted = version ~= nil and M.version(version) or nil
  if not model then return nil, "model" end
  if version ~= nil and not (wanted and model.versions[wanted]) then return nil, "version" end
  for each, entry in pairs(model.versions) do
    if version == nil or each == wanted then
      model.held[each] = true
      if entry.state == "AVAILABLE" then retire(self, model, entry) end
    end
  end
  if version == nil then model.held_all = true end
  drain(self)
  return true
end

local function root_with(self, name)
  for _, root in ipairs(self.roots) do
    local found = versions_under(self, root.path .. "/" .. name)
    if found and #found > 0 then return root.path .. "/" .. name end
  end
end

-- Waits for the thread where this repository knows how to wait, else loads here.
local function load_and_wait(self, model, wanted)
  local job, message
  if not self.sleep or self.loader ~= self.file_loader then return load_now(self, model, wanted) end
  self.explicit = self.explicit + 1 -- nothing else begins meanwhile
  while self.job do
    self.sleep(WAIT)
    self:poll()
  end
  message = load_aside(self, model, wanted)
  job = self.job
  self.explicit = self.explicit - 1
  while job and not job.done do
    self.sleep(WAIT)
    self:poll()
  end
  return message or job and job.message
end

--- Loads a model, again when it is loaded already (the old one answers meanwhile), whatever `unload` has said. With `sleep`, a function(seconds)
--- that the transport sets, only the calling coroutine waits.
---@param name string
---@return boolean|nil ok
---@return string|nil message "model" when nothing is known under this name
---@return string|nil code
function methods:load(name)
  local model = self.models[name]
  local base = model and model.base or M.valid_name(name) and root_with(self, name)
  local errors = {}
  local wanted, found, message
  if not base then
    if model and next(model.versions) then return nil, format("failed to load '%s', it has no directory", name), "FAILED_PRECONDITION" end
    return nil, "model"
  end
  found, message = versions_under(self, base)
  if not found then return nil, format("failed to load '%s', %s", name, message), "UNAVAILABLE" end
  model = model_of(self, name)
  model.base, model.held, model.held_all, model.failed = base, {}, nil, {}
  wanted = choose(self, model, found, true)
  if #wanted == 0 then return nil, format("failed to load '%s', no version has a %s", name, MODEL_FILE), "NOT_FOUND" end
  for _, each in ipairs(wanted) do errors[#errors + 1] = load_and_wait(self, model, each) end
  settle(self, model, wanted)
  drain(self, self.sleep ~= nil)
  if #errors > 0 then return nil, format("failed to load '%s', %s", name, concat(errors, "; ")), "INVALID_ARGUMENT" end
  return true
end

return M
