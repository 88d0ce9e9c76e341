--- Protocol buffers from .proto files, and the files of the protocols that this server speaks.
--
--   local proto = require "mlserve.proto"
--   local schema = proto.schema()                                     -- ours are found by name; add(name, text) adds others
--   schema:load "tensorflow_serving/apis/predict.proto"
--   local bytes = schema:encode("tensorflow.serving.ModelSpec", { name = "m", version = { value = 7 } })
--   local spec, message = schema:decode("tensorflow.serving.ModelSpec", bytes)
--   proto.source "grpc_service.proto"                                 -- the text, also `mlserve proto grpc_service.proto`
--
-- What is read is proto3 without extensions, groups and custom options. See mlserve.proto.wire for how values look in Lua.

local parser = require "mlserve.proto.parser"
local wire = require "mlserve.proto.wire"

local find, format, gmatch, gsub, match, sub = string.find, string.format, string.gmatch, string.gsub, string.match, string.sub
local error, ipairs, pcall, setmetatable, sort, tostring, type = error, ipairs, pcall, setmetatable, table.sort, tostring, type

local M = {}

-- the files that lie beside this one
local FILES = {
  "google/protobuf/any.proto", "google/protobuf/descriptor.proto", "google/protobuf/wrappers.proto", "google/rpc/status.proto",
  "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto", "grpc/reflection/v1alpha/reflection.proto", "grpc_service.proto",
  "model_config.proto", "tensorflow/core/example/example.proto", "tensorflow/core/example/feature.proto",
  "tensorflow/core/framework/resource_handle.proto", "tensorflow/core/framework/tensor.proto", "tensorflow/core/framework/tensor_shape.proto",
  "tensorflow/core/framework/types.proto", "tensorflow/core/protobuf/error_codes.proto", "tensorflow/core/protobuf/meta_graph.proto",
  "tensorflow_serving/apis/classification.proto", "tensorflow_serving/apis/get_model_metadata.proto",
  "tensorflow_serving/apis/get_model_status.proto", "tensorflow_serving/apis/inference.proto", "tensorflow_serving/apis/input.proto",
  "tensorflow_serving/apis/model.proto", "tensorflow_serving/apis/model_management.proto", "tensorflow_serving/apis/model_service.proto",
  "tensorflow_serving/apis/predict.proto", "tensorflow_serving/apis/prediction_service.proto", "tensorflow_serving/apis/regression.proto",
  "tensorflow_serving/apis/status.proto", "tensorflow_serving/config/file_system_storage_path_source.proto",
  "tensorflow_serving/config/model_server_config.proto",
}

local TYPES = {
  "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group", "message", "bytes", "uint32", "enum", "sfixed32",
  "sfixed64", "sint32", "sint64",
}
local MESSAGE, ENUM = 11, 14
local DESCRIPTOR = "google/protobuf/descriptor.proto"

---------------------------------------------------------------------------------------------------------------------------
-- the files

--- Names of the .proto files that are installed with this module, sorted.
---@return table
function M.names()
  local list = {}
  for i, name in ipairs(FILES) do list[i] = name end
  return list
end

local known_file = {}
for _, name in ipairs(FILES) do known_file[name] = true end

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

--- The text of one of these files.
---@param name string
---@return string|nil text
---@return string|nil message
function M.source(name)
  if not known_file[name] then return nil, format("no .proto file '%s'", tostring(name)) end
  local base = gsub(name, "%.proto$", "")
  for template in gmatch(package.path, "[^;]+") do
    if find(template, "?.lua", 1, true) then
      local path = gsub(template, "%?%.lua", function() return "mlserve/proto/" .. base .. ".proto" end)
      local text = read(path)
      if text then return text end
    end
  end
  return nil, format("file mlserve/proto/%s is not in package.path", name)
end

---------------------------------------------------------------------------------------------------------------------------
-- schemas

local methods = {}
local mt = { __name = "mlserve.proto", __index = methods }

--- A set of .proto files.
---@return table schema
function M.schema()
  return setmetatable({ files = {}, order = {}, types = {}, symbols = {}, services = {} }, mt)
end

local function define(self, file, name, value)
  if self.symbols[name] then error(format("%s: '%s' is defined in %s already", file.name, name, self.symbols[name]), 0) end
  self.symbols[name] = file.name
  if value then self.types[name] = value end
end

local function join(path, name) return path == "" and name or path .. "." .. name end

local function declare_enum(self, file, path, enum)
  local name = join(path, enum.name)
  local it = { enum = true, name = name, names = {}, numbers = {} }
  define(self, file, name, it)
  for _, value in ipairs(enum.value) do
    define(self, file, join(path, value.name)) -- values are siblings of their enum
    it.names[value.number] = it.names[value.number] or value.name
    it.numbers[value.name] = value.number
  end
end

local function declare_message(self, file, path, message, list)
  local name = join(path, message.name)
  local it = { name = name, by_name = {}, by_number = {}, ordered = {}, declaration = message }
  define(self, file, name, it)
  list[#list + 1] = it
  message.path = nil
  for _, field in ipairs(message.field) do define(self, file, join(name, field.name)) end
  for _, oneof in ipairs(message.oneof_decl) do define(self, file, join(name, oneof.name)) end
  for _, enum in ipairs(message.enum_type) do declare_enum(self, file, name, enum) end
  for _, nested in ipairs(message.nested_type) do declare_message(self, file, name, nested, list) end
end

-- The type that a name means inside of scope: the innermost one.
local function find_type(self, file, scope, name)
  if sub(name, 1, 1) == "." then
    name = sub(name, 2)
    if self.types[name] then return name, self.types[name] end
  else
    while true do
      local full = join(scope, name)
      if self.types[full] then return full, self.types[full] end
      if scope == "" then break end
      scope = match(scope, "^(.*)%.[^.]*$") or ""
    end
  end
  error(format("%s: type '%s' is not known", file.name, name), 0)
end

local function resolve_field(self, file, it, field)
  if field.type_name then
    local full, target = find_type(self, file, it.name, field.type_name)
    local from = self.symbols[full]
    if from ~= file.name and not file.visible[from] then error(format("%s: '%s' needs import \"%s\"", file.name, full, from), 0) end
    field.type_name, field.type = "." .. full, target.enum and ENUM or MESSAGE
  end
  local kind = TYPES[field.type]
  local known = {
    name = field.name, number = field.number, kind = kind, repeated = field.label == 3, proto3_optional = field.proto3_optional,
  }
  if kind == "message" then
    known.message = self.types[sub(field.type_name, 2)]
    known.map = known.repeated and known.message.declaration.options ~= nil and known.message.declaration.options.map_entry or false
  elseif kind == "enum" then
    known.enum = self.types[sub(field.type_name, 2)]
  end
  known.packed = known.repeated and kind ~= "message" and kind ~= "string" and kind ~= "bytes" and not (field.options and field.options.packed == false)
  known.presence = kind == "message" or field.oneof_index ~= nil
  it.by_name[field.name], it.by_number[field.number] = known, known
  it.ordered[#it.ordered + 1] = known
end

local function resolve_message(self, file, it)
  local message, oneofs = it.declaration, {}
  for _, field in ipairs(message.field) do
    resolve_field(self, file, it, field)
    if field.oneof_index and not field.proto3_optional then
      local list = oneofs[field.oneof_index] or {}
      oneofs[field.oneof_index] = list
      list[#list + 1] = it.by_name[field.name]
      it.by_name[field.name].oneof = list
    end
  end
  sort(it.ordered, function(a, b) return a.number < b.number end)
end

local function resolve_services(self, file)
  local path = file.package or ""
  for _, service in ipairs(file.service) do
    local name = join(path, service.name)
    define(self, file, name)
    self.services[name] = service
    for _, method in ipairs(service.method) do
      define(self, file, join(name, method.name))
      method.input_type = "." .. find_type(self, file, name, method.input_type)
      method.output_type = "." .. find_type(self, file, name, method.output_type)
      if self.types[sub(method.input_type, 2)].enum or self.types[sub(method.output_type, 2)].enum then
        error(format("%s: method '%s' takes and gives messages", file.name, method.name), 0)
      end
    end
  end
end

--- Adds a file. What it imports is loaded first. Errors in files are raised.
---@param name string as other files import it
---@param text string
---@return table self
function methods:add(name, text)
  if self.files[name] then return self end
  if self.loading and self.loading[name] then error(format("%s: imports itself", name), 0) end
  local file, list = parser.parse(text, name), {}
  self.loading = self.loading or {}
  self.loading[name] = true
  file.visible = {}
  for _, import in ipairs(file.dependency) do
    self:load(import)
    file.visible[import] = true
  end
  for _, enum in ipairs(file.enum_type) do declare_enum(self, file, file.package or "", enum) end
  for _, message in ipairs(file.message_type) do declare_message(self, file, file.package or "", message, list) end
  for _, it in ipairs(list) do resolve_message(self, file, it) end
  resolve_services(self, file)
  file.visible, self.loading[name] = nil, nil
  self.files[name] = file
  self.order[#self.order + 1] = name
  return self
end

--- Adds one of the files that are installed with this module.
---@param name string
---@return table self
function methods:load(name)
  if self.files[name] then return self end
  local text, message = M.source(name)
  if not text then error(message, 0) end
  return self:add(name, text)
end

local function message_type(self, name)
  local it = self.types[name]
  if not it or it.enum then error(format("no message type '%s'", tostring(name)), 3) end
  return it
end

--- A message as bytes. Raises an error that names the field when the table does not fit.
---@param name string full name of the type
---@param value table
---@return string
function methods:encode(name, value)
  local it = message_type(self, name)
  if type(value) ~= "table" then error(format("%s: table expected, got %s", name, type(value)), 2) end
  return wire.encode(it, value)
end

--- A message as a table; see mlserve.proto.wire.
---@param name string
---@param bytes string
---@param limits? table depth, items
---@return table|nil value
---@return string|nil message
function methods:decode(name, bytes, limits)
  return wire.decode(message_type(self, name), bytes, limits)
end

--- A google.protobuf.Any of a message.
---@param name string
---@param value table
---@return table
function methods:any(name, value)
  return { type_url = "type.googleapis.com/" .. name, value = self:encode(name, value) }
end

--- The file that defines a symbol: a message, enum, value, field, service or method by its full name.
---@param name string
---@return string|nil file
function methods:file_of(name) return self.symbols[name] end

--- A file and all that it needs, in an order in which they can be added.
---@param name string
---@return table|nil names nil: there is no such file
function methods:closure(name)
  local list, seen = {}, {}
  local function visit(each)
    if seen[each] then return end
    seen[each] = true
    for _, import in ipairs(self.files[each].dependency) do visit(import) end
    list[#list + 1] = each
  end
  if not self.files[name] then return nil end
  visit(name)
  return list
end

local descriptors

--- The google.protobuf.FileDescriptorProto of a file, as bytes.
---@param name string
---@return string|nil bytes
function methods:descriptor(name)
  local file = self.files[name]
  if not file then return nil end
  if not descriptors then descriptors = M.schema():load(DESCRIPTOR) end
  file.bytes = file.bytes or descriptors:encode("google.protobuf.FileDescriptorProto", {
    name = file.name, package = file.package, dependency = file.dependency, message_type = file.message_type, enum_type = file.enum_type,
    service = file.service, syntax = file.syntax,
  })
  return file.bytes
end

--- Whether a text is a .proto file that can be read.
---@param name string
---@param text string
---@return boolean|nil ok
---@return string|nil message
function M.check(name, text)
  local ok, message = pcall(function() M.schema():add(name, text) end)
  if ok then return true end
  return nil, tostring(message)
end

return M
