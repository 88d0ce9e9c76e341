--- How the requests of a model run: by themselves in the event loop, or merged into batches by threads.
--
--   batching = "auto"                                  -- by what a run was measured to cost when the model was loaded
--   batching = { mode = "always", max_batch_size = 64, batch_timeout_micros = 500, models = { big = { mode = "never" } } }
--   batching = { file = "batching.txt" }               -- TensorFlow Serving's batching_parameters_file
--   batching = { max_queue_micros = 20000 }            -- refuse at once (503) what would wait longer than that for its run
--
-- "auto" leaves a model in the event loop when one row takes less than `inline_below` microseconds, about what handing it to a
-- thread costs. Its requests are merged only when every input and output has an open first dimension and random rows were
-- seen to give bit for bit the same together as each by itself; a costly model of which that is not so runs in a thread, one
-- request at a time. "always" goes without the measurement, and merges what was not seen to mix its rows. "never" runs
-- everything in the event loop.

local textproto = require "mlserve.serve.textproto"

local format = string.format
local ipairs, pairs, setmetatable, tostring, type = ipairs, pairs, setmetatable, tostring, type

local M = {}

local function wrapped(kind) return { type = "message", fields = { value = { type = kind } } } end

-- BatchingParameters
local FIELDS = {
  max_batch_size = wrapped "int64", batch_timeout_micros = wrapped "int64", max_enqueued_batches = wrapped "int64",
  num_batch_threads = wrapped "int64", max_execution_batch_size = wrapped "int64", enable_large_batch_splitting = wrapped "bool",
  thread_pool_name = wrapped "string", allowed_batch_sizes = { type = "int64", repeated = true },
  pad_variable_length_inputs = { type = "bool" },
}

local TYPES = { enable_large_batch_splitting = "boolean", pad_variable_length_inputs = "boolean", thread_pool_name = "string" }
local UNSET = { boolean = false, string = "", number = 0 } -- a wrapper without a value
local SMALLEST = { batch_timeout_micros = 0 }

local OWN = { mode = "string", inline_below = "number", max_queue_micros = "number" }
local MODES = { auto = true, always = true, never = true }

local function check_value(name, value)
  local wanted = TYPES[name] or "number"
  if type(value) ~= wanted then return format("'%s': %s expected, got %s", name, wanted, tostring(value)) end
  if wanted == "number" and (value % 1 ~= 0 or value < (SMALLEST[name] or 1) or value > 9007199254740992) then
    return format("'%s': an integer not below %d expected, got %s", name, SMALLEST[name] or 1, tostring(value))
  end
end

local function read_field(name, value)
  if FIELDS[name].repeated then
    for _, each in ipairs(value) do
      local problem = check_value(name, each)
      if problem then return nil, problem end
    end
    return value
  end
  if FIELDS[name].fields then
    value = value.value
    if value == nil then value = UNSET[TYPES[name] or "number"] end
  end
  local problem = check_value(name, value)
  if problem then return nil, problem end
  return value
end

local function processors()
  local core = require "mlserve.core"
  return core.threads and core.threads() or 1
end

--- Reads BatchingParameters in text format. What is not given has TensorFlow Serving's defaults.
---@param text string
---@param what? string where it comes from, for messages
---@return table|nil options
---@return string|nil message
function M.parse(text, what)
  local fields, problem = textproto.parse(text, FIELDS, what)
  if not fields then return nil, problem end
  if #fields.allowed_batch_sizes == 0 then fields.allowed_batch_sizes = nil end
  local options = {
    max_batch_size = 1000, batch_timeout_micros = 0, max_enqueued_batches = 10, num_batch_threads = processors(),
    pad_variable_length_inputs = false, enable_large_batch_splitting = false,
  }
  for name, given in pairs(fields) do
    local value, message = read_field(name, given)
    if value == nil then return nil, format("%s: %s", what or "text", message) end
    options[name] = value
  end
  options.thread_pool_name = nil -- every model has threads of its own
  return options
end

---@param path string
---@return table|nil options
---@return string|nil message
function M.read(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text = file:read "*a"
  file:close()
  if not text then return nil, format("cannot read %s", path) end
  return M.parse(text, path)
end

local function check_options(given, what)
  for name, value in pairs(given) do
    local problem
    if OWN[name] then
      if type(value) ~= OWN[name] then problem = format("'%s': %s expected, got %s", name, OWN[name], type(value)) end
    elseif FIELDS[name] and FIELDS[name].repeated then
      if type(value) ~= "table" then problem = format("'%s': an array expected, got %s", name, type(value))
      else for _, each in ipairs(value) do problem = problem or check_value(name, each) end end
    elseif FIELDS[name] then
      problem = check_value(name, value)
    else
      local known = {}
      for each in pairs(FIELDS) do known[#known + 1] = each end
      for each in pairs(OWN) do known[#known + 1] = each end
      table.sort(known)
      problem = format("unknown option '%s'; known: %s", tostring(name), table.concat(known, ", "))
    end
    if problem then return nil, what .. ": " .. problem end
  end
  if given.mode and not MODES[given.mode] then return nil, format('%s: \'mode\': "auto", "always" or "never" expected, got "%s"', what, given.mode) end
  return given
end

local Config = {}
Config.__index = Config

--- What servable:batching is to be told for a model.
---@param name string
---@return table options
function Config:options(name)
  local options = {}
  for key, value in pairs(self.common) do options[key] = value end
  for key, value in pairs(self.models[name] or {}) do options[key] = value end
  options.thread_pool_name = nil
  return options
end

--- Decides about a servable that was just loaded; what has no such method stays as it is. `directory` is that of its version: with
--- `per_model` its batching_params.pbtxt is read.
---@return table|nil report { threads, merge, exact, run_us, reason }
---@return string|nil message
function Config:apply(servable, name, directory)
  if not servable.batching then return nil, "not a model of the core" end
  local options = self:options(name)
  if self.per_model and directory then
    local path = directory .. "/batching_params.pbtxt"
    local file = io.open(path, "rb")
    if file then
      file:close()
      local given, message = M.read(path)
      if not given then return nil, message end
      for key, value in pairs(given) do options[key] = value end
    end
  end
  return servable:batching(options)
end

--- Checks a configuration; see the top of this file. Misuse raises, a file that cannot be read gives nil and a message.
---@param given? string|table mode, or { mode, file, per_model, models = { NAME = { … } }, and the parameters themselves }
---@return table|nil config
---@return string|nil message
function M.config(given)
  if given == nil then given = "auto" end
  if type(given) == "string" then given = { mode = given } end
  if type(given) ~= "table" then error(format("batching: string or table expected, got %s", type(given)), 2) end
  local common, models = {}, {}
  if given.file ~= nil then
    local message
    common, message = M.read(given.file)
    if not common then return nil, message end
  end
  for name, options in pairs(given.models or {}) do
    local ok, message = check_options(options, format("batching: model '%s'", tostring(name)))
    if not ok then error(message, 2) end
    models[name] = options
  end
  local own = {}
  for name, value in pairs(given) do
    if name ~= "file" and name ~= "models" and name ~= "per_model" then own[name] = value end
  end
  local ok, message = check_options(own, "batching")
  if not ok then error(message, 2) end
  for name, value in pairs(own) do common[name] = value end
  return setmetatable({ common = common, models = models, per_model = given.per_model == true }, Config)
end

return M
