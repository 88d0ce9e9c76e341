-- The cases of spec/support/tfserving_cases.lua against real models in both transports.

local cqueues = require "cqueues"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"
local cases = require "spec.support.tfserving_cases"

local SETUP = [[
  for name, servable in pairs(require("spec.support.tfserving_cases").models(ROOT)) do
    models:add_model(name, servable)
    if name == "double" then
      models:add_model(name, servable, 2)
      assert(models:set_label(name, "canary", 1))
    end
  end
]]

local function root()
  local pipe = io.popen "pwd"
  local path = pipe:read "*l"
  pipe:close()
  return path .. "/"
end

local function run(port)
  local connection = raw_http.connect(port)
  local count = 0
  local function call(method, path, body, headers)
    local lines = { method .. " " .. path .. " HTTP/1.1", "Host: a", "Content-Length: " .. #(body or "") }
    for name, value in pairs(headers or {}) do lines[#lines + 1] = name .. ": " .. value end
    connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or ""))
    local response = assert(connection:response(10))
    return response.status, response.body, response.headers
  end
  cases.run(call, function(expected, got, what)
    count = count + 1
    assert.are.equal(expected, got, what)
  end, "")
  connection:close()
  assert.is_true(count > 80)
end

describe("TensorFlow Serving's REST protocol with real models", function()
  local server, directory

  after_each(function()
    if server then server:stop() end
    if directory then os.execute("rm -rf " .. process.quote(directory)) end
    server, directory = nil, nil
  end)

  it("stands alone", function()
    directory = process.directory()
    process.write(directory .. "/serve.lua", 'local server = require("mlserve").server { rest = { port = 0 } }\nlocal models, ROOT = server.repository, ""\n'
      .. SETUP .. "\nos.exit(server:run() and 0 or 1)")
    server = process.spawn_lua(directory .. "/serve.lua")
    run(tonumber(server:expect "listening on http://127%.0%.0%.1:(%d+)\n"))
  end)

  it("runs in nginx", function()
    local function read(path) return assert(process.slurp(path), path) end
    local socket = require "cqueues.socket"
    local listener = assert(socket.listen { host = "127.0.0.1", port = "0", reuseaddr = true })
    assert(listener:listen())
    local _, _, port = listener:localname()
    listener:close()
    port = tonumber(port)
    directory = process.directory()
    local build = os.getenv "BUILD" or "build"
    local replacements = {
      ["127.0.0.1:8080"] = "127.0.0.1:" .. port,
      ["$prefix/../../lua/?.lua;$prefix/../../lua/?/init.lua;"] = ("%slua/?.lua;%slua/?/init.lua;%s?.lua;"):format(root(), root(), root()),
      ["$prefix/../../build/"] = (build:find "^/" and build or root() .. build) .. "/",
    }
    local conf = read "examples/nginx/nginx.conf"
    for what, by in pairs(replacements) do
      local from, to = conf:find(what, 1, true)
      conf = conf:sub(1, assert(from, what) - 1) .. by .. conf:sub(to + 1)
    end
    process.write(directory .. "/nginx.conf", conf)
    process.write(directory .. "/access.lua", read "examples/nginx/access.lua")
    process.write(directory .. "/init.lua", 'local nginx = require "mlserve.nginx"\nnginx.init { models = {} }\nlocal models, ROOT = nginx.repository(), "'
      .. root() .. '"\n' .. SETUP)
    server = process.spawn("nginx -p " .. directory .. " -c nginx.conf")
    assert(process.wait(10, function() return server:code() or pcall(function() raw_http.connect(port):close() end) end))
    assert(not server:code(), server:log())
    cqueues.sleep(0)
    run(port)
  end)
end)

describe("a model file's metadata", function()
  it("brings signatures, names of columns and of classes to the servable", function()
    local core, mlserve = require "mlserve.core", require "mlserve"
    local graph, path = core.graph "double", os.tmpname()
    local x = graph:input("x", "float32", { -1, 2 })
    graph:output(graph:node("Add", { x, x }, nil, { "y" }))
    graph:set_property("mlserve.signatures", '{"serving_default": {"inputs": {"in": "x"}, "outputs": {"scores": "y"}}, '
      .. '"again": {"inputs": {"x": "x"}, "outputs": {"y": "y"}, "method_name": "tensorflow/serving/classify"}}')
    graph:set_property("mlserve.features", '["a", "b"]')
    graph:set_property("mlserve.classes", '["p", "q"]')
    assert(core.onnx_save(graph, path .. ".onnx"))
    for _, servable in ipairs { assert(mlserve.load(path .. ".onnx")):servable(), (assert(core.load_servable(path .. ".onnx"))) } do
      local signatures = servable:signatures()
      assert.are.same({ "x", "y" }, { signatures.serving_default.inputs["in"].name, signatures.serving_default.outputs.scores.name })
      assert.are.equal("tensorflow/serving/classify", signatures.again.method_name)
      for _, name in ipairs { "serving_default", "again" } do
        assert.are.equal('{"results":[[["p",2.0],["q",6.0]]]}',
          (assert(servable:classify_json('{"signature_name":"' .. name .. '","examples":[{"b":3.0,"a":1.0}]}')):gsub("%s", "")))
      end
    end
    os.remove(path)
    os.remove(path .. ".onnx")
  end)

  it("is refused where it makes no sense", function()
    local core = require "mlserve.core"
    for _, case in ipairs {
      { "classes", '{"a": 1}', "expected an array" }, { "classes", '["a", null]', "a string expected" }, { "features", '["a"', "" },
      { "signatures", '{"s": {"input": {}}}', "unknown key 'input' (known: inputs, outputs, method_name)" },
      { "signatures", '{"s": {"inputs": {"x": "x"}}}', "signature 's' has no outputs" },
      { "signatures", '{"s": {"inputs": {"x": "nix"}, "outputs": {"y": "y"}}}', "nix" },
      { "signatures", '{"s": {"inputs": {"' .. ("x"):rep(5000) .. '\\n": "x"}}}', "" },
    } do
      local graph = core.graph "same"
      graph:output(graph:node("Identity", { graph:input("x", "float32", { -1, 2 }) }, nil, { "y" }))
      graph:set_property("mlserve." .. case[1], case[2])
      local ok, message = pcall(core.servable, core.program(graph))
      assert.is_false(ok)
      assert.is_truthy(message:find(case[3], 1, true), message)
      assert.is_truthy(message:find("mlserve." .. case[1], 1, true) or message:find("signature 's'", 1, true), message)
    end
  end)
end)
