--- Files that say which models are served: TensorFlow Serving's model_config_file and a Lua table.
--
--   model_config_list { config { name: "m" base_path: "/models/m"                    -- text form
--     model_version_policy { specific { versions: 42 versions: 43 } }
--     version_labels { key: "stable" value: 42 } } }
--
--   return { models = {                                                               -- a file that ends in .lua
--     m = { base = "/models/m", versions = { 42, 43 }, labels = { stable = 42 } },
--     n = "/models/n",                                                                -- the newest version
--     o = { base = "/models/o", versions = { latest = 2 } },                          -- or versions = "all"
--   } }
--
-- Both become an array of { name, base, policy = { kind = "latest", count } | { kind = "all" } | { kind = "specific", versions }, labels }
-- in the order of the file, of names in the Lua form. The Lua file sees no globals at all.

local options = require "mlserve.options"
local repository = require "mlserve.serve.repository"
local textproto = require "mlserve.serve.textproto"

local find, format = string.find, string.format
local ipairs, pairs, pcall, sort, tostring, type = ipairs, pairs, pcall, table.sort, tostring, type

local M = {}

local MOST_STEPS = 10000000 -- of Lua's machine: a file that loops must not hang the server

local function message(fields, given)
  local field = { type = "message", fields = fields }
  for key, value in pairs(given or {}) do field[key] = value end
  return field
end

local function text() return { type = "string" } end

local CONFIG = message({
  name = text(), base_path = text(), model_platform = text(),
  model_type = { type = "enum", values = { MODEL_TYPE_UNSPECIFIED = 0, TENSORFLOW = 1, OTHER = 2 } },
  model_version_policy = message {
    latest = message({ num_versions = { type = "uint32" } }, { oneof = "policy" }),
    all = message({}, { oneof = "policy" }),
    specific = message({ versions = { type = "int64", repeated = true } }, { oneof = "policy" }),
  },
  version_labels = message({ key = text(), value = { type = "int64" } }, { repeated = true }),
}, { repeated = true })
local SERVER_CONFIG = { model_config_list = message { config = CONFIG } }

local function policy_of_text(policy)
  if policy and policy.all then return { kind = "all" } end
  if policy and policy.specific then return { kind = "specific", versions = policy.specific.versions } end
  local count = policy and policy.latest and policy.latest.num_versions or 1
  return { kind = "latest", count = count > 0 and count or 1 }
end

local function from_text(source, what)
  local parsed, problem = textproto.parse(source, SERVER_CONFIG, what)
  local list = {}
  if not parsed then return nil, problem end
  for i, config in ipairs(parsed.model_config_list and parsed.model_config_list.config or {}) do
    list[i] = {
      name = config.name, base = config.base_path, policy = policy_of_text(config.model_version_policy),
      labels = textproto.map(config.version_labels),
    }
  end
  return list
end

-- ---- the Lua form ----

local FILE_RULES = { models = { type = "table", required = true } }
local MODEL_RULES = {
  base = { type = "string", required = true, position = 1 },
  versions = { type = { "string", "table" }, choices = { "latest", "all" }, default = "latest" },
  labels = { type = "table", default = {} },
}
local LATEST_RULES = { latest = { type = "integer", min = 1, required = true } }

local function policy_of_table(versions, what)
  if versions == "all" then return { kind = "all" } end
  if versions == "latest" then return { kind = "latest", count = 1 } end
  if #versions > 0 then
    for key in pairs(versions) do
      if type(key) ~= "number" then error(format("%s: versions: an array or { latest = N } expected", what), 0) end
    end
    return { kind = "specific", versions = versions }
  end
  return { kind = "latest", count = options.check(versions, LATEST_RULES, what .. ": versions", 0).latest }
end

local function sorted_names(models, what)
  local names = {}
  for name in pairs(models) do
    if type(name) ~= "string" then error(format("%s: models: NAME = … expected", what), 0) end
    names[#names + 1] = name
  end
  sort(names)
  return names
end

local function read_table(given, what)
  local list = {}
  if type(given) ~= "table" then error(format("%s: return { models = … } expected, got %s", what, type(given)), 0) end
  local models = options.check(given, FILE_RULES, what, 0).models
  for i, name in ipairs(sorted_names(models, what)) do
    local where = format("%s: model '%s'", what, name)
    local entry = models[name]
    if type(entry) == "string" then entry = { entry } end
    entry = options.check(entry, MODEL_RULES, where, 0)
    list[i] = { name = name, base = entry.base, policy = policy_of_table(entry.versions, where), labels = entry.labels }
  end
  return list
end

-- A chunk without globals and without bytecode; nil, message when it does not compile.
local function compile(source, what)
  if source:byte(1) == 27 then return nil, what .. ": Lua text expected, not bytecode" end
  if not setfenv then return load(source, "=" .. what, "t", {}) end -- luacheck: ignore
  local chunk, problem = loadstring(source, "=" .. what) -- luacheck: ignore
  if not chunk then return nil, problem end
  if rawget(_G, "jit") then jit.off(chunk, true) end -- luacheck: ignore
  return setfenv(chunk, {}) -- luacheck: ignore
end

local function from_lua(source, what)
  local chunk, problem = compile(source, what)
  if not chunk then return nil, problem end
  local hook, mask, count = debug.gethook()
  debug.sethook(function() error(what .. ": takes too long", 0) end, "", MOST_STEPS)
  local ok, value = pcall(chunk)
  debug.sethook(hook, mask, count)
  if not ok then return nil, tostring(value) end
  ok, value = pcall(read_table, value, what)
  if not ok then return nil, tostring(value) end
  return value
end

-- ---- both ----

-- Versions in their canonical form; what TensorFlow Serving refuses is refused with its words.
local function check(list, what)
  local seen = {}
  for _, model in ipairs(list) do
    local name = model.name
    if not repository.valid_name(name) then return nil, format("%s: invalid model name '%s'", what, tostring(name)) end
    if seen[name] then return nil, format("%s: Illegal to list model %s multiple times in config list", what, name) end
    if not model.base or model.base == "" then return nil, format("%s: model '%s' has no base_path", what, name) end
    seen[name] = true
    for i, version in ipairs(model.policy.versions or {}) do
      model.policy.versions[i] = repository.version(version)
      if not model.policy.versions[i] then return nil, format("%s: model '%s': '%s' is no version", what, name, tostring(version)) end
    end
    if model.policy.kind == "specific" and #model.policy.versions == 0 then
      return nil, format("%s: model '%s': policy 'specific' names no versions", what, name)
    end
    for label, version in pairs(model.labels) do
      local canonical = repository.version(version)
      if type(label) ~= "string" or label == "" or not canonical then
        return nil, format("%s: model '%s': label '%s': a name and a version expected", what, name, tostring(label))
      end
      model.labels[label] = canonical
    end
  end
  return list
end

--- Reads the text of a configuration.
---@param source string
---@param path string where it comes from; the Lua form when it ends in .lua
---@return table|nil list
---@return string|nil message
function M.parse(source, path)
  local read = find(path, "%.lua$") and from_lua or from_text
  local list, problem = read(source, path)
  if not list then return nil, problem end
  return check(list, path)
end

--- Reads a configuration file.
---@param path string
---@return table|nil list
---@return string message or the text that was read
function M.load(path)
  local file, problem = io.open(path, "rb")
  if not file then return nil, problem end
  local source
  source, problem = file:read "*a"
  file:close()
  if not source then return nil, format("%s: %s", path, problem or "cannot be read") end
  local list
  list, problem = M.parse(source, path)
  if not list then return nil, problem end
  return list, source
end

return M
