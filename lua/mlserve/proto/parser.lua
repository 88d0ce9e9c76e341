--- Reads .proto files: proto3 without extensions, groups and custom options.
--
--   local file = parser.parse(text, "name.proto")
--
-- The result has the form of google.protobuf.FileDescriptorProto as a table, with type names as they are written; mlserve.proto resolves them.

local find, format, gsub, match, sub, upper = string.find, string.format, string.gsub, string.match, string.sub, string.upper
local error, ipairs, setmetatable, tonumber = error, ipairs, setmetatable, tonumber
local char = string.char

local M = {}

local SCALARS = {
  double = 1, float = 2, int64 = 3, uint64 = 4, int32 = 5, fixed64 = 6, fixed32 = 7, bool = 8, string = 9, bytes = 12, uint32 = 13, sfixed32 = 15,
  sfixed64 = 16, sint32 = 17, sint64 = 18,
}
local MAP_KEYS = {
  int64 = true, uint64 = true, int32 = true, fixed64 = true, fixed32 = true, bool = true, string = true, uint32 = true, sfixed32 = true,
  sfixed64 = true, sint32 = true, sint64 = true,
}
local MESSAGE = 11
local OPTIONAL, REPEATED = 1, 3
local MAX_NUMBER = 536870911
local MAX_DEPTH = 32

local ESCAPES = { n = "\n", r = "\r", t = "\t", a = "\a", b = "\b", f = "\f", v = "\v", ["\\"] = "\\", ["'"] = "'", ['"'] = '"', ["?"] = "?" }

---------------------------------------------------------------------------------------------------------------------------
-- tokens

local lexer = {}
local lexer_mt = { __index = lexer }

local function fail(self, text, ...)
  local line = 1
  for _ in sub(self.text, 1, self.start - 1):gmatch "\n" do line = line + 1 end
  error(format("%s:%d: ", self.name, line) .. format(text, ...), 0)
end

local function skip(self)
  local text, at = self.text, self.at
  while true do
    local from = at
    at = find(text, "%S", at) or #text + 1
    if sub(text, at, at + 1) == "//" then at = find(text, "\n", at, true) or #text + 1
    elseif sub(text, at, at + 1) == "/*" then
      local _, behind = find(text, "*/", at + 2, true)
      self.start = at
      if not behind then fail(self, "comment without end") end
      at = behind + 1
    end
    if at == from then break end
  end
  self.at = at
end

local function quoted(self, mark)
  local text, at, parts = self.text, self.at + 1, ""
  while true do
    local stop = find(text, "[\\\n" .. mark .. "]", at)
    if not stop or sub(text, stop, stop) == "\n" then fail(self, "string without end") end
    parts = parts .. sub(text, at, stop - 1)
    if sub(text, stop, stop) == mark then
      self.at = stop + 1
      return parts
    end
    local code = match(text, "^[0-7][0-7]?[0-7]?", stop + 1)
    local hex = match(text, "^[xX](%x%x?)", stop + 1)
    if code then
      if tonumber(code, 8) > 255 then fail(self, "bad escape in string") end
      parts, at = parts .. char(tonumber(code, 8)), stop + 1 + #code
    elseif hex then
      parts, at = parts .. char(tonumber(hex, 16)), stop + 2 + #hex
    else
      local known = ESCAPES[sub(text, stop + 1, stop + 1)]
      if not known then fail(self, "bad escape in string") end
      parts, at = parts .. known, stop + 2
    end
  end
end

-- kind ("name", "number", "string", "symbol" or "end") and value of the next token
function lexer:next()
  local text = self.text
  if self.kept then
    local kind, value = self.kept, self.kept_value
    self.kept = nil
    return kind, value
  end
  skip(self)
  self.start = self.at
  local c = sub(text, self.at, self.at)
  if c == "" then return "end", "the end of the file" end
  local token = match(text, "^%.?[%a_][%w_.]*", self.at)
  if token then
    self.at = self.at + #token
    return "name", token
  end
  token = match(text, "^%d[%w.]*", self.at)
  if token then
    self.at = self.at + #token
    return "number", token
  end
  if c == '"' or c == "'" then
    local value = quoted(self, c)
    skip(self)
    while find(self.text, "^[\"']", self.at) do -- adjacent ones are one
      value = value .. quoted(self, sub(self.text, self.at, self.at))
      skip(self)
    end
    return "string", value
  end
  self.at = self.at + 1
  return "symbol", c
end

function lexer:peek()
  local kind, value = self:next()
  self.kept, self.kept_value = kind, value
  return kind, value
end

function lexer:expect(wanted)
  local _, value = self:next()
  if value ~= wanted then fail(self, "'%s' expected, got '%s'", wanted, value) end
end

function lexer:accept(wanted)
  local kind, value = self:peek()
  if kind == "string" or value ~= wanted then return false end
  self:next()
  return true
end

function lexer:identifier(what)
  local kind, value = self:next()
  if kind ~= "name" or find(value, ".", 1, true) then fail(self, "%s expected, got '%s'", what, value) end
  return value
end

function lexer:type_name()
  local kind, value = self:next()
  if kind ~= "name" or find(value, "%.%.") or find(value, "%.$") then fail(self, "type expected, got '%s'", value) end
  return value
end

function lexer:string()
  local kind, value = self:next()
  if kind ~= "string" then fail(self, "string expected, got '%s'", value) end
  return value
end

function lexer:integer(least, most)
  local negative = least < 0 and self:accept "-"
  local kind, value = self:next()
  local number = kind == "number" and (match(value, "^0[xX]%x+$") and tonumber(value) or match(value, "^0[0-7]*$") and tonumber(value, 8)
    or match(value, "^%d+$") and tonumber(value))
  if not number then fail(self, "integer expected, got '%s'", value) end
  if negative then number = -number end
  if number < least or number > most then fail(self, "%s is out of range", value) end
  return number
end

---------------------------------------------------------------------------------------------------------------------------
-- options

-- [ name = value, … ] or nil; values are strings, "true", "false" or numbers as they are written
local function options(self)
  local list = {}
  if not self:accept "[" then return list end
  repeat
    local name
    if self:accept "(" then fail(self, "custom options are not supported") end
    name = self:type_name()
    self:expect "="
    local _, value = self:next()
    list[name] = value
  until not self:accept ","
  self:expect "]"
  return list
end

local function statement_option(self)
  if self:accept "(" then fail(self, "custom options are not supported") end
  local name = self:type_name()
  self:expect "="
  local _, value = self:next()
  self:expect ";"
  return name, value
end

---------------------------------------------------------------------------------------------------------------------------
-- declarations

local function camel(name) return (gsub(name, "_+(%w?)", upper)) end

local function is_packable(kind) return kind ~= SCALARS.string and kind ~= SCALARS.bytes and kind ~= MESSAGE end

-- type, then name = number [options];
local function finish_field(self, kind, label, more)
  local field = { label = label }
  field.name = self:identifier "field name"
  self:expect "="
  field.number = self:integer(1, MAX_NUMBER)
  if field.number >= 19000 and field.number <= 19999 then fail(self, "field numbers 19000 to 19999 are reserved") end
  local given = options(self)
  self:expect ";"
  field.type = SCALARS[kind]
  if not field.type then field.type_name = kind end -- the type follows when the name is resolved
  field.json_name = given.json_name or camel(field.name)
  if given.packed ~= nil or given.deprecated ~= nil then
    field.options = {}
    if given.packed ~= nil then field.options.packed = given.packed == "true" end
    if given.deprecated ~= nil then field.options.deprecated = given.deprecated == "true" end
    if given.packed ~= nil and (label ~= REPEATED or field.type and not is_packable(field.type)) then
      fail(self, "field '%s' cannot be packed", field.name)
    end
  end
  if more then more[#more + 1] = field end
  return field
end

local function map_field(self, message)
  self:expect "<"
  local key = self:type_name()
  if not MAP_KEYS[key] then fail(self, "'%s' cannot be the key of a map", key) end
  self:expect ","
  local value = self:type_name()
  self:expect ">"
  local field = finish_field(self, "entry", REPEATED, message.field)
  local name = gsub("_" .. field.name, "_+(%w?)", upper) .. "Entry"
  field.type, field.type_name = MESSAGE, message.path .. "." .. name
  message.nested_type[#message.nested_type + 1] = {
    name = name, path = field.type_name, options = { map_entry = true },
    field = {
      { name = "key", number = 1, label = OPTIONAL, type = SCALARS[key], json_name = "key" },
      { name = "value", number = 2, label = OPTIONAL, type = SCALARS[value], type_name = not SCALARS[value] and value or nil, json_name = "value" },
    },
    nested_type = {}, enum_type = {}, oneof_decl = {}, reserved_range = {}, reserved_name = {},
  }
end

local function oneof(self, message)
  local index = #message.oneof_decl
  local count = #message.field
  message.oneof_decl[index + 1] = { name = self:identifier "name of a oneof" }
  self:expect "{"
  while not self:accept "}" do
    if self:accept "option" then
      statement_option(self)
    else
      local kind = self:type_name()
      if kind == "map" or kind == "repeated" or kind == "optional" then fail(self, "a oneof has plain fields only") end
      finish_field(self, kind, OPTIONAL, message.field).oneof_index = index
    end
  end
  if #message.field == count then fail(self, "a oneof needs a field") end
end

local function reserved(self, ranges, names)
  if self:peek() == "string" then
    repeat names[#names + 1] = self:string() until not self:accept ","
  else
    repeat
      local from = self:integer(1, MAX_NUMBER)
      local to = from
      if self:accept "to" then
        if self:accept "max" then to = MAX_NUMBER else to = self:integer(from, MAX_NUMBER) end
      end
      ranges[#ranges + 1] = { start = from, ["end"] = to + 1 }
    until not self:accept ","
  end
  self:expect ";"
end

local function enum(self, list)
  local it = { name = self:identifier "name of an enum", value = {} }
  self:expect "{"
  while not self:accept "}" do
    if self:accept "option" then
      local name, value = statement_option(self)
      it.options = it.options or {}
      if name == "allow_alias" or name == "deprecated" then it.options[name] = value == "true" end
    elseif self:accept "reserved" then
      while not self:accept ";" do
        if self:next() == "end" then fail(self, "';' expected") end
      end
    else
      local name = self:identifier "name of a value"
      self:expect "="
      it.value[#it.value + 1] = { name = name, number = self:integer(-2147483648, 2147483647) }
      options(self)
      self:expect ";"
    end
  end
  if not it.value[1] or it.value[1].number ~= 0 then fail(self, "enum '%s': the first value must be 0", it.name) end
  list[#list + 1] = it
end

-- Numbers and names of a message are its own, each once.
local function check_fields(self, message)
  local names, numbers = {}, {}
  for _, field in ipairs(message.field) do
    if names[field.name] then fail(self, "message '%s': two fields are named '%s'", message.name, field.name) end
    if numbers[field.number] then
      fail(self, "message '%s': fields '%s' and '%s' have the number %d", message.name, numbers[field.number], field.name, field.number)
    end
    names[field.name], numbers[field.number] = true, field.name
    for _, range in ipairs(message.reserved_range) do
      if field.number >= range.start and field.number < range["end"] then
        fail(self, "message '%s': field '%s' uses the reserved number %d", message.name, field.name, field.number)
      end
    end
    for _, name in ipairs(message.reserved_name) do
      if field.name == name then fail(self, "message '%s': the field name '%s' is reserved", message.name, name) end
    end
  end
end

local function message(self, list, path, depth)
  local it = {
    name = self:identifier "name of a message", field = {}, nested_type = {}, enum_type = {}, oneof_decl = {}, reserved_range = {}, reserved_name = {},
  }
  it.path = path .. "." .. it.name
  if depth > MAX_DEPTH then fail(self, "messages are nested more than %d deep", MAX_DEPTH) end
  self:expect "{"
  while not self:accept "}" do
    local word = self:type_name()
    if word == "message" then message(self, it.nested_type, it.path, depth + 1)
    elseif word == "enum" then enum(self, it.enum_type)
    elseif word == "oneof" then oneof(self, it)
    elseif word == "reserved" then reserved(self, it.reserved_range, it.reserved_name)
    elseif word == "option" then
      local name, value = statement_option(self)
      if name == "deprecated" then it.options = { deprecated = value == "true" } end
    elseif word == "map" then map_field(self, it)
    elseif word == "repeated" then finish_field(self, self:type_name(), REPEATED, it.field)
    elseif word == "optional" then finish_field(self, self:type_name(), OPTIONAL, it.field).proto3_optional = true
    elseif word == "required" or word == "group" or word == "extensions" or word == "extend" then
      fail(self, "'%s' is not part of proto3", word)
    else finish_field(self, word, OPTIONAL, it.field) end
  end
  for _, field in ipairs(it.field) do -- what is optional is alone in a oneof of its own, behind the real ones
    if field.proto3_optional then
      field.oneof_index = #it.oneof_decl
      it.oneof_decl[#it.oneof_decl + 1] = { name = "_" .. field.name }
    end
  end
  check_fields(self, it)
  list[#list + 1] = it
end

local function type_in_parentheses(self)
  self:expect "("
  local name = self:type_name()
  local stream = name == "stream" and self:peek() == "name"
  if stream then name = self:type_name() end
  self:expect ")"
  return name, stream or nil
end

local function service(self, list)
  local it = { name = self:identifier "name of a service", method = {} }
  self:expect "{"
  while not self:accept "}" do
    if self:accept "option" then
      statement_option(self)
    else
      self:expect "rpc"
      local method = { name = self:identifier "name of a method" }
      method.input_type, method.client_streaming = type_in_parentheses(self)
      self:expect "returns"
      method.output_type, method.server_streaming = type_in_parentheses(self)
      if self:accept "{" then
        while not self:accept "}" do
          self:expect "option"
          statement_option(self)
        end
        self:accept ";"
      else
        self:expect ";"
      end
      it.method[#it.method + 1] = method
    end
  end
  list[#list + 1] = it
end

--- Parses a file. Errors are raised: "name:line: what is wrong".
---@param text string
---@param name string
---@return table file
function M.parse(text, name)
  local self = setmetatable({ text = text, name = name, at = 1, start = 1 }, lexer_mt)
  local file = { name = name, dependency = {}, message_type = {}, enum_type = {}, service = {}, syntax = "proto3" }
  local path = ""
  self:expect "syntax"
  self:expect "="
  if self:string() ~= "proto3" then fail(self, "only proto3 is understood") end
  self:expect ";"
  while true do
    local kind, word = self:next()
    if kind == "end" then break end
    if kind == "name" and word == "package" then
      if file.package then fail(self, "second package") end
      file.package = self:type_name()
      path = "." .. file.package
      self:expect ";"
    elseif kind == "name" and word == "import" then
      if self:accept "weak" or self:accept "public" then fail(self, "only plain imports are understood") end
      file.dependency[#file.dependency + 1] = self:string()
      self:expect ";"
    elseif kind == "name" and word == "option" then statement_option(self)
    elseif kind == "name" and word == "message" then message(self, file.message_type, path, 1)
    elseif kind == "name" and word == "enum" then enum(self, file.enum_type)
    elseif kind == "name" and word == "service" then service(self, file.service)
    elseif kind ~= "symbol" or word ~= ";" then
      fail(self, "message, enum, service, import, option or package expected, got '%s'", word)
    end
  end
  return file
end

M.SCALARS = SCALARS

return M
