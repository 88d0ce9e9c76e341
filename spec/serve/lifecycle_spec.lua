-- `mlserve serve` and its models over time: real processes, real directories.
local cjson = require "cjson"
local process = require "spec.support.process"
local store = require "spec.support.model_store"

local quote = process.quote

describe("mlserve serve", function()
  local directory, child

  before_each(function() directory = process.directory() end)
  after_each(function()
    if child then child:stop() end
    child = nil
    store.remove(directory)
  end)

  local function serve(...)
    local words = { "serve", "--rest_api_port=0", ... }
    child = process.spawn_lua("bin/mlserve", (unpack or table.unpack)(words)) -- luacheck: ignore
    return child:expect "listening on (http://[%d.]+:%d+)"
  end

  local function get(url, ...)
    local pipe = assert(io.popen(table.concat({ "curl -s -m 5", quote(url), ... }, " ")))
    local text = pipe:read "*a"
    pipe:close()
    return text
  end

  local function predicted(url)
    local ok, answer = pcall(cjson.decode, get(url .. ":predict", "-d '{\"instances\":[[0]]}'"))
    return ok and answer.predictions and answer.predictions[1][1]
  end

  it("takes TensorFlow Serving's command line and picks up versions as they come and go", function()
    local base = directory .. "/m"
    store.publish(base, 1, 1)
    local url = serve("--port=0", "--model_name=m", "--model_base_path=" .. base, "--enable_batching=true",
      "--tensorflow_session_parallelism=2", "--enable_model_warmup", "--file_system_poll_wait_seconds=1") .. "/v1/models/m"
    local second = child:log():match "listening on http://[%d.]+:%d+, (http://[%d.]+:%d+)"
    assert.is_truthy(get(second .. "/v1/models/m", "--http2-prior-knowledge"):find("AVAILABLE", 1, true))
    assert.truthy(child:log():find("without effect here: --tensorflow_session_parallelism", 1, true))
    assert.are.equal(1, predicted(url))
    store.publish(base, 2, 2)
    assert.is_truthy(process.wait(20, function() return predicted(url) == 2 end))
    os.execute("mkdir " .. quote(base .. "/3"))
    process.write(base .. "/3/model.onnx", "no model")
    assert.is_truthy(process.wait(20, function() return get(url):find("DATA_LOSS", 1, true) end))
    assert.are.equal(2, predicted(url)) -- the old one goes on
    store.remove(base .. "/3")
    store.remove(base .. "/2")
    assert.is_truthy(process.wait(20, function() return predicted(url) == 1 end))
    assert.are.equal(0, child:stop())
    child = nil
  end)

  it("waits for a model that is not there yet, when TensorFlow Serving would", function()
    local url = serve("--model_name=m", "--model_base_path=" .. directory .. "/m") .. "/v1/models/m"
    assert.is_falsy(predicted(url))
    store.publish(directory .. "/m", 1, 5)
    assert.is_truthy(process.wait(20, function() return predicted(url) == 5 end))
  end)

  it("serves a directory of models and lets clients load and unload with --admin", function()
    store.publish(directory .. "/a", 1, 1)
    local url = serve("--models", directory, "--admin", "--model", "own=" .. directory .. "/a")
    assert.are.equal(1, predicted(url .. "/v1/models/own"))
    store.publish(directory .. "/b", 1, 2)
    assert.is_truthy(process.wait(20, function() return predicted(url .. "/v1/models/b") == 2 end))
    assert.are.equal("", get(url .. "/v2/repository/models/b/unload", "-d ''"))
    assert.is_falsy(predicted(url .. "/v1/models/b"))
    assert.are.equal("", get(url .. "/v2/repository/models/b/load", "-d ''"))
    assert.are.equal(2, predicted(url .. "/v1/models/b"))
    assert.truthy(get(url .. "/v2/repository/models/c/load", "-d ''"):find("failed to load 'c'", 1, true))
    assert.truthy(get(url .. "/v2/repository/index", "-d ''"):find('"name":"b"', 1, true))
  end)

  it("reads a configuration file and reads it again", function()
    local file = directory .. "/models.config"
    store.publish(directory .. "/m", 1, 1)
    store.publish(directory .. "/m", 2, 2)
    local function configure(version)
      process.write(file, 'model_config_list { config { name: "m" base_path: "' .. directory .. '/m" model_version_policy { specific { versions: '
        .. version .. ' } } version_labels { key: "stable" value: ' .. version .. " } } }")
    end
    configure(1)
    local url = serve("--model_config_file=" .. file, "--model_config_file_poll_wait_seconds=0.1") .. "/v1/models/m"
    assert.are.equal(1, predicted(url .. "/labels/stable"))
    configure(2)
    assert.is_truthy(process.wait(20, function() return predicted(url .. "/labels/stable") == 2 end))
  end)

  it("explains a command line that makes no sense", function()
    for words, message in pairs {
      ["--rest-port 0"] = "no models: --model NAME=BASEDIR",
      ["--model_name m"] = "--model_name needs --model_base_path",
      ["--model a=x --model a=y"] = "two models are named 'a'",
      ["--model a=x --model_base_path x --model_name a"] = "two models are named 'a'",
      ["--models x --enable_batching=maybe"] = "true or false expected, got 'maybe'",
      ["--model_config_file " .. directory .. "/none"] = "No such file",
    } do
      local program = process.spawn("env LUA_PATH=" .. quote(package.path) .. " LUA_CPATH=" .. quote(package.cpath) .. " " .. process.lua
        .. " bin/mlserve serve " .. words)
      local code = program:code(10)
      assert.truthy(program:log():find(message, 1, true), program:log())
      assert.is_true(code == 1 or code == 2)
      program:stop()
    end
  end)
end)
