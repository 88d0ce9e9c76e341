local core = require "mlserve.core"
local process = require "spec.support.process"
local repository = require "mlserve.serve.repository"
local store = require "spec.support.model_store"

local function states(models, name)
  local list = {}
  for i, entry in ipairs(models:versions(name) or {}) do list[i] = entry.version .. " " .. entry.state end
  return list
end

describe("the repository", function()
  local files, loads, broken, models

  before_each(function()
    files, loads, broken = {}, {}, {}
    models = repository.new {
      list = function(path)
        if not files[path] then return nil, path .. ": No such file or directory" end
        return files[path]
      end,
      loader = function(path)
        loads[#loads + 1] = path
        if broken[path] == "raise" then error("loader raised") end
        if broken[path] then return nil, broken[path], "DATA_LOSS" end
        return { path = path }
      end,
      look = function() return { model = true, stamp = "", age = 60 } end,
    }
  end)

  it("knows versions as int64", function()
    for given, expected in pairs { [7] = "7", ["007"] = "7", ["0"] = "0", ["000"] = "0",
      ["9223372036854775807"] = "9223372036854775807" } do
      assert.are.equal(expected, repository.version(given))
    end
    for _, given in ipairs { -1, 1.5, "-1", "", "1a", "9223372036854775808", "99999999999999999999", 1e300, "1.0" } do
      assert.is_nil(repository.version(given))
    end
  end)

  it("knows names that may become paths", function()
    for _, name in ipairs { "a", "cancer", "A-b_c.1", ("x"):rep(128) } do assert.is_true(repository.valid_name(name), name) end
    for _, name in ipairs { "", ".", "..", ".a", "a/b", "a b", "a%", "\0", ("x"):rep(129), 1, false } do
      assert.is_false(repository.valid_name(name))
      assert.has_error(function() models:add_model(name, {}) end)
    end
  end)

  it("gives the latest available version, a given one, a labelled one", function()
    models:add_model("m", { id = 1 }, 1)
    models:add_model("m", { id = 10 }, 10)
    models:add_model("m", { id = 9 }, "9")
    assert.are.equal(10, models:get("m").servable.id)
    assert.are.equal(9, models:get("m", 9).servable.id)
    assert.are.equal(9, models:get("m", "09").servable.id)
    assert.is_true(models:set_label("m", "stable", 1))
    assert.are.equal(1, models:get("m", nil, "stable").servable.id)
    assert.are.same({ nil, "version" }, { models:get("m", 2) })
    assert.are.same({ nil, "version" }, { models:get("m", "x") })
    assert.are.same({ nil, "label" }, { models:get("m", nil, "canary") })
    assert.are.same({ nil, "model" }, { models:get("other") })
    assert.are.same({ nil, "version" }, { models:set_label("m", "canary", 3) })
    models:unload("m", 10)
    assert.are.equal(9, models:get("m").servable.id)
    models:unload("m")
    assert.are.same({ nil, "model" }, { models:get("m") })
    assert.are.equal(3, #models:versions("m"))
    assert.has_error(function() models:add_model("m", {}, -1) end)
    assert.has_error(function() models:add_model("m", nil) end)
  end)

  it("loads the highest numeric version of a directory", function()
    files["base/m"] = { "9", "10", "tmp", "11.tmp", "2", "-12", "model.onnx", "00" }
    assert.is_true(models:add_directory("m", "base/m"))
    assert.are.same({ "base/m/10/model.onnx" }, loads)
    assert.are.equal("10", models:get("m").version)
  end)

  it("keeps the reason of a version that does not load", function()
    files["base/m"], broken["base/m/3/model.onnx"] = { "3" }, "not an ONNX file"
    local ok, message = models:add_directory("m", "base/m")
    assert.is_nil(ok)
    assert.are.equal("model 'm' version 3: not an ONNX file", message)
    local entry = models:versions("m")[1]
    assert.are.same({ "3", "END", "DATA_LOSS", "not an ONNX file" },
      { entry.version, entry.state, entry.error_code, entry.error_message })
    assert.are.same({ nil, "model" }, { models:get("m") })
    broken["base/m/3/model.onnx"] = "raise"
    assert.is_nil(models:add_directory("m", "base/m"))
    entry = models:versions("m")[1]
    assert.are.same({ "END", "INTERNAL" }, { entry.state, entry.error_code })
    assert.truthy(entry.error_message:find("loader raised", 1, true))
  end)

  it("tells what is wrong with a directory", function()
    assert.are.same({ nil, "model 'm': base/m: No such file or directory" }, { models:add_directory("m", "base/m") })
    files["base/m"] = { "a" }
    assert.are.same({ nil, "model 'm': no versions found under base path 'base/m'" }, { models:add_directory("m", "base/m") })
  end)

  it("loads all models of a directory and collects all errors", function()
    files.base = { "b", "a", "empty", "file", ".hidden", "c" }
    files["base/a"], files["base/b"], files["base/c"], files["base/empty"], files["base/.hidden"] =
      { "1" }, { "1" }, { "1" }, {}, { "1" }
    broken["base/a/1/model.onnx"], broken["base/c/1/model.onnx"] = "bad a", "bad c"
    local count, errors = models:add_directories("base")
    assert.are.equal(3, count)
    assert.are.same({ "model 'a' version 1: bad a", "model 'c' version 1: bad c" }, errors)
    assert.are.equal("base/b/1/model.onnx", models:get("b").servable.path)
    assert.are.same({ 0, { "nowhere: No such file or directory" } }, { models:add_directories("nowhere") })
  end)

  it("serves the next older version while the newest does not load", function()
    files["base/m"], broken["base/m/2/model.onnx"] = { "1", "2" }, "bad"
    assert.are.same({ nil, "model 'm' version 2: bad" }, { models:add_directory("m", "base/m") })
    assert.are.same({ "2 END", "1 AVAILABLE" }, states(models, "m"))
    broken["base/m/2/model.onnx"] = nil
    models:poll() -- not tried again at once
    assert.are.same({ "2 END", "1 AVAILABLE" }, states(models, "m"))
    assert.is_true(models:add_directory("m", "base/m"))
    assert.are.equal("2", models:get("m").version)
    assert.are.same({ "base/m/2/model.onnx", "base/m/1/model.onnx", "base/m/2/model.onnx" }, loads)
  end)

  it("tries a version that failed again, a few times, after a while", function()
    local now, lines = 100, {}
    models = repository.new {
      list = function() return { "1" } end, loader = function() return nil, "bad" end,
      look = function() return { model = true, stamp = "", age = 60 } end, clock = function() return now end,
      retries = 2, retry_interval = 60, log = function(level, message) lines[#lines + 1] = level .. ": " .. message end,
    }
    models:add_directory("m", "base/m")
    for _ = 1, 10 do
      now = now + 50
      models:poll()
    end
    assert.are.same({ "warn: model 'm' version 1: bad", "warn: model 'm' version 1: bad" }, lines)
    assert.are.equal(3, models.counts.failed)
  end)

  it("follows the policy: latest N, all, specific", function()
    files["base/m"] = { "1", "2", "3", "4" }
    models:add_directory("m", "base/m", { policy = { kind = "latest", count = 2 } })
    assert.are.same({ "4 AVAILABLE", "3 AVAILABLE" }, states(models, "m"))
    models:add_directory("n", "base/m", { policy = { kind = "all" } })
    assert.are.same({ "4 AVAILABLE", "3 AVAILABLE", "2 AVAILABLE", "1 AVAILABLE" }, states(models, "n"))
    models:add_directory("o", "base/m", { policy = { kind = "specific", versions = { "1", "3", "9" } } })
    assert.are.same({ "3 AVAILABLE", "1 AVAILABLE" }, states(models, "o"))
    models:add_directory("o", "base/m", { policy = { kind = "specific", versions = { "2" } } })
    models:unload("n", 4)
    assert.are.equal("2", models:get("o").version)
    assert.are.same({ nil, "version" }, { models:get("o", 3) })
    models:poll()
    assert.are.same({ nil, "version" }, { models:get("n", 4) })
  end)

  it("applies a label when its version becomes available", function()
    files["base/m"], broken["base/m/2/model.onnx"] = { "1", "2" }, "bad"
    models:add_directory("m", "base/m", { policy = { kind = "all" }, labels = { stable = "1", canary = "2" } })
    assert.are.equal("1", models:get("m", nil, "stable").version)
    assert.are.same({ nil, "label" }, { models:get("m", nil, "canary") })
    broken["base/m/2/model.onnx"] = nil
    models:add_directory("m", "base/m")
    assert.are.equal("2", models:get("m", nil, "canary").version)
    -- a label that moves stays where it is until the version it moves to is there
    models:configure({ { name = "m", base = "base/m", policy = { kind = "all" }, labels = { stable = "3" } } }, true)
    assert.are.equal("1", models:get("m", nil, "stable").version)
    assert.are.same({ nil, "label" }, { models:get("m", nil, "canary") })
    files["base/m"] = { "1", "2", "3" }
    models:poll()
    assert.are.equal("3", models:get("m", nil, "stable").version)
  end)

  it("takes a new configuration: what is no longer listed goes", function()
    files["base/a"], files["base/b"], files["base/c"] = { "1" }, { "1" }, { "1" }
    models:add_directory("c", "base/c")
    local latest = { kind = "latest", count = 1 }
    assert.are.same({}, models:configure({ { name = "a", base = "base/a", policy = latest }, { name = "b", base = "base/b", policy = latest } }, true))
    models:configure { { name = "b", base = "base/c", policy = latest } }
    models:poll()
    assert.are.same({ nil, "model" }, { models:get("a") })
    assert.are.equal("base/c/1/model.onnx", models:get("b").servable.path) -- the same number below another base is another version
    assert.is_truthy(models:get("c"))
  end)

  it("lists everything for Triton's index", function()
    files["base/m"], broken["base/m/2/model.onnx"] = { "1", "2" }, "bad"
    models:add_directory("m", "base/m")
    models:add_model("p", {}, 5)
    models:add_directory("none", "nowhere")
    models:unload("p")
    assert.are.same({
      { name = "m", version = "2", state = "UNAVAILABLE", reason = "bad" },
      { name = "m", version = "1", state = "READY" },
      { name = "none", state = "UNAVAILABLE", reason = "nowhere: No such file or directory" },
      { name = "p", version = "5", state = "UNAVAILABLE", reason = "unloaded" },
    }, models:index())
  end)

  it("keeps a version for those who hold it and says END when nobody does", function()
    models:add_model("m", { id = 1 }, 1)
    local held = models:get("m")
    models:unload("m")
    assert.are.same({ "1 UNLOADING" }, states(models, "m"))
    assert.are.equal(1, held.servable.id)
    held = nil -- luacheck: ignore
    models:unload("m")
    assert.are.same({ "1 END" }, states(models, "m"))
  end)
end)

describe("a watched repository", function()
  local directory, base, models, lines

  local function poll_until(condition, seconds)
    return process.wait(seconds or 20, function()
      models:poll()
      return condition()
    end)
  end

  local function serves(version, value)
    return poll_until(function()
      local entry = models:get("m")
      return entry and entry.version == version and store.value(entry) == value
    end)
  end

  local function polls(seconds)
    local stop = core.clock() + seconds
    poll_until(function() return core.clock() > stop end)
  end

  before_each(function()
    directory, lines = process.directory(), {}
    base = directory .. "/m"
    models = repository.new { log = function(_, message) lines[#lines + 1] = message end }
  end)

  after_each(function() store.remove(directory) end)

  it("loads a new version aside, swaps it in, and frees the old one", function()
    store.publish(base, 1, 10)
    assert(models:add_directory("m", base))
    assert.are.equal(10, store.value(models:get("m")))
    store.publish(base, 2, 20)
    assert.is_truthy(serves("2", 20))
    assert.is_truthy(poll_until(function() return states(models, "m")[2] == "1 END" end))
    assert.are.same({ "2 AVAILABLE", "1 END" }, states(models, "m"))
    assert.truthy(table.concat(lines, "\n"):find("model m version 2: available (loaded in ", 1, true))
    store.remove(base .. "/2") -- and back
    assert.is_truthy(serves("1", 10))
  end)

  it("gives all memory back over many swaps", function()
    store.publish(base, 1, 1)
    models:add_directory("m", base)
    local function swap(version)
      store.publish(base, version, version)
      assert.is_truthy(serves(tostring(version), version))
      store.remove(base .. "/" .. version - 1)
      assert.is_truthy(poll_until(function() return #models.draining == 0 end))
      collectgarbage()
      collectgarbage()
    end
    swap(2)
    local _, before = core.alloc_stats()
    for version = 3, 12 do swap(version) end
    local _, after = core.alloc_stats()
    assert.are.equal(before, after)
  end)

  it("waits for a copy to be whole", function()
    store.publish(base, 1, 1)
    models:add_directory("m", base)
    store.save(directory .. "/two.onnx", 2)
    local bytes = process.slurp(directory .. "/two.onnx")
    assert(core.make_directories(base .. "/2"))
    polls(0.3)
    for size = 1, #bytes, math.ceil(#bytes / 8) do -- a slow copy
      process.write(base .. "/2/model.onnx", bytes:sub(1, size))
      polls(0.05)
      assert.are.equal("1", models:get("m").version)
    end
    process.write(base .. "/2/model.onnx", bytes)
    assert.is_truthy(serves("2", 2))
    assert.are.equal(0, models.counts.failed)
  end)

  it("tries half a copy again when the rest has come", function()
    store.publish(base, 1, 1)
    models:add_directory("m", base)
    store.save(directory .. "/two.onnx", 2)
    local bytes = process.slurp(directory .. "/two.onnx")
    core.make_directories(base .. "/2")
    process.write(base .. "/2/model.onnx", bytes:sub(1, 30)) -- a copy that stalls
    assert.is_truthy(poll_until(function() return models.counts.failed == 1 end))
    local entry = models:versions("m")[1]
    assert.are.same({ "2", "END", "DATA_LOSS" }, { entry.version, entry.state, entry.error_code })
    assert.truthy(entry.error_message:find(base .. "/2/model.onnx", 1, true))
    assert.are.equal("1", models:get("m").version)
    process.write(base .. "/2/model.onnx", bytes)
    assert.is_truthy(serves("2", 2))
    assert.are.equal("OK", models:versions("m")[1].error_code)
  end)

  it("keeps serving when the directory vanishes, cannot be listed, or is replaced by an empty one", function()
    store.publish(base, 1, 1)
    models:add_directory("m", base)
    polls(0.3)
    store.rename(base, directory .. "/away")
    polls(0.6)
    assert.are.equal(1, store.value(models:get("m")))
    process.write(base, "a file")
    polls(0.6)
    assert.are.equal(1, store.value(models:get("m")))
    os.remove(base)
    core.make_directories(base)
    polls(0.6)
    assert.are.equal(1, store.value(models:get("m")))
    store.remove(base)
    store.publish(base, 2, 2)
    assert.is_truthy(serves("2", 2))
    -- the versions alone are taken out of it: that is meant
    store.remove(base .. "/2")
    assert.is_truthy(poll_until(function() return not models:get("m") end))
  end)

  it("survives rapid changes and ends at the last of them", function()
    models:add_directory("m", base)
    for version = 1, 30 do
      store.publish(base, version, version)
      if version % 3 == 0 then store.remove(base .. "/" .. version - 1) end
      if version % 5 == 0 then store.rename(base .. "/" .. version, base .. "/gone" .. version) end
      models:poll()
    end
    store.publish(base, 30, 31)
    assert.is_truthy(serves("30", 31))
    assert.are.equal(0, models.counts.failed)
  end)

  it("finds models that appear below a directory of models", function()
    assert.are.equal(0, (models:add_root(directory)))
    core.make_directories(directory .. "/empty")
    process.write(directory .. "/file", "x")
    store.publish(base, 1, 5)
    assert.is_truthy(serves("1", 5))
    store.publish(directory .. "/other", 7, 6)
    assert.is_truthy(poll_until(function() return store.value(models:get("other")) == 6 end))
    assert.are.same({ "m", "other" }, models:names())
    store.remove(directory .. "/other")
    polls(0.6)
    assert.are.equal(6, store.value(models:get("other")))
  end)

  it("warms up with the recorded requests and refuses a version that fails them", function()
    local function record(version, text)
      core.make_directories(base .. "/" .. version .. "/assets.extra")
      process.write(base .. "/" .. version .. "/assets.extra/warmup.jsonl", text)
    end
    record(1, '{"instances":[[1]]}\n\n{"instances":[[1],[2]]}\n')
    store.save(base .. "/1/model.onnx", 1)
    assert(models:add_directory("m", base))
    assert.are.equal(2, models:get("m").report.requests)
    record(2, '{"instances":[[1]]}\n{"instances":[["a"]]}\n')
    store.save(base .. "/2/model.onnx", 2)
    assert.is_truthy(poll_until(function() return models.counts.failed == 1 end))
    local entry = models:versions("m")[1]
    assert.are.same({ "2", "END", "INVALID_ARGUMENT" }, { entry.version, entry.state, entry.error_code })
    assert.truthy(entry.error_message:find("warmup.jsonl', line 2: ", 1, true))
    assert.are.equal("1", models:get("m").version)
    record(2, ('{"instances":[[1]]}\n'):rep(1001))
    assert.is_truthy(poll_until(function() return models.counts.failed == 2 end))
    assert.truthy(models:versions("m")[1].error_message:find("more than 1000 requests", 1, true))
    record(2, "")
    assert.is_truthy(serves("2", 2))
    local cold = repository.new { warm_up = 0 }
    record(2, "no request")
    assert(cold:add_directory("m", base))
    assert.is_nil(cold:get("m").report.run)
  end)

  it("asks whoever prepares models before they answer", function()
    local asked = {}
    models = repository.new { prepare = function(servable, name, path)
      asked[#asked + 1] = name .. " " .. path
      if store.value { servable = servable } > 5 then return nil, "too large" end
      return true
    end }
    store.publish(base, 1, 1)
    assert(models:add_directory("m", base))
    store.publish(base, 2, 6)
    assert.is_truthy(poll_until(function() return models.counts.failed == 1 end))
    assert.are.same({ "m " .. base .. "/1", "m " .. base .. "/2" }, asked)
    assert.are.equal("too large", models:versions("m")[1].error_message)
    assert.are.equal("1", models:get("m").version)
  end)

  it("loads, reloads and unloads on request", function()
    models:add_root(directory)
    assert.are.same({ nil, "model" }, { models:load("m") })
    assert.are.same({ nil, "model" }, { models:load("../m") })
    store.publish(base, 1, 1)
    assert.is_true(models:load("m"))
    assert.are.equal(1, store.value(models:get("m")))
    local before = models:get("m")
    store.save(base .. "/1/model.onnx", 8)
    assert.is_true(models:load("m"))
    assert.are.equal(8, store.value(models:get("m")))
    assert.are.equal(1, store.value(before))
    assert.is_true(models:unload("m"))
    polls(0.5) -- stays so although its directory is there
    assert.are.same({ nil, "model" }, { models:get("m") })
    assert.are.same({ nil, "model" }, { models:unload("n") })
    assert.are.same({ nil, "version" }, { models:unload("m", 9) })
    process.write(base .. "/1/model.onnx", "rubbish")
    local ok, message, code = models:load("m")
    assert.are.same({ nil, "INVALID_ARGUMENT" }, { ok, code })
    assert.truthy(message:find("failed to load 'm', model 'm' version 1: ", 1, true))
    store.save(base .. "/1/model.onnx", 9)
    models.sleep = require("cqueues").sleep -- in the thread
    assert.is_true(models:load("m"))
    assert.are.equal(9, store.value(models:get("m")))
    process.write(base .. "/1/model.onnx", "rubbish")
    assert.is_nil((models:load("m")))
    assert.are.equal(9, store.value(models:get("m"))) -- the old one answers on
    models:add_model("own", {}, 1)
    assert.are.equal("FAILED_PRECONDITION", select(3, models:load("own")))
  end)

  it("reads its configuration again when the file changes, and keeps it when the file is bad", function()
    local config = directory .. "/models.config"
    store.publish(base, 1, 1)
    store.publish(base, 2, 2)
    local function write(policy)
      process.write(config, 'model_config_list { config { name: "m" base_path: "' .. base .. '" model_version_policy { ' .. policy .. " } } }")
    end
    write "specific { versions: 1 }"
    assert.are.same({}, models:add_config(config, 0.05))
    assert.are.equal(1, store.value(models:get("m")))
    write "specific { versions: 2 }"
    assert.is_truthy(serves("2", 2))
    write "newest {}"
    assert.is_truthy(poll_until(function() return table.concat(lines, "\n"):find("unknown field 'newest'", 1, true) end))
    assert.are.equal(2, store.value(models:get("m")))
    process.write(config, "model_config_list {}")
    assert.is_truthy(poll_until(function() return not models:get("m") end))
    write "all {}"
    assert.is_true(models:reload())
    assert.is_truthy(poll_until(function() return models:get("m", 1) and models:get("m", 2) end))
  end)
end)
