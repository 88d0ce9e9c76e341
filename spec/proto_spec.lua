-- Protocol buffers against Google's: spec/golden/make_proto.py has Python's protobuf encode messages of every kind, and protoc compile our .proto files.

local proto = require "mlserve.proto"

local GOLDEN = "spec/golden/proto/"

local function slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function unhex(text) return (text:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)) end

local KINDS = slurp(GOLDEN .. "kinds.proto")
local cases = dofile(GOLDEN .. "cases.lua")

local function kinds() return proto.schema():add("kinds.proto", KINDS) end

local function digits_of(value)
  if type(value) == "string" then return value end
  return math.type and math.type(value) == "integer" and tostring(value) or ("%.0f"):format(value) -- luacheck: ignore
end

-- Equality as protobuf has it: large integers are digits in the cases, NaN is NaN, -0.0 is not 0.0.
local function same(expected, actual, path)
  if type(expected) == "table" then
    assert.are.equal("table", type(actual), path)
    for key, value in pairs(expected) do same(value, actual[tonumber(key) and math.floor(tonumber(key)) or key], path .. "." .. tostring(key)) end
    for key, value in pairs(actual) do -- what was sent although it is what an absent field means
      local default = value == 0 or value == "" or value == false or value == "NONE"
      assert.is_true(default or expected[key] ~= nil or expected[tostring(key)] ~= nil, path .. "." .. tostring(key) .. " is too much")
    end
  elseif type(expected) == "number" and expected ~= expected then
    assert.is_true(actual ~= actual, path)
  elseif type(expected) == "number" and expected == 0 then
    assert.are.equal(1 / expected, 1 / actual, path)
  elseif type(expected) == "string" and expected:find "^%-?%d+$" and not path:find "some_bytes" then
    assert.are.equal(expected, digits_of(actual), path)
  else
    assert.are.equal(expected, actual, path)
  end
end

describe("protocol buffers", function()
  local schema

  setup(function() schema = kinds() end)

  it("are encoded and decoded as Google's library does", function()
    assert.is_true(#cases > 150)
    for i, case in ipairs(cases) do
      local name, bytes, value = case[1], unhex(case[2]), case[3]
      local decoded = assert(schema:decode(name, bytes))
      same(value, decoded, i .. ": " .. name)
      if not case[4] then
        assert.are.equal(case[2], (schema:encode(name, value):gsub(".", function(c) return ("%02x"):format(c:byte()) end)), name)
        assert.is_true(bytes == schema:encode(name, decoded), name)
      end
    end
  end)

  it("keep numbers exact", function()
    for _, digits in ipairs { "0", "1", "-1", "9007199254740991", "9007199254740993", "-9007199254740993", "9223372036854775807", "-9223372036854775808" } do
      local bytes = schema:encode("test.kinds.Choices", { number = digits })
      assert.are.equal(digits, digits_of(schema:decode("test.kinds.Choices", bytes).number))
    end
    local back = schema:decode("test.kinds.Scalars", schema:encode("test.kinds.Scalars", { a_uint64 = "18446744073709551615", an_int64 = 2 ^ 52 }))
    assert.are.equal("18446744073709551615", back.a_uint64)
    assert.are.equal(2 ^ 52, back.an_int64)
  end)

  it("round floats to the nearest", function()
    local function back(value) return schema:decode("test.kinds.Scalars", schema:encode("test.kinds.Scalars", { a_float = value })).a_float end
    assert.are.equal(0.1 - 0.1 + 13421773 / 2 ^ 27, back(0.1))
    assert.are.equal(16777216, back(16777217)) -- ties to even
    assert.are.equal(16777220, back(16777219))
    assert.are.equal(1 / 0, back(1e39))
    assert.are.equal(2 ^ -149, back(2 ^ -149))
    assert.is_nil(back(0))
    assert.are.equal(0, back(2 ^ -150))
    assert.are.equal(2 ^ -149, back(2 ^ -150 * 1.5))
    assert.are.equal(2 ^ -126, back(2 ^ -126 - 2 ^ -151))
  end)

  it("say what does not fit, and where", function()
    for _, case in ipairs {
      { "Scalars", { an_int32 = 2147483648 }, "test.kinds.Scalars.an_int32: int32 expected, got 2147483648" },
      { "Scalars", { an_int32 = 1.5 }, "test.kinds.Scalars.an_int32: int32 expected, got 1.5" },
      { "Scalars", { an_int32 = "x" }, "test.kinds.Scalars.an_int32: int32 expected, got x" },
      { "Scalars", { an_int64 = "9223372036854775808" }, "test.kinds.Scalars.an_int64: int64 expected, got 9223372036854775808" },
      { "Scalars", { a_uint64 = -1 }, "test.kinds.Scalars.a_uint64: uint64 expected, got -1" },
      { "Scalars", { a_uint64 = "18446744073709551616" }, "test.kinds.Scalars.a_uint64: uint64 expected, got 18446744073709551616" },
      { "Scalars", { a_bool = 1 }, "test.kinds.Scalars.a_bool: boolean expected, got number" },
      { "Scalars", { a_string = 1 }, "test.kinds.Scalars.a_string: string expected, got number" },
      { "Scalars", { a_float = "1" }, "test.kinds.Scalars.a_float: number expected, got string" },
      { "Scalars", { colour = "BLUE" }, "test.kinds.Scalars.colour: 'BLUE' is no value of test.kinds.Colour" },
      { "Scalars", { a_dubel = 1 }, "test.kinds.Scalars: test.kinds.Scalars has no field 'a_dubel'" },
      { "Tree", { children = { {}, { leaf = { shape = "SQUARE" } } } },
        "test.kinds.Tree.children.leaf.shape: 'SQUARE' is no value of test.kinds.Tree.Leaf.Shape" },
      { "Tree", { children = 1 }, "test.kinds.Tree.children: table expected, got number" },
      { "Tree", { leaf = 1 }, "test.kinds.Tree.leaf: table expected, got number" },
      { "Maps", { by_int32 = { x = "y" } }, "test.kinds.Maps.by_int32: int32 expected, got x" },
    } do
      local ok, message = pcall(schema.encode, schema, "test.kinds." .. case[1], case[2])
      assert.is_false(ok)
      assert.are.equal(case[3], (message:gsub("^[^:]*%.lua:%d+: ", "")))
    end
    assert.has_error(function() schema:encode("test.kinds.Nothing", {}) end)
    assert.has_error(function() schema:encode("test.kinds.Colour", {}) end)
    assert.has_error(function() schema:encode("test.kinds.Tree", 1) end)
    local round = {}
    round.children = { round }
    assert.has_error(function() schema:encode("test.kinds.Tree", round) end)
  end)

  it("are refused when they are broken, deep or large", function()
    for _, case in ipairs {
      { "Scalars", "18", "test.kinds.Scalars.an_int32: truncated" }, { "Scalars", "1880", "test.kinds.Scalars.an_int32: truncated" },
      { "Scalars", "18ffffffffffffffffffff01", "test.kinds.Scalars.an_int32: number of more than 10 bytes" },
      { "Scalars", "09000000", "test.kinds.Scalars.a_double: truncated" }, { "Scalars", "15000000", "test.kinds.Scalars.a_float: truncated" },
      { "Scalars", "4d000000", "test.kinds.Scalars.a_fixed32: truncated" }, { "Scalars", "51000000ff", "test.kinds.Scalars.a_fixed64: truncated" },
      { "Scalars", "7202" .. "61", "test.kinds.Scalars.a_string: truncated" }, { "Scalars", "7202ff61", "test.kinds.Scalars.a_string: no valid UTF-8" },
      { "Scalars", "7203eda080", "test.kinds.Scalars.a_string: no valid UTF-8" }, { "Scalars", "00", "test.kinds.Scalars: field with the number 0 or more than 2^29" },
      { "Scalars", "07", "test.kinds.Scalars: field with the number 0 or more than 2^29" }, { "Scalars", "1e", "test.kinds.Scalars: wire type 6" },
      { "Scalars", "a406", "test.kinds.Scalars: wire type 4" }, { "Scalars", "a306", "test.kinds.Scalars: truncated" },
      { "Scalars", "a306ac06", "test.kinds.Scalars: group that ends as another" }, { "Scalars", "a106", "test.kinds.Scalars: truncated" },
      { "Scalars", "a2060a", "test.kinds.Scalars: truncated" }, { "Tree", "1203" .. "1a0208", "test.kinds.Tree.children.leaf: truncated" },
      { "Tree", "12ffffffff0f", "test.kinds.Tree.children: truncated" }, { "Lists", "1a0180", "test.kinds.Lists.int32s: truncated" },
      { "Lists", "0a0700000000000000", "test.kinds.Lists.doubles: truncated" },
    } do
      assert.are.same({ nil, case[3] }, { schema:decode("test.kinds." .. case[1], unhex(case[2])) })
    end

    local deep = ""
    for _ in ("x"):rep(99):gmatch "." do deep = schema:encode("test.kinds.Choices", { text = deep }):gsub("^\10", "\18") end
    assert.is_table(schema:decode("test.kinds.Tree", deep))
    deep = schema:encode("test.kinds.Choices", { text = deep }):gsub("^\10", "\18")
    assert.is_nil((schema:decode("test.kinds.Tree", deep)))
    assert.is_nil((schema:decode("test.kinds.Tree", ("\163\6"):rep(1000))))

    assert.is_table(schema:decode("test.kinds.Lists", ("\24\1"):rep(1000), { items = 1000 }))
    assert.are.same({ nil, "test.kinds.Lists.int32s: too many values" }, { schema:decode("test.kinds.Lists", ("\24\1"):rep(1001), { items = 1000 }) })
    local packed = schema:encode("test.kinds.Lists", { bools = { true, true, true, true } })
    assert.is_nil((schema:decode("test.kinds.Lists", packed, { items = 4 })))
    assert.is_table(schema:decode("test.kinds.Lists", packed, { items = 5 }))
    -- 4 MiB of the smallest messages
    assert.is_nil((schema:decode("test.kinds.Tree", ("\18\0"):rep(2097152))))
  end)

  it("survive what nobody meant", function()
    local state = 12345
    local function random(n)
      state = (state * 16807) % 2147483647
      return state % n
    end
    local read, refused = 0, 0
    for _ = 1, 40 do
      for _, case in ipairs(cases) do
        local bytes = unhex(case[2])
        local kind, at = random(4), random(#bytes + 1)
        if kind == 0 then bytes = bytes:sub(1, at)
        elseif kind == 1 then bytes = bytes:sub(1, at) .. string.char(random(256)) .. bytes:sub(at + 2)
        elseif kind == 2 then bytes = bytes:sub(1, at) .. bytes:sub(random(#bytes + 1) + 1)
        else bytes = bytes:sub(1, at) .. string.char(random(256), random(256)) .. bytes:sub(at + 1) end
        local value, message = schema:decode(case[1], bytes)
        if value then
          read = read + 1
          local again = schema:encode(case[1], value) -- what was read can be written, and is the same then
          assert.is_true(again == schema:encode(case[1], assert(schema:decode(case[1], again))))
        else
          refused = refused + 1
          assert.are.equal(case[1], message:sub(1, #case[1]))
          assert.is_nil(message:find(".lua", 1, true), message)
        end
      end
    end
    assert.is_true(read > 500 and refused > 500)
  end)
end)

describe(".proto files", function()
  it("give the descriptors that protoc gives", function()
    local schema, names, bytes, at = kinds(), {}, slurp(GOLDEN .. "descriptors.pb"), 1
    for _, name in ipairs(proto.names()) do schema:load(name) end
    while at <= #bytes do -- google.protobuf.FileDescriptorSet: field 1, again and again
      local tag, a, b = bytes:byte(at, at + 2)
      local size, head = a, 2
      if a >= 128 then size, head = a - 128 + b * 128, 3 end
      assert.are.equal(10, tag)
      local expected = bytes:sub(at + head, at + head + size - 1)
      local name = expected:sub(3, 2 + expected:byte(2))
      assert.is_true(expected == schema:descriptor(name), name)
      names[#names + 1] = name
      at = at + head + size
    end
    table.sort(names)
    local ours = proto.names()
    ours[#ours + 1] = "kinds.proto"
    table.sort(ours)
    assert.are.same(ours, names) -- run spec/golden/make_proto.py after adding one
  end)

  it("may say what does not matter here", function()
    assert.is_true(proto.check("x.proto", [[syntax = 'proto3';
      option java_package = "a" "b"; option optimize_for = SPEED;
      enum E { option deprecated = true; A = 0 [deprecated = true]; B = 0x10; C = -017; reserved 7, 9 to 11; reserved "D"; }
      message M { option deprecated = true; int32 message = 1 [jstype = JS_NORMAL]; M repeated = 2; reserved 5; map < string , M > map = 3; }
      service S { option deprecated = true; rpc R(stream M) returns (stream .M) { option idempotency_level = NO_SIDE_EFFECTS; } rpc T(M) returns (M) {}; }
      ]]))
  end)

  it("are found by the symbols they define", function()
    local schema = kinds()
    for _, symbol in ipairs { "test.kinds.Scalars", "test.kinds.Scalars.a_bool", "test.kinds.Tree.Leaf.Shape", "test.kinds.Tree.Leaf.LONG", "test.kinds.RED",
      "test.kinds.Kinds", "test.kinds.Kinds.Many", "test.kinds.Maps.ByStringEntry", "test.kinds.Choices.choice" } do
      assert.are.equal("kinds.proto", schema:file_of(symbol), symbol)
    end
    assert.are.equal("google/protobuf/any.proto", schema:file_of "google.protobuf.Any")
    assert.is_nil(schema:file_of "test.kinds")
    assert.is_nil(schema:file_of "test.kinds.Colour.RED")
    assert.are.same({ "google/protobuf/any.proto", "kinds.proto" }, schema:closure "kinds.proto")
    assert.is_nil(schema:closure "other.proto")
    assert.is_nil(schema:descriptor "other.proto")
  end)

  it("are refused with the place of what is wrong", function()
    local function of(text) return select(2, proto.check("x.proto", text)) end
    local function body(text) return of('syntax = "proto3";\n' .. text) end
    assert.is_true(proto.check("x.proto", 'syntax = "proto3"; ; package a.b; // c'))
    assert.are.equal("x.proto:1: only proto3 is understood", of 'syntax = "proto2";')
    assert.are.equal("x.proto:1: 'syntax' expected, got 'message'", of "message M {}")
    for text, message in pairs {
      ["message M { int32 a = 1 }"] = "x.proto:2: ';' expected, got '}'",
      ["message M {\n int32 a = 0; }"] = "x.proto:3: 0 is out of range",
      ["message M { int32 a = 19500; }"] = "x.proto:2: field numbers 19000 to 19999 are reserved",
      ["message M { int32 a = 1; int64 b = 1; }"] = "x.proto:2: message 'M': fields 'a' and 'b' have the number 1",
      ["message M { int32 a = 1; int64 a = 2; }"] = "x.proto:2: message 'M': two fields are named 'a'",
      ["message M { reserved 5 to 9; int32 a = 7; }"] = "x.proto:2: message 'M': field 'a' uses the reserved number 7",
      ['message M { reserved "a"; int32 a = 7; }'] = "x.proto:2: message 'M': the field name 'a' is reserved",
      ["message M { map<float, int32> a = 1; }"] = "x.proto:2: 'float' cannot be the key of a map",
      ["message M { required int32 a = 1; }"] = "x.proto:2: 'required' is not part of proto3",
      ["message M { oneof o { repeated int32 a = 1; } }"] = "x.proto:2: a oneof has plain fields only",
      ["message M { oneof o { } }"] = "x.proto:2: a oneof needs a field",
      ["message M { string a = 1 [packed = true]; }"] = "x.proto:2: field 'a' cannot be packed",
      ["message M { Other a = 1; }"] = "x.proto: type 'Other' is not known",
      ["message M {} message M {}"] = "x.proto: 'M' is defined in x.proto already",
      ["enum E { A = 1; }"] = "x.proto:2: enum 'E': the first value must be 0",
      ["enum E { A = 0; } enum F { A = 0; }"] = "x.proto: 'A' is defined in x.proto already",
      ["enum E { A = 0; } service S { rpc R(E) returns (E); }"] = "x.proto: method 'R' takes and gives messages",
      ["service S { rpc R(X) returns (X); }"] = "x.proto: type 'X' is not known",
      ['import "none.proto";'] = "no .proto file 'none.proto'",
      ['import "x.proto";'] = "no .proto file 'x.proto'",
      ['import public "google/protobuf/any.proto";'] = "x.proto:2: only plain imports are understood",
      ["message M { google.protobuf.Any a = 1; }"] = "x.proto: type 'google.protobuf.Any' is not known",
      ["/* never ends"] = "x.proto:2: comment without end",
      ['option a = "x'] = "x.proto:2: string without end",
      ['option a = "\\q";'] = "x.proto:2: bad escape in string",
      ["option (a) = 1;"] = "x.proto:2: custom options are not supported",
      ["package a; package b;"] = "x.proto:2: second package",
      ["what"] = "x.proto:2: message, enum, service, import, option or package expected, got 'what'",
      ["message"] = "x.proto:2: name of a message expected, got 'the end of the file'",
    } do
      assert.are.equal(message, body(text), text)
    end
    local nested = ("message M { "):rep(40) .. ("}"):rep(40)
    assert.are.equal("x.proto:2: messages are nested more than 32 deep", body(nested))
    -- a file that is imported by what is imported is not visible
    local schema = proto.schema():add("a.proto", 'syntax = "proto3"; message A {}'):add("b.proto", 'syntax = "proto3"; import "a.proto"; message B { A a = 1; }')
    local ok, message = pcall(schema.add, schema, "c.proto", 'syntax = "proto3"; import "b.proto"; message C { A a = 1; }')
    assert.are.same({ false, "c.proto: 'A' needs import \"a.proto\"" }, { ok, message })
  end)

  it("survive what nobody meant", function()
    local state = 99
    local function random(n)
      state = (state * 16807) % 2147483647
      return state % n
    end
    for _ = 1, 300 do
      local from, count = random(#KINDS) + 1, random(40)
      local text = KINDS:sub(1, from) .. KINDS:sub(from + count) .. ("{};=<>\"'[]0a."):sub(random(12) + 1)
      local ok, message = proto.check("kinds.proto", text)
      if not ok then assert.is_nil(message:find(".lua", 1, true), message) end
    end
  end)

  it("are there", function()
    for _, name in ipairs(proto.names()) do assert.truthy(assert(proto.source(name)):find('syntax = "proto3";', 1, true)) end
    assert.are.same({ nil, "no .proto file 'x.proto'" }, { proto.source "x.proto" })
    assert.is_nil((proto.source "../proto.proto"))
    local listed = proto.names()
    local pipe, found = assert(io.popen "cd lua/mlserve/proto && find . -name '*.proto'"), {}
    for line in pipe:lines() do found[#found + 1] = line:sub(3) end
    pipe:close()
    table.sort(found)
    table.sort(listed)
    assert.are.same(found, listed)
  end)
end)
