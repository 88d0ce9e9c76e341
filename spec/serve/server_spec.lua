local cjson = require "cjson"
local example = require "mlserve.serve.example"
local fake_servable = require "spec.support.fake_servable"
local process = require "spec.support.process"
local server = require "mlserve.serve.server"

describe("example bodies", function()
  local function body(inputs) return example.predict_body { inputs = inputs } end

  it("have the shape and type of the inputs", function()
    assert.are.equal('{"instances":[[0.0,0.0,0.0]]}', body { x = { dtype = "float32", shape = { -1, 3 } } })
    assert.are.equal('{"instances":[0]}', body { x = { dtype = "int64", shape = { -1 } } })
    assert.are.equal('{"instances":[[[false],[false]]]}', body { x = { dtype = "bool", shape = { -1, 2, -1 } } })
    assert.are.equal('{"instances":[{"a":"","b":[0,0]}]}',
      body { b = { dtype = "int32", shape = { -1, 2 } }, a = { dtype = "string", shape = { -1 } } })
    assert.are.equal('{"inputs":[[0.0,0.0]]}', body { x = { dtype = "float64", shape = { 1, 2 } } })
    assert.are.equal('{"inputs":{"a":0.0,"b":[0.0]}}',
      body { a = { dtype = "float32", shape = {} }, b = { dtype = "float32", shape = { -1 } } })
    assert.is_nil(body { x = { dtype = "float32", shape = { -1, 224, 224, 3 } } })
    assert.is_nil(body { x = { dtype = "float32", shape = { -1, 100000, 100000, 100000, 100000 } } })
  end)
end)

describe("mlserve.server", function()
  it("listens, tells a command that works for each model, serves, and drains on SIGTERM", function()
    local file = os.tmpname()
    process.write(file, [[
      local fake_servable = require "spec.support.fake_servable"
      local server = require("mlserve.serve.server") { rest = { port = 0 } }
      local function values() return { { name = "x", dtype = "float32", shape = { -1, 3 } } } end
      local model = { inputs = values, outputs = values, servable = function(_, given)
        assert(given.version == 1)
        if not given.signatures then return fake_servable.new(0) end
        local signature = given.signatures.serving_default
        assert(signature.inputs.features == "x" and signature.outputs.y == "z")
        return fake_servable.new(10)
      end }
      local signature = { inputs = { features = { dtype = "float32" } }, outputs = { y = { name = "z" } } }
      server:add_model("plain", model):add_model("signed", model, signature):add_model("direct", fake_servable.new(5))
      os.exit(server:run() and 0 or 1)
    ]])
    local child = process.spawn_lua(file)
    child:expect "listening on (http://127%.0%.0%.1:%d+)\n"
    local answers = {}
    for _, name in ipairs { "plain", "signed", "direct" } do
      local command = child:expect("model " .. name .. " version 1: (curl [^\n]+)\n")
      local pipe = io.popen(command .. " -s")
      answers[#answers + 1] = cjson.decode(pipe:read "*a").predictions[1][1]
      pipe:close()
    end
    assert.are.same({ 0, 10, 5 }, answers)
    assert.are.equal(0, child:stop())
    os.remove(file)
  end)

  it("reports a port that is taken and models that did not load", function()
    local lines = {}
    local function log(level, message) lines[#lines + 1] = level .. ": " .. message end
    local first = server { rest = { port = 0 }, log = log }
    first.repository.list = function() return { "1" } end
    first.repository.loader = function() return nil, "no such model" end
    assert.are.same({ nil, "model 'm' version 1: no such model" }, { first:add_directory("m", "models/m") })
    assert(first:start())
    assert.are.same({ "info: listening on " .. first:address(), "warn: model m version 1 is not served: no such model" }, lines)
    local port = tonumber(first:address():match("%d+$"))
    local ok, message = server({ rest = { port = port } }):start()
    assert.is_nil(ok)
    assert.truthy(message:find("cannot listen on 127.0.0.1:" .. port, 1, true))
    first:stop()
    repeat until not first:step(0.1)
  end)

  it("explains misuse", function()
    local it_ = server {}
    assert.has_error(function() server { rest = { prot = 1 } } end)
    assert.has_error(function() server { grpcs = {} } end)
    assert.has_error(function() it_:add_model("a/b", fake_servable.new(0)) end)
    assert.has_error(function() it_:add_model("m", {}) end)
    assert.has_error(function() it_:add_model("m") end)
    assert.has_error(function() it_:add_model("m", { servable = function() return nil, "broken" end }) end)
  end)
end)
