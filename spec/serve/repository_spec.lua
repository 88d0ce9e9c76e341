local repository = require "mlserve.serve.repository"

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
    models:aspire("m", models:scan("base/m"), true)
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

  it("loads the new version before the old one goes, and keeps the old one when the new one is bad", function()
    files["base/m"] = { "1" }
    models:add_directory("m", "base/m")
    local first = models:get("m")
    files["base/m"], broken["base/m/2/model.onnx"] = { "1", "2" }, "bad"
    assert.are.same({ "model 'm' version 2: bad" }, models:aspire("m", models:scan("base/m")))
    assert.are.equal(first, models:get("m"))
    assert.are.same({}, models:aspire("m", models:scan("base/m"))) -- not tried again by itself
    broken["base/m/2/model.onnx"] = nil
    assert.are.same({}, models:aspire("m", models:scan("base/m"), true))
    assert.are.equal("2", models:get("m").version)
    assert.are.same({ "END", nil }, { first.state, first.servable })
    assert.are.same({ "base/m/1/model.onnx", "base/m/2/model.onnx", "base/m/2/model.onnx" }, loads)
    models:aspire("m", {})
    assert.are.same({ nil, "model" }, { models:get("m") })
  end)
end)
