--- What MODEL and -o MODELDIR on the command line stand for; the layout itself is mlserve.storage's.
-- @module mlserve.cli.model_path

local core = require "mlserve.core"
local mlserve = require "mlserve"
local storage = require "mlserve.storage"

local format = string.format

local model_path = {}

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- Loads a MODEL: an .onnx file, a version directory, or a model directory (its newest version).
---@param given string
---@return table|nil model
---@return string|nil message
function model_path.load(given)
  local model, message
  if not exists(given) then
    return nil, format("there is no model at %s: give an .onnx file, a version directory or a model directory", given)
  end
  model, message = mlserve.load(given)
  if not model then return nil, message end
  return model
end

-- Whether a file can be made there is better known before the training than after it.
local function check_directory(directory)
  local probe = directory .. "/.mlserve-" .. core.info().version
  local ok, message = core.make_directories(directory)
  local file
  if not ok then return nil, message end
  file, message = io.open(probe, "wb")
  if not file then return nil, format("cannot write to %s: %s", directory, message:gsub("^.*: ", "")) end
  file:close()
  os.remove(probe)
  return true
end

--- Where to write a model: an .onnx path as it is; model.onnx in a version directory (its name is a number); else the next
--- version of a model directory. Nothing is overwritten without `force`.
---@param given string
---@param force boolean|nil
---@return string|nil path ends in .onnx
---@return string|nil message
function model_path.create(given, force)
  local trimmed = given:gsub("(.)/+$", "%1")
  local path, base = storage.target(trimmed), trimmed
  local ok, message
  if trimmed:find("%.onnx$") then base = trimmed:match("^(.*)/[^/]*$") or "." end
  if trimmed:match("[^/]*$"):find("^%d+$") then
    path, base = trimmed .. "/model.onnx", trimmed:match("^(.*)/[^/]*$") or "."
  end
  if exists(path) and not force then
    return nil, format("%s exists: name the model directory to add a version, another path, or say --force", path)
  end
  ok, message = check_directory(base == "" and "/" or base)
  if not ok then return nil, message end
  return path
end

return model_path
