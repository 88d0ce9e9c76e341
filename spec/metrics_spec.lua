-- Metrics against scikit-learn's numbers (spec/golden/metrics.lua, made by make_metrics.py), and their names, notes and errors.

local core = require "mlserve.core"
local metrics = require "mlserve.metrics"

local here = debug.getinfo(1, "S").source:match("^@(.*)metrics_spec%.lua$")
local cases = dofile(here .. "golden/metrics.lua")

local function close(expected, got)
  if expected ~= expected then return got ~= got end
  return math.abs(got - expected) <= 1e-6 * math.max(1, math.abs(expected))
end

local function fails(words, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_truthy(tostring(message):find(words, 1, true), tostring(message))
  assert.is_falsy(tostring(message):find("mlserve[/\\]%a+%.lua:%d"), "not the caller's position: " .. tostring(message))
end

describe("metrics equal scikit-learn's:", function()
  for _, case in ipairs(cases) do
    it(case.task .. ", " .. case.name, function()
      local y_pred = core.tensor(case.y_pred, case.dtype)
      local y_true = core.tensor(case.y_true, case.task == "regression" and case.dtype or "int64")
      for key, expected in pairs(case.expected) do
        local name, option = key:match("^([^:]+):(.*)$")
        local options = { task = key ~= "mse" and case.task or nil }
        local value
        if name == "top_k_accuracy" then
          options.k = tonumber(option)
        else
          options.average = option
        end
        value = metrics[name or key](y_true, y_pred, options)
        assert(close(expected, value), ("%s: expected %.9g, got %.9g"):format(key, expected, value))
      end
      if case.confusion then
        assert.same(case.confusion, metrics.confusion_matrix(y_true, y_pred, { task = case.task }))
      end
    end)
  end

  it("the report holds the same numbers", function()
    for _, case in ipairs(cases) do
      local report = assert(metrics.report(case.y_true, core.tensor(case.y_pred, case.dtype), case.task))
      local expected = case.expected
      assert.equal(case.task, report.task)
      assert.equal(#case.y_true, report.rows)
      for _, name in ipairs { "accuracy", "matthews_corrcoef", "log_loss", "brier_score", "r2", "mape", "mae" } do
        if expected[name] then assert(close(expected[name], report.metrics[name]), case.name .. ": " .. name) end
      end
      local auc = expected.roc_auc or expected["roc_auc:macro"]
      if auc then assert(close(auc, report.metrics.auc), case.name .. ": auc") end
      if case.confusion then
        assert.same(case.confusion, report.confusion)
        assert(close(expected["precision:macro"], report.averages.macro.precision))
        assert(close(expected["recall:weighted"], report.averages.weighted.recall))
        assert(close(expected["f1:micro"], report.averages.micro.f1))
      end
      assert.is_string(tostring(report))
    end
  end)
end)

describe("metrics", function()
  it("take labels and predictions in any form", function()
    local probabilities = { { 0.9, 0.1 }, { 0.4, 0.6 }, { 0.7, 0.3 } }
    for _, y_true in ipairs {
      { 0, 1, 1 }, { { 0 }, { 1 }, { 1 } }, { { 1, 0 }, { 0, 1 }, { 0, 1 } }, core.tensor({ 0, 1, 1 }, "int64"),
      core.tensor({ 0, 1, 1 }, "uint8"), core.tensor({ false, true, true }, "bool"),
    } do
      assert(close(2 / 3, metrics.accuracy(y_true, probabilities)))
      assert.equal(1, metrics.auc(y_true, probabilities))
    end
    assert(close(2 / 3, metrics.accuracy({ 0, 1, 1 }, { 0.1, 0.6, 0.3 })))
    assert.equal(0.75, metrics.accuracy({ 3, 1, 0, 2 }, { 3, 1, 0, 0 }))
  end)

  it("know Keras's names", function()
    local y, p = { 0, 2, 1 }, { { 0.6, 0.3, 0.1 }, { 0.2, 0.5, 0.3 }, { 0.1, 0.8, 0.1 } }
    assert(close(2 / 3, metrics.sparse_categorical_accuracy(y, p)))
    assert.equal(1, metrics.top_k_categorical_accuracy(y, p, { k = 2 }))
    assert.equal(metrics.log_loss(y, p), metrics.categorical_crossentropy(y, p))
    assert.equal(1, metrics.binary_accuracy({ 0, 1 }, { 0.2, 0.9 }))
    assert.is_false(metrics.larger_is_better("val_loss"))
    assert.is_true(metrics.larger_is_better("val_auc"))
    assert.is_false(metrics.larger_is_better("rmse"))
  end)

  it("turn specifications into functions", function()
    local y, p = { 0, 2, 1 }, { { 0.6, 0.3, 0.1 }, { 0.2, 0.5, 0.3 }, { 0.1, 0.8, 0.1 } }
    local micro = metrics.get { "precision", average = "micro" }
    assert.equal("precision", micro.name)
    assert(close(2 / 3, micro.compute(y, p)))
    assert.equal("auc", metrics.get("auc").name)
    assert.equal(micro, metrics.get(micro))
    assert.equal(7, metrics.get(function() return 7 end).compute(y, p))
    fails("unknown metric 'acuracy'; the metrics are accuracy,", metrics.get, "acuracy")
    fails("got number", metrics.get, 3)
  end)

  it("say why a value is undefined", function()
    local value, note = metrics.auc({ 1, 1 }, { 0.2, 0.9 })
    assert.is_true(value ~= value)
    assert.is_truthy(note:find("only class 1 occurs", 1, true))
    value, note = metrics.precision({ 0, 1 }, { 0.2, 0.1 })
    assert.equal(0, value)
    assert.is_truthy(note:find("no row is predicted positive", 1, true))
    local report = metrics.report({ 1, 1 }, { 0.2, 0.9 }, "binary")
    assert.is_truthy(report.notes.auc:find("only class 1 occurs", 1, true))
  end)

  it("name the row that is wrong", function()
    fails("y_pred: row 2 holds NaN", metrics.accuracy, { 0, 1 }, { 0.5, 0 / 0 })
    fails("y_true has 2 rows, y_pred has 1", metrics.mse, { 0, 1 }, { 1 })
    fails("empty", metrics.mse, core.zeros({ 0 }), core.zeros({ 0 }))
    fails("row 2 is class 5", metrics.accuracy, { 0, 5 }, { { 0.5, 0.2, 0.3 }, { 0.5, 0.2, 0.3 } })
    fails("row 1 of the predictions holds 1.5", metrics.log_loss, { 1 }, { 1.5 }, { task = "binary" })
    fails("labels and predictions expected", metrics.f1, { 1 })
    fails("unknown metric option 'treshold'", metrics.f1, { 1 }, { 1 }, { treshold = 1 })
    fails('average must be', metrics.f1, { 1 }, { 1 }, { average = "mean" })
    fails("needs two classes, there are 3", metrics.f1, { 2, 0 }, { 2, 0 }, { average = "binary" })
  end)

  it("report classes as text", function()
    local text = tostring(metrics.classification_report({ 0, 1, 2, 2 }, { 0, 1, 2, 1 }, { classes = { "cat", "dog", "owl" } }))
    assert.is_truthy(text:find("precision%s+recall%s+f1%s+support"))
    assert.is_truthy(text:find("owl%s+1.0000%s+0.5000%s+0.6667%s+2"))
    assert.is_truthy(text:find("weighted average%s+0.8750%s+0.7500%s+0.7500%s+4"))
    text = tostring(metrics.report({ 0, 1, 2, 2 }, { 0, 1, 2, 1 }, "categorical", { classes = { "cat", "dog", "owl" } }))
    assert.is_truthy(text:find("accuracy%s+0.7500"))
    assert.is_truthy(text:find("true \\ predicted%s+cat%s+dog%s+owl"))
  end)
end)
