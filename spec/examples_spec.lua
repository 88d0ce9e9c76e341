-- The examples run, finish, and leave models that load and are good. Thresholds are far below what logistic regression
-- (scikit-learn) reaches on the same data: 0.98, 0.96 and 1.00.

local mlserve = require "mlserve"
local process = require "spec.support.process"

local quote = process.quote

local function run(name, directory, argument)
  local command = string.format("env LUA_PATH=%s LUA_CPATH=%s %s examples/%s.lua %s >%s/%s.log 2>&1", quote(package.path),
    quote(package.cpath), process.lua, name, quote(argument or directory .. "/" .. name), quote(directory), name)
  local status = os.execute(command)
  local log = process.slurp(directory .. "/" .. name .. ".log")
  assert.is_true(status == true or status == 0, log)
  return log
end

local function accuracy(path)
  return assert(mlserve.load(path)).evaluation.metrics.accuracy
end

describe("example", function()
  local directory

  setup(function() directory = process.directory() end)
  teardown(function() os.execute("rm -rf " .. quote(directory)) end)

  it("cancer", function()
    local log = run("cancer", directory)
    assert.is_truthy(log:find("4. evaluate the optimised model", 1, true), log)
    assert.is_true(accuracy(directory .. "/cancer/1") > 0.93)
    assert.is_true(accuracy(directory .. "/cancer/2") > 0.93)
  end)

  it("digits", function()
    assert.is_truthy(run("digits", directory):find("the first image shows a 0, the model says 0", 1, true))
    local model = assert(mlserve.load(directory .. "/digits"))
    assert.is_true(accuracy(directory .. "/digits") > 0.9)
    assert.same({ { name = "image", dtype = "float32", shape = { -1, 8, 8, 1 } } }, model:inputs())
    assert.same({ { name = "scores", dtype = "float32", shape = { -1, 10 } } }, model:outputs())
  end)

  it("penguins", function()
    assert.is_truthy(run("penguins", directory):find("input     island string", 1, true))
    assert.is_true(accuracy(directory .. "/penguins") > 0.93)
  end)

  it("finetune", function()
    local log = run("finetune", directory)
    local before, head, all = log:match("before%s+accuracy ([%d.]+).-the new layer trained%s+accuracy ([%d.]+).-all layers trained%s+accuracy ([%d.]+)")
    assert.is_true(tonumber(before) < 0.5 and tonumber(head) > 0.85 and tonumber(all) > 0.9, log)
  end)

  it("client", function()
    local server = process.spawn(string.format("env LUA_PATH=%s LUA_CPATH=%s %s bin/mlserve serve --model cancer=%s --rest-port 0", quote(package.path),
      quote(package.cpath), process.lua, quote(directory .. "/cancer")))
    local log = run("client", directory, "http://127.0.0.1:" .. server:expect "listening on http://127%.0%.0%.1:(%d+)\n")
    assert.is_true(tonumber(log:match "(%d+) of 569 patients are classified right") > 530, log)
    assert.is_truthy(log:find("version 2 has predicted 569 rows in 1 requests", 1, true), log)
    server:stop()
  end)

  it("demo.sh runs and leaves nothing behind", function()
    local temporary = directory .. "/tmp"
    os.execute("mkdir -p " .. quote(temporary))
    -- the demo works in a directory of its own: relative paths of modules would be wrong there
    local here = assert(io.popen("pwd")):read("*l")
    local cpath = package.cpath:gsub("[^;]+", function(path) return path:find("^/") and path or here .. "/" .. path end)
    local status = os.execute(string.format("env -u BUILD TMPDIR=%s LUA=%s LUA_CPATH=%s build-aux/demo.sh >%s/demo.log 2>&1",
      quote(temporary), process.lua, quote(cpath), quote(directory)))
    local log = process.slurp(directory .. "/demo.log")
    assert.is_true(status == true or status == 0, log)
    assert.is_truthy(log:find('"predictions":', 1, true), log)
    assert.is_nil(assert(io.popen("ls " .. quote(temporary))):read("*l"))
  end)
end)
