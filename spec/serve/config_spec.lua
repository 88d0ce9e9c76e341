local config = require "mlserve.serve.config"
local textproto = require "mlserve.serve.textproto"

local FIELDS = {
  name = { type = "string" }, flag = { type = "bool" }, count = { type = "uint32" }, small = { type = "int32" }, large = { type = "int64" },
  colour = { type = "enum", values = { RED = 0, BLUE = 2 } }, list = { type = "int64", repeated = true },
  a = { type = "message", fields = {}, oneof = "choice" }, b = { type = "message", fields = {}, oneof = "choice" },
  size = { type = "message", fields = { value = { type = "int64" } } },
  each = { type = "message", repeated = true, fields = { key = { type = "string" }, value = { type = "int64" } } },
}

local function parse(text) return textproto.parse(text, FIELDS, "t") end

describe("protocol buffers in text form", function()
  it("are read in every way protobuf writes them", function()
    local value = assert(parse [[
      # a comment
      name: "a" 'b'   # two pieces
      flag: true, count: 4294967295; small: -2147483648
      large: 9223372036854775807
      colour: BLUE
      list: 1 list: [2, 0x10, 010] list: []
      size { value: 3 }
      each: { key: "x" value: 1 } each < key: 'y', value: 2 >
      a {}
    ]])
    assert.are.same({ "ab", true, 4294967295, -2147483648, "9223372036854775807", 2 },
      { value.name, value.flag, value.count, value.small, value.large, value.colour })
    assert.are.same({ 1, 2, 16, 8 }, value.list)
    assert.are.same({ value = 3 }, value.size)
    assert.are.same({ x = 1, y = 2 }, textproto.map(value.each))
    assert.are.same({}, value.a)
    assert.are.same({ list = {}, each = {} }, parse "")
    assert.are.equal("\a\n\\'\"A\255\195\169\240\159\152\128", parse([[name: "\a\n\\'\"\x41\377\u00e9\U0001F600"]]).name)
    assert.are.equal(2, parse("colour: 2").colour)
    assert.are.equal("-9223372036854775808", parse("large: -9223372036854775808").large)
  end)

  it("are refused with the place of what is wrong", function()
    for text, message in pairs {
      ["nome: 'a'"] = "t:1:1: unknown field 'nome'; known: a, b, colour, count, each, flag, large, list, name, size, small",
      ["name: 'a'\n  name: 'b'"] = "t:2:3: 'name' is given twice",
      ["name 'a'"] = "t:1:6: ':' expected behind 'name', got 'a'",
      ["name: a"] = "t:1:7: string for 'name' expected, got 'a'",
      ["name: 'a"] = "t:1:7: a string does not end",
      ["name: '\\q'"] = "t:1:7: unknown escape '\\q' in a string",
      ["name: '\\777'"] = "t:1:7: '\\777' is no byte",
      ["name: '\\ud800'"] = "t:1:7: no such character in a string",
      ["count: -1"] = "t:1:9: -1 is out of range",
      ["count: 4294967296"] = "t:1:8: 4294967296 is out of range",
      ["large: 9223372036854775808"] = "t:1:8: 9223372036854775808 is out of range",
      ["count: 1.5"] = "t:1:8: integer expected, got '1.5'",
      ["count: 08"] = "t:1:8: integer expected, got '08'",
      ["flag: yes"] = "t:1:7: flag: true or false expected, got 'yes'",
      ["colour: GREEN"] = "t:1:9: colour: BLUE, RED expected, got 'GREEN'",
      ["a {} b {}"] = "t:1:6: 'a' and 'b' exclude each other",
      ["size { value: 3"] = "t:1:16: a field's name or '}' expected, got 'the end'",
      ["size: 3"] = "t:1:7: '{' expected behind 'size', got '3'",
      ["list: [1,]"] = "t:1:10: value expected, got ']'",
      ["}"] = "t:1:1: a field's name expected, got '}'",
      ["\1"] = "t:1:1: unexpected byte 0x01",
    } do
      assert.are.same({ nil, message }, { parse(text) })
    end
  end)
end)

describe("a configuration of models", function()
  it("is TensorFlow Serving's model_config_file", function()
    local list = assert(config.parse([[
      model_config_list {
        config { name: 'm' base_path: '/models/m' model_platform: 'tensorflow'
          model_version_policy { specific { versions: 42 versions: 43 } }
          version_labels { key: 'stable' value: 42 } version_labels { key: 'canary' value: 43 } }
        config { name: "n" base_path: "/models/n" model_version_policy { latest { num_versions: 2 } } }
        config { name: "o" base_path: "/models/o" model_version_policy: { all: {} } }
        config { name: "p" base_path: "/models/p" model_version_policy { latest {} } model_type: TENSORFLOW }
      }]], "models.config"))
    assert.are.same({
      { name = "m", base = "/models/m", policy = { kind = "specific", versions = { "42", "43" } }, labels = { stable = "42", canary = "43" } },
      { name = "n", base = "/models/n", policy = { kind = "latest", count = 2 }, labels = {} },
      { name = "o", base = "/models/o", policy = { kind = "all" }, labels = {} },
      { name = "p", base = "/models/p", policy = { kind = "latest", count = 1 }, labels = {} },
    }, list)
    assert.are.same({}, config.parse("", "models.config"))
  end)

  it("is a Lua table", function()
    local list = assert(config.parse([[
      local root = "/models/"
      return { models = {
        o = root .. "o",
        m = { base = root .. "m", versions = { 42, "43" }, labels = { stable = 42 } },
        n = { root .. "n", versions = { latest = 2 } },
        p = { base = root .. "p", versions = "all" },
      } }]], "models.lua"))
    assert.are.same({
      { name = "m", base = "/models/m", policy = { kind = "specific", versions = { "42", "43" } }, labels = { stable = "42" } },
      { name = "n", base = "/models/n", policy = { kind = "latest", count = 2 }, labels = {} },
      { name = "o", base = "/models/o", policy = { kind = "latest", count = 1 }, labels = {} },
      { name = "p", base = "/models/p", policy = { kind = "all" }, labels = {} },
    }, list)
  end)

  it("gets no globals, no bytecode and no endless loop", function()
    for text, expected in pairs {
      ["return os.execute 'true'"] = "os",
      ["return require 'os'"] = "require",
      ["x = 1 return { models = { m = x, n = _G.x } }"] = "_G",
      ["while true do end"] = "takes too long",
      ["return 1"] = "return { models = … } expected, got number",
      ["return {"] = "models.lua:1:",
      [string.dump(function() end)] = "not bytecode",
    } do
      local list, message = config.parse(text, "models.lua")
      assert.is_nil(list)
      assert.truthy(message:find(expected, 1, true), message)
    end
    assert.is_nil(rawget(_G, "x"))
  end)

  it("is refused with what is wrong in it", function()
    for text, message in pairs {
      ["model_config_list { config { name: 'm' base_path: '/m' } config { name: 'm' base_path: '/n' } }"] =
        "f: Illegal to list model m multiple times in config list",
      ["model_config_list { config { name: 'a/b' base_path: '/m' } }"] = "f: invalid model name 'a/b'",
      ["model_config_list { config { name: 'm' } }"] = "f: model 'm' has no base_path",
      ["model_config_list { config { name: 'm' base_path: '/m' model_version_policy { specific {} } } }"] =
        "f: model 'm': policy 'specific' names no versions",
      ["model_config_list { config { name: 'm' base_path: '/m' model_version_policy { specific { versions: -1 } } } }"] =
        "f: model 'm': '-1' is no version",
      ["model_config_list { config { name: 'm' base_path: '/m' version_labels { key: 'x' value: -1 } } }"] =
        "f: model 'm': label 'x': a name and a version expected",
    } do
      assert.are.same({ nil, message }, { config.parse(text, "f") })
    end
    for text, message in pairs {
      ["return { models = { m = { versions = 'all' } } }"] = "f.lua: model 'm': option 'base' (string) is missing",
      ["return { models = { m = { base = '/m', version = 1 } } }"] = "f.lua: model 'm': unknown option 'version'; known: base, labels, versions",
      ["return { models = { m = { base = '/m', versions = { 1, x = 2 } } } }"] = "f.lua: model 'm': versions: an array or { latest = N } expected",
      ["return { models = { '/m' } }"] = "f.lua: models: NAME = … expected",
    } do
      assert.are.same({ nil, message }, { config.parse(text, "f.lua") })
    end
    assert.is_nil((config.load "no/such/file"))
  end)
end)
