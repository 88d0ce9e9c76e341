--- The models a process serves: name -> versions -> servable and state.
--
-- The nouns and states are TensorFlow Serving's: a version goes START, LOADING, AVAILABLE, UNLOADING, END and never back; a
-- failed load ends in END with its reason, and what has ended is remembered. Models come from programs (`add_model`) or from
-- directories in TensorFlow Serving's layout, <base>/<version>/model.onnx (`add_directory`). For a directory the steps are
-- apart, so that something that watches it can call them again: `scan` says which versions should be served, `aspire` makes it
-- so (the new version is loaded before an old one goes).
--
-- Versions are strings of digits without leading zeros: int64 does not fit into LuaJIT's numbers.

local find, format, gsub = string.find, string.format, string.gsub
local ipairs, pairs, pcall, setmetatable, tonumber, tostring, type =
  ipairs, pairs, pcall, setmetatable, tonumber, tostring, type

local M = {}
local methods = {}
local mt = { __name = "mlserve.repository", __index = methods }

local MODEL_FILE = "model.onnx"
local MAX_INT64 = "9223372036854775807"

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

local function list_directory(path) return require("mlserve.core").list_directory(path) end

-- prepare: function(servable, name, directory of the version) -> anything but nil | nil, message
local function file_loader(limits, prepare)
  return function(path, name, version)
    local model, message, code = require("mlserve").load(path, { limits = limits })
    if not model then return nil, message, code end
    local servable = model:servable { model = name, version = #version <= 15 and tonumber(version) or nil }
    if prepare then
      local ok, problem = prepare(servable, name, (gsub(path, "/[^/]*$", "")))
      if ok == nil then return nil, problem, "INVALID_ARGUMENT" end
    end
    return servable
  end
end

---@param options? table loader: function(path, name, version) -> servable | nil, message, code;
--- list: function(path) -> names | nil, message; limits: of models loaded from files (see mlserve.model.load);
--- prepare: function(servable, name, directory) called for each of them before it answers
---@return table repository
function M.new(options)
  options = options or {}
  return setmetatable({ models = {}, loader = options.loader or file_loader(options.limits, options.prepare), list = options.list or list_directory }, mt)
end

local function check_name(name, level)
  if M.valid_name(name) then return end
  error(format("invalid model name %s: up to 128 letters, digits, '.', '_' and '-' expected, not beginning with '.'",
    type(name) == "string" and format("%q", name) or type(name)), level + 1)
end

local function model_of(self, name)
  local model = self.models[name]
  if not model then
    model = { name = name, versions = {}, order = {}, labels = {} }
    self.models[name] = model
  end
  return model
end

-- order: newest first; latest: the newest one that answers.
local function refresh(model)
  local order = {}
  for version in pairs(model.versions) do order[#order + 1] = version end
  table.sort(order, newer)
  model.order, model.latest = order, nil
  for _, version in ipairs(order) do
    local entry = model.versions[version]
    if entry.state == "AVAILABLE" then
      model.latest = entry
      break
    end
  end
end

local function new_entry(model, version)
  local entry = { name = model.name, version = version, state = "START", error_code = "OK", error_message = "" }
  model.versions[version] = entry
  return entry
end

local function set_state(model, entry, state, code, message)
  entry.state = state
  if code then entry.error_code, entry.error_message = code, message end
  if state == "END" then entry.servable = nil end
  refresh(model)
end

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
  local entry = new_entry(model, canonical)
  entry.servable = servable
  set_state(model, entry, "AVAILABLE")
  return entry
end

--- The versions a directory should serve under the policy "latest": its highest numeric subdirectory.
---@return table|nil versions
---@return string|nil message
function methods:scan(base)
  local names, message = self.list(base)
  if not names then return nil, message end
  local best
  for _, name in ipairs(names) do
    local version = M.version(name)
    if version and (not best or newer(version, best.version)) then best = { version = version, path = base .. "/" .. name } end
  end
  if not best then return nil, format("no versions found under base path '%s'", base) end
  return { best }
end

local function load_version(self, model, wanted)
  local entry = new_entry(model, wanted.version)
  set_state(model, entry, "LOADING")
  local path = wanted.path .. "/" .. MODEL_FILE
  local ok, servable, message, code = pcall(self.loader, path, model.name, wanted.version)
  if not ok then servable, message, code = nil, tostring(servable), "INTERNAL" end
  if not servable then
    message = tostring(message or "unknown error")
    set_state(model, entry, "END", code or "UNKNOWN", message)
    return format("model '%s' version %s: %s", model.name, wanted.version, message)
  end
  entry.servable = servable
  set_state(model, entry, "AVAILABLE")
end

--- Makes exactly the wanted versions of a model available: loads what is missing, then unloads what is not wanted. What could
--- not be loaded is not tried again unless `retry`. An old version stays while none of the wanted ones answers.
---@param name string
---@param wanted table array of { version =, path = }
---@param retry? boolean
---@return table errors one message per version that could not be loaded
function methods:aspire(name, wanted, retry)
  local model, errors, keep, any = model_of(self, name), {}, {}, false
  for _, each in ipairs(wanted) do
    keep[each.version] = true
    local entry = model.versions[each.version]
    if not entry or entry.state == "END" and (retry or entry.error_code == "OK") then
      errors[#errors + 1] = load_version(self, model, each)
    end
    entry = model.versions[each.version]
    any = any or entry.state == "AVAILABLE"
  end
  if any or #wanted == 0 then
    for version, entry in pairs(model.versions) do
      if not keep[version] and entry.state == "AVAILABLE" then
        set_state(model, entry, "UNLOADING")
        set_state(model, entry, "END")
      end
    end
  end
  return errors
end

--- Serves the newest version under <base>/<version>/model.onnx.
---@return boolean|nil ok
---@return string|nil message all that went wrong
function methods:add_directory(name, base)
  check_name(name, 2)
  if type(base) ~= "string" then error(format("base path of model '%s': string expected, got %s", name, type(base)), 2) end
  model_of(self, name).base = base
  local wanted, message = self:scan(base)
  if not wanted then return nil, format("model '%s': %s", name, message) end
  local errors = self:aspire(name, wanted)
  if #errors > 0 then return nil, table.concat(errors, "\n") end
  return true
end

--- Serves every model under <base>/<name>/<version>/model.onnx. Subdirectories whose name is no model name or which hold no
--- version are left out.
---@return number count models found
---@return table errors messages of those that could not be served
function methods:add_directories(base)
  local names, message = self.list(base)
  if not names then return 0, { message } end
  local errors, count = {}, 0
  table.sort(names)
  for _, name in ipairs(names) do
    local path = base .. "/" .. name
    if M.valid_name(name) and self:scan(path) then
      count = count + 1
      local ok, problem = self:add_directory(name, path)
      if not ok then errors[#errors + 1] = problem end
    end
  end
  return count, errors
end

--- Gives a version a name ("stable"). The version must be AVAILABLE.
function methods:set_label(name, label, version)
  if type(label) ~= "string" or label == "" then error("label: non-empty string expected, got " .. type(label), 2) end
  local entry, message = self:get(name, version)
  if not entry then return nil, message end
  self.models[name].labels[label] = entry.version
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
  table.sort(names)
  return names
end

--- Unloads a version (all versions when none is given). Requests that hold it finish with it.
function methods:unload(name, version)
  local model = self.models[name]
  if not model then return nil, "model" end
  local wanted = version ~= nil and M.version(version) or nil
  for each, entry in pairs(model.versions) do
    if (version == nil or each == wanted) and entry.state == "AVAILABLE" then
      set_state(model, entry, "UNLOADING")
      set_state(model, entry, "END")
    end
  end
  return true
end

return M
