--- Where models lie: TensorFlow Serving's layout BASE/VERSION/model.onnx, versions being whole numbers.
-- @module mlserve.storage

local core = require "mlserve.core"

local format = string.format

local storage = {}

local FILE = "model.onnx"

local function is_file(path)
  local file = io.open(path, "rb")
  local readable = file and file:read(0) ~= nil or file and file:seek("end") == 0
  if file then file:close() end
  return readable or false
end

local function join(directory, name) return (directory:gsub("/+$", "")) .. "/" .. name end

--- The versions in a model directory, ascending.
---@param base string
---@return integer[]|nil versions nil: no such directory
---@return string|nil message
function storage.versions(base)
  local names, message = core.list_directory(base)
  local versions = {}
  if not names then return nil, message end
  for _, name in ipairs(names) do
    if name:find("^%d+$") and #name <= 15 and is_file(join(join(base, name), FILE)) then versions[#versions + 1] = tonumber(name) end
  end
  table.sort(versions)
  return versions
end

--- The file of a model: a file itself, a version directory, or a model directory (its newest version).
---@param path string
---@return string|nil file
---@return string|nil message
function storage.find(path)
  local versions, message
  if path:find("%.onnx$") or is_file(path) then return path end
  if is_file(join(path, FILE)) then return join(path, FILE) end
  versions, message = storage.versions(path)
  if not versions then return nil, message end
  if #versions == 0 then return nil, format("%s: neither %s nor a version directory (1, 2, …) with one", path, FILE) end
  return join(join(path, format("%d", versions[#versions])), FILE)
end

--- Where a model is saved: a path ending in .onnx itself, else the next version below a model directory.
---@param path string
---@return string file
function storage.target(path)
  local versions
  if path:find("%.onnx$") then return path end
  versions = storage.versions(path) or {}
  return join(join(path, format("%d", (versions[#versions] or 0) + 1)), FILE)
end

--- Makes the directory a file will lie in.
---@param file string
---@return boolean|nil
---@return string|nil message
function storage.make_parent(file)
  local directory = file:match("^(.*)/[^/]*$")
  if not directory or directory == "" then return true end
  return core.make_directories(directory)
end

return storage
