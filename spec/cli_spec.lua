-- The command line, through the real executable in a directory of its own: results, JSON shapes, exit codes, messages.
-- Numbers are checked against arithmetic done here (a linear model whose outputs can be written down, counts of a confusion
-- matrix), and every way to ask one model against the others.

local core = require "mlserve.core"
local process = require "spec.support.process"

local quote, slurp, write = process.quote, process.slurp, process.write

local here = assert(io.popen("pwd")):read("*l")
local data = here .. "/examples/data/"
local directory

local function absolute(paths)
  return (paths:gsub("[^;]+", function(path) return path:find("^[/?]") and path or here .. "/" .. path end))
end

local environment = "LUA_PATH=" .. quote(absolute(package.path)) .. " LUA_CPATH=" .. quote(absolute(package.cpath))

-- Runs mlserve; words are arguments, `input` standard input. Returns exit code, standard output, standard error.
local function mlserve(words, input)
  local parts = {}
  for i, word in ipairs(words) do parts[i] = quote(word) end
  write(directory .. "/in", input or "")
  os.execute(string.format("cd %s && env %s %s %s %s <in >out 2>err; echo $? >code", quote(directory), environment, process.lua,
    quote(here .. "/bin/mlserve"), table.concat(parts, " ")))
  return tonumber((slurp(directory .. "/code"))), slurp(directory .. "/out"), slurp(directory .. "/err")
end

local function succeeds(words, input)
  local code, out, err = mlserve(words, input)
  assert.equal(0, code, err)
  return out, err
end

local function json(words, input)
  local out = succeeds(words, input)
  assert.equal(1, select(2, out:gsub("\n", "\n")), "one line of JSON expected")
  return core.json_decode(out)
end

-- It must fail with this exit code, say all these texts on standard error, and nothing about our own files.
local function fails(code, words, texts, input)
  local got, _, err = mlserve(words, input)
  assert.equal(code, got, err)
  for _, text in ipairs(texts) do assert.is_truthy(err:find(text, 1, true), "'" .. text .. "' is not in: " .. err) end
  assert.is_falsy(err:find("%.lua:%d"), err)
  assert.is_falsy(err:find("traceback", 1, true), err)
end

local function lines(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do list[#list + 1] = line end
  return list
end

-- y = 2 a - 3 b + 1, and z = sigmoid(y) as a model of two classes
local function linear_model(path, sigmoid)
  local graph = core.graph("linear")
  local x = graph:input("features", "float32", { -1, 2 })
  local w = graph:initializer("w", core.tensor { { 2 }, { -3 } }, true)
  local b = graph:initializer("b", core.tensor { 1 }, true)
  local y = graph:node("Gemm", { x, w, b })
  if sigmoid then y = graph:node("Sigmoid", { y }) end
  graph:set_dim_name(x, 0, "batch")
  graph:output(y, "y")
  graph:set_property("mlserve.features", '["a","b"]')
  if sigmoid then graph:set_property("mlserve.classes", '["no","yes"]') end
  assert(core.onnx_save(graph, path))
end

describe("mlserve", function()
  setup(function()
    directory = process.directory()
    succeeds { "train", "--data", data .. "breast_cancer.csv", "--label", "diagnosis", "--epochs", "5", "-q", "-o", "cancer" }
    linear_model(directory .. "/linear.onnx")
    linear_model(directory .. "/yesno.onnx", true)
  end)
  teardown(function() os.execute("rm -rf " .. quote(directory)) end)

  it("says what it is", function()
    assert.is_truthy(succeeds({ "--version" }):find("^mlserve " .. core._VERSION:gsub("%.", "%%.") .. " %("))
    assert.is_truthy(succeeds({ "--help" }):find("Verbs:", 1, true))
    fails(2, {}, { "Usage: mlserve VERB" })
  end)

  it("finds its checkout through a symbolic link", function()
    local command = string.format("cd %s && ln -s %s link && "
      .. "env -u LUA_PATH -u LUA_PATH_5_4 LUA_CPATH=%s %s ./link --version >out 2>err", quote(directory),
      quote(here .. "/bin/mlserve"), quote(absolute(package.cpath)), process.lua)
    local status = os.execute(command)
    assert.is_true(status == true or status == 0, slurp(directory .. "/err"))
    assert.is_truthy(slurp(directory .. "/out"):find("^mlserve "))
  end)

  it("explains every verb with an example", function()
    for _, verb in ipairs { "train", "optimize", "evaluate", "predict", "inspect", "bench", "serve" } do
      local text = succeeds { verb, "--help" }
      assert.is_truthy(text:find("Usage: mlserve " .. verb, 1, true))
      assert.is_truthy(text:find("Examples?:\n  [^\n]*mlserve " .. verb), verb)
      assert.equal(text, succeeds { "help", verb })
    end
  end)

  it("guesses what a mistyped verb was meant to be", function()
    fails(2, { "trian" }, { "unknown verb 'trian'", "did you mean 'train'", "evaluate" })
    fails(2, { "--frob" }, { "unknown option '--frob'" })
    fails(2, { "inspect", "cancer", "--frob" }, { "mlserve inspect", "unknown option '--frob'", "--help" })
  end)

  describe("train", function()
    it("reports as JSON", function()
      local report = json { "train", "--data", data .. "breast_cancer.csv", "--label", "diagnosis", "--epochs", "3", "--json",
        "-o", "json" }
      assert.equal("json/1/model.onnx", report.model)
      assert.equal("binary", report.task)
      assert.same({ "benign", "malignant" }, report.classes)
      assert.same({ train = 455, test = 114 }, report.rows)
      assert.equal(3, report.epochs)
      assert.equal("epochs", report.stop_reason)
      assert.equal(30 * 128 + 128 + 128 * 64 + 64 + 64 + 1, report.parameters)
      assert.equal(3, #report.history.val_loss)
      assert.is_true(report.metrics.accuracy > 0.9)
    end)

    it("fills in, encodes and normalises inside the model", function()
      local out
      succeeds { "train", "--data", data .. "penguins.csv", "--label", "species", "--layers", "16", "--epochs", "30", "-q",
        "-o", "p" }
      -- columns in another order, one more column, no sex, no mass, an island nobody knows
      out = lines(succeeds({ "predict", "p" }, "note,island,sex,body_mass_g,flipper_length_mm,beak_depth_mm,beak_length_mm\n"
        .. "hello,Torgersen,MALE,3750,181,18.7,39.1\nx,Atlantis,,,217,14.5,47.3\n"))
      assert.equal("prediction,Adelie,Chinstrap,Gentoo", out[1])
      assert.is_truthy(out[2]:find("^Adelie,"))
      assert.is_truthy(out[3]:find("^Gentoo,"))
    end)

    it("predicts numbers", function()
      local rows = { "a,b,y" }
      local report
      for a = 1, 20 do
        for b = 1, 10 do rows[#rows + 1] = string.format("%d,%d,%d", a, b, 300 * a - 200 * b + 1000) end
      end
      write(directory .. "/plane.csv", table.concat(rows, "\n") .. "\n")
      report = json { "train", "--data", "plane.csv", "--label", "y", "--task", "regression", "--layers", "none",
        "--epochs", "200", "--learning-rate", "0.05", "--json", "-o", "plane" }
      assert.equal("regression", report.task)
      assert.is_true(report.metrics.r2 > 0.999, tostring(report.metrics.r2)) -- the plane is in the family of models
    end)

    it("takes every option of training, and the seed decides", function()
      local function loss(seed)
        return json({ "train", "--data", data .. "breast_cancer.csv", "--label", "diagnosis", "--layers", "8",
          "--activation", "tanh", "--epochs", "4", "--batch-size", "64", "--optimizer", "sgd", "--learning-rate", "0.05",
          "--momentum", "0.9", "--l1", "1e-4", "--l2", "1e-3", "--dropout", "0.2", "--validation-split", "0.2",
          "--test-split", "0.3", "--patience", "2", "--threads", "1", "--ignore", "mean_radius,mean_area", "--seed", seed,
          "--json", "-o", "options" }).history.loss
      end
      local first = loss "5"
      assert.same(first, loss "5")
      assert.are_not.same(first, loss "6")
    end)

    it("goes on from a checkpoint to the weights of an uninterrupted run", function()
      local function run(epochs, output, ...)
        return json { "train", "--data", data .. "breast_cancer.csv", "--label", "diagnosis", "--epochs", epochs, "--json",
          "-o", output, ... }
      end
      local whole = run("6", "whole.onnx")
      local resumed
      run("3", "half.onnx", "--checkpoint", "run.ckpt")
      resumed = run("6", "resumed.onnx", "--checkpoint", "run.ckpt", "--resume")
      assert.same(whole.history.loss, resumed.history.loss)
      assert.same(whole.metrics, resumed.metrics)
      local function weights(path)
        local graph = assert(core.onnx_load(directory .. "/" .. path))
        return graph:get_initializer("dense/kernel"):tobytes()
      end
      assert.equal(weights "whole.onnx", weights "resumed.onnx")
    end)

    it("stops when interrupted, and saves what it has", function()
      local words = { "cd", quote(directory), "&& exec env", environment, process.lua, quote(here .. "/bin/mlserve"), "train",
        "--data", quote(data .. "breast_cancer.csv"), "--label diagnosis --epochs 1000000 --patience 1000000",
        "--checkpoint int.ckpt -o interrupted" }
      local program = process.spawn("sh -c " .. quote(table.concat(words, " ")))
      program:expect "epoch 20/"
      program:signal "INT"
      assert.equal(0, program:code(20), program:log())
      assert.is_truthy(program:log():find("interrupted in epoch %d+.*checkpoint saved to int.ckpt"))
      assert.is_truthy(program:log():find("saved     interrupted/1/model.onnx", 1, true))
      program:stop()
      assert.is_truthy(slurp(directory .. "/int.ckpt"))
    end)

    it("does not save a network that diverged", function()
      fails(1, { "train", "--data", data .. "breast_cancer.csv", "--label", "mean_area", "--ignore", "diagnosis",
        "--optimizer", "sgd", "--learning-rate", "1e20", "-q", "-o", "diverged" },
        { "learning_rate", "diverged", "nothing was saved" })
      assert.is_nil(slurp(directory .. "/diverged/1/model.onnx"))
    end)

    it("runs a script and saves the model it returns", function()
      write(directory .. "/script.lua", [[
        local nn = require("mlserve").nn
        local model = nn.Sequential { nn.Dense { 1 } }
        model:compile { input_shape = { 3 } }
        print("argument " .. tostring(arg[1]))
        return model
      ]])
      assert.is_truthy(succeeds({ "train", "script.lua", "-o", "scripted" })
        :find("argument scripted\nsaved     scripted/1/model.onnx", 1, true))
      write(directory .. "/broken.lua", "return 1 +")
      assert.equal(1, (mlserve { "train", "broken.lua" }))
      assert.is_truthy(slurp(directory .. "/err"):find("broken.lua:1:", 1, true)) -- the user's file: its line is wanted
      fails(1, { "train", "nowhere.lua" }, { "nowhere.lua" })
      fails(2, { "train", "script.lua" }, { "-o" })
    end)

    it("adds versions and does not overwrite", function()
      local function train(...)
        return { "train", "--data", data .. "breast_cancer.csv", "--label", "diagnosis", "--epochs", "1", "-q", "-o", ... }
      end
      succeeds(train "versions")
      assert.is_truthy(succeeds(train "versions"):find("saved     versions/2/model.onnx", 1, true))
      succeeds(train "versions/9")
      assert.is_truthy(succeeds(train "versions"):find("saved     versions/10/model.onnx", 1, true))
      fails(1, train "versions/9", { "versions/9/model.onnx exists", "--force" })
      succeeds(train("versions/9", "--force"))
      fails(1, train "linear.onnx", { "linear.onnx exists" })
    end)

    it("refuses what it cannot use, and says where", function()
      local function train(file, ...) return { "train", "--data", file, "--label", "kind", "-o", "q", ... } end
      write(directory .. "/one.csv", "a,b,kind\n1,2,x\n3,4,x\n")
      write(directory .. "/ragged.csv", "a,b,kind\n1,2,x\n3,4,y,9\n")
      fails(2, { "train" }, { "--data FILE --label COLUMN" })
      fails(2, { "train", "--data", "one.csv", "-o", "q" }, { "--label" })
      fails(2, { "train", "--data", "one.csv", "--label", "kind" }, { "-o" })
      fails(2, train("one.csv", "--epochs", "0"), { "--epochs", "at least 1", "'0'" })
      fails(2, train("one.csv", "--layers", "3,x"), { "--layers", "128,64", "'3,x'" })
      fails(2, train("one.csv", "--optimizer", "newton"), { "--optimizer", "rmsprop", "'newton'" })
      fails(2, train("one.csv", "--momentum", "0.9"), { "--momentum", "adam" })
      fails(2, train("one.csv", "--patience", "3", "--validation-split", "0"), { "--patience", "--validation-split" })
      fails(2, train("one.csv", "--resume"), { "--checkpoint" })
      fails(1, train "nowhere.csv", { "nowhere.csv", "No such file" })
      fails(1, train "one.csv", { "one.csv", "one class, 'x'" })
      fails(1, train "ragged.csv", { "ragged.csv:3", "4 cells", "3" })
      fails(1, { "train", "--data", "one.csv", "--label", "sort", "-o", "q" }, { "no column named 'sort'", "a, b, kind" })
      fails(1, train("one.csv", "--task", "regression"), { "kind", "numeric" })
      fails(1, { "train", "--data", "one.csv", "--label", "kind", "-o", "one.csv/model" }, { "one.csv" })
    end)
  end)

  describe("evaluate", function()
    it("counts what predict predicts", function()
      local report = json { "evaluate", "cancer", "--data", data .. "breast_cancer.csv", "--label", "diagnosis", "--json" }
      local predicted = lines(succeeds { "predict", "cancer", "--data", data .. "breast_cancer.csv" })
      local counts, right, n = { benign = { benign = 0, malignant = 0 }, malignant = { benign = 0, malignant = 0 } }, 0, 0
      for line in io.lines(data .. "breast_cancer.csv") do
        local truth = line:match("([^,]+)$")
        n = n + 1
        if n > 1 then
          local guess = predicted[n]:match("^[^,]+")
          counts[truth][guess] = counts[truth][guess] + 1
          right = right + (truth == guess and 1 or 0)
        end
      end
      assert.equal(569, report.rows)
      assert.equal("cancer/1/model.onnx", report.model)
      assert.is_true(math.abs(report.metrics.accuracy - right / 569) < 1e-12)
      assert.same({ { counts.benign.benign, counts.benign.malignant }, { counts.malignant.benign, counts.malignant.malignant } },
        report.confusion)
      for _, name in ipairs { "loss", "f1", "auc" } do assert.is_number(report.metrics[name], name) end
      assert.same({ "benign", "malignant" }, { report.per_class[1].class, report.per_class[2].class })
    end)

    it("computes the loss and the error of a model that can be written down", function()
      write(directory .. "/xy.csv", "b,y,a\n1,1,2\n0,5,1\n2,-4,1\n") -- y is off by 1, 2 and -1: squares 1, 4, 1
      local report = json { "evaluate", "linear.onnx", "--data", "xy.csv", "--label", "y", "--json" }
      assert.is_true(math.abs(report.metrics.mae - 4 / 3) < 1e-6)
      assert.is_true(math.abs(report.metrics.loss - 2) < 1e-6)
    end)

    it("prints a table", function()
      local out = succeeds { "evaluate", "cancer/1", "--data", data .. "breast_cancer.csv", "--label", "diagnosis" }
      for _, text in ipairs { "569 rows", "accuracy", "precision", "true \\ predicted" } do
        assert.is_truthy(out:find(text, 1, true), text)
      end
    end)

    it("refuses what it cannot use, and says where", function()
      write(directory .. "/words.csv", "a,b,y\n1,2,3\n4,five,6\n")
      write(directory .. "/other.csv", "a,b,kind\n1,2,maybe\n3,4,no\n")
      write(directory .. "/junk.onnx", "this is no model\n")
      os.execute("mkdir -p " .. quote(directory .. "/empty"))
      fails(2, { "evaluate", "cancer", "--data", "xy.csv" }, { "--label" })
      fails(1, { "evaluate", "nowhere", "--data", "xy.csv", "--label", "y" }, { "no model at nowhere" })
      fails(1, { "evaluate", "empty", "--data", "xy.csv", "--label", "y" }, { "empty", "model.onnx" })
      fails(1, { "evaluate", "junk.onnx", "--data", "xy.csv", "--label", "y" }, { "junk.onnx" })
      fails(1, { "evaluate", "linear.onnx", "--data", "words.csv", "--label", "y" }, { "words.csv:3", "column 2 (b)", "five" })
      fails(1, { "evaluate", "linear.onnx", "--data", "xy.csv", "--label", "z" }, { "no column named 'z'" })
      fails(1, { "evaluate", "cancer", "--data", "xy.csv", "--label", "y" }, { "mean_radius" })
      fails(1, { "evaluate", "yesno.onnx", "--data", "other.csv", "--label", "kind" }, { "maybe" })
    end)
  end)

  describe("predict", function()
    it("reads CSV, JSON Lines, JSON and npy to the same numbers", function()
      write(directory .. "/x.csv", "a,b\n2,1\n1,0\n0.5,-0.25\n") -- 2, 3, 2.75
      write(directory .. "/x.jsonl", '{"b": 1, "a": 2}\n{"a": 1, "b": 0}\n{"a": 0.5, "b": -0.25}\n')
      write(directory .. "/x.json", '{"instances": [[2, 1], [1, 0], [0.5, -0.25]]}')
      assert(core.npy_save(directory .. "/x.npy", core.tensor { { 2, 1 }, { 1, 0 }, { 0.5, -0.25 } }))
      local expected = "prediction\n2\n3\n2.75\n"
      assert.equal(expected, succeeds { "predict", "linear.onnx", "--data", "x.csv" })
      assert.equal(expected, succeeds { "predict", "linear.onnx", "--data", "x.jsonl" })
      assert.equal(expected, succeeds { "predict", "linear.onnx", "--data", "x.npy" })
      assert.equal(expected, succeeds({ "predict", "linear.onnx" }, slurp(directory .. "/x.csv")))
      assert.equal(expected, succeeds({ "predict", "linear.onnx", "--data", "-" }, slurp(directory .. "/x.jsonl")))
      assert.equal(expected, succeeds({ "predict", "linear.onnx", "--delimiter", ";" }, "a;b\n2;1\n1;0\n0.5;-0.25\n"))
      assert.equal(expected, succeeds({ "predict", "linear.onnx", "--no-header" }, "2,1\n1,0\n0.5,-0.25\n"))
      local answer = core.json_decode((succeeds { "predict", "linear.onnx", "--data", "x.json" }))
      assert.same({ { 2 }, { 3 }, { 2.75 } }, answer.predictions)
      assert.same(answer, core.json_decode((succeeds({ "predict", "linear.onnx" }, "[[2, 1], [1, 0], [0.5, -0.25]]"))))
      assert.same({ predictions = { 2, 3, 2.75 } }, json { "predict", "linear.onnx", "--data", "x.csv", "--json" })
    end)

    it("names classes", function()
      local input = "a,b\n2,1\n0,1\n"
      local p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))
      local out = lines(succeeds({ "predict", "yesno.onnx" }, input))
      assert.equal("prediction,no,yes", out[1])
      for i, expected in ipairs { { "yes", p }, { "no", q } } do
        local class, no, yes = out[i + 1]:match("^(%a+),([^,]+),([^,]+)$")
        assert.equal(expected[1], class)
        assert.is_true(math.abs(tonumber(yes) - expected[2]) < 1e-6)
        assert.is_true(math.abs(tonumber(no) + tonumber(yes) - 1) < 1e-6)
      end
      assert.is_truthy(succeeds({ "predict", "yesno.onnx", "--threshold", "0.9" }, input):find("\nno,.*\nno,"))
      local report = json({ "predict", "yesno.onnx", "--json" }, input)
      assert.equal("yes", report.predictions[1].class)
      assert.is_true(math.abs(report.predictions[2].scores.yes - q) < 1e-6)
    end)

    it("writes files", function()
      succeeds({ "predict", "linear.onnx", "-o", "out.csv" }, "a,b\n2,1\n")
      assert.equal("prediction\n2\n", slurp(directory .. "/out.csv"))
      succeeds({ "predict", "linear.onnx", "-o", "out.npy" }, "a,b\n2,1\n")
      assert.same({ { 2 } }, assert(core.npy_load(directory .. "/out.npy")):totable())
    end)

    it("refuses what it cannot use, and says where", function()
      write(directory .. "/short.json", '{"instances": [[1]]}')
      write(directory .. "/cut.json", '{"instances": [[1')
      fails(1, { "predict", "linear.onnx", "--data", "nowhere.csv" }, { "nowhere.csv" })
      fails(1, { "predict", "linear.onnx", "--data", "nowhere.json" }, { "nowhere.json" })
      fails(1, { "predict", "linear.onnx", "--data", "nowhere.npy" }, { "nowhere.npy" })
      fails(1, { "predict", "linear.onnx", "--data", "short.json" }, { "short.json", "features", "(-1, 2)", "(1, 1)" })
      fails(1, { "predict", "linear.onnx", "--data", "cut.json" }, { "cut.json", "line 1" })
      fails(1, { "predict", "linear.onnx" }, { "standard input:3", "column 2 (b)", "five" }, "a,b\n1,2\n4,five\n")
      fails(1, { "predict", "linear.onnx" }, { "standard input", "'b'", "a, c" }, "a,c\n1,2\n")
      fails(1, { "predict", "linear.onnx", "--data", "x.csv", "-o", "empty" }, { "cannot write empty" })
      fails(2, { "predict", "linear.onnx", "--format", "xml" }, { "--format", "jsonl" })
    end)
  end)

  describe("optimize", function()
    it("compares before and after on the same rows", function()
      local words = { "optimize", "cancer/1", "--data", data .. "breast_cancer.csv", "--label", "diagnosis", "--l2", "1e-4",
        "--dropout", "0.3", "--patience", "3", "--epochs", "12", "--json", "-o", "better" }
      local report = json(words)
      assert.equal("better/1/model.onnx", report.model)
      assert.same({ train = 455, test = 114 }, report.rows)
      for _, name in ipairs { "loss", "accuracy", "f1", "auc" } do
        assert.is_number(report.before[name], name)
        assert.is_number(report.metrics[name], name)
      end
      assert.is_true(report.best_epoch <= report.epochs)
      -- "before" is what train measured on the rows it held back: same seed, same split
      local properties = assert(core.onnx_load(directory .. "/cancer/1/model.onnx")):properties()
      local trained = core.json_decode(properties["mlserve.evaluation"])
      assert.is_true(math.abs(trained.metrics.loss - report.before.loss) < 1e-6)
    end)

    it("refuses what it cannot use", function()
      local function optimize(...)
        return { "optimize", "cancer", "--data", data .. "breast_cancer.csv", "--label", "diagnosis", ... }
      end
      fails(2, optimize(), { "-o" })
      fails(2, optimize("-o", "q", "--dropout", "1"), { "--dropout", "below 1" })
      fails(1, optimize("-o", "q", "--train-only", "nothing"), { "no parameter is left" })
      fails(1, { "optimize", "cancer", "--data", data .. "penguins.csv", "--label", "species", "-o", "q" },
        { "penguins.csv", "mean_radius" })
    end)
  end)

  describe("inspect", function()
    it("tells what the model is", function()
      local report = json { "inspect", "cancer", "--json", "--profile", "--batch", "4" }
      assert.equal("cancer/1/model.onnx", report.model)
      assert.same({ { name = "features", dtype = "float32", shape = { -1, 30 } } }, report.inputs)
      assert.same({ { name = "scores", dtype = "float32", shape = { -1, 1 } } }, report.outputs)
      assert.same({ Gemm = 3, Relu = 2, Sigmoid = 1, Sub = 1, Div = 1 }, report.operators)
      assert.equal(30 * 128 + 128 + 128 * 64 + 64 + 64 + 1, report.parameters.trainable)
      assert.same({ "benign", "malignant" }, report.metadata["mlserve.classes"])
      assert.equal(30, #report.metadata["mlserve.features"])
      assert.equal(4, report.profile.batch)
      for _, step in ipairs(report.profile.steps) do
        assert.is_string(step.op)
        assert.is_number(step.us)
      end
    end)

    it("prints tables", function()
      local out = succeeds { "inspect", "cancer", "--profile" }
      for _, text in ipairs { "dense_1", "Operators: 3 Gemm", "12,289 trainable", "mlserve.classes", "GFLOP/s" } do
        assert.is_truthy(out:find(text, 1, true), text)
      end
    end)

    it("needs a model", function()
      fails(2, { "inspect" }, { "'model'", "--help" })
      fails(1, { "inspect", "nowhere.onnx" }, { "nowhere.onnx" })
    end)
  end)

  describe("bench", function()
    it("measures each batch size", function()
      local report = json { "bench", "cancer", "--batch", "1,16", "--threads", "1", "--seconds", "0.05", "--json" }
      assert.equal(2, #report.results)
      for i, batch in ipairs { 1, 16 } do
        local result = report.results[i]
        assert.equal("cancer/1/model.onnx", result.model)
        assert.equal(batch, result.batch)
        assert.equal(1, result.threads)
        assert.is_true(result.min_us > 0 and result.min_us <= result.median_us and result.median_us <= result.p99_us)
        assert.is_true(result.gflops > 0)
      end
      assert.is_truthy(succeeds({ "bench", "cancer", "--batch", "1", "--seconds", "0.05" }):find("median µs", 1, true))
    end)

    it("refuses what it cannot use", function()
      fails(2, { "bench", "cancer", "--batch", "0" }, { "--batch", "'0'" })
      fails(2, { "bench", "cancer", "--batch", "none" }, { "--batch" })
    end)
  end)

  describe("proto", function()
    it("lists, prints and writes the files", function()
      local listed = lines((succeeds { "proto" }))
      assert.is_true(#listed > 25)
      local text = succeeds { "proto", "grpc_service.proto" }
      assert.equal(slurp(here .. "/lua/mlserve/proto/grpc_service.proto"), text)
      assert.equal(text, (succeeds { "proto", "inference.GRPCInferenceService" }))
      assert.equal(text, (succeeds { "proto", "inference.ModelInferRequest" }))
      succeeds { "proto", "-o", "protos/new" }
      for _, name in ipairs(listed) do
        assert.equal(slurp(here .. "/lua/mlserve/proto/" .. name), slurp(directory .. "/protos/new/" .. name))
      end
    end)

    it("refuses what it does not know", function()
      fails(1, { "proto", "no.Such" }, { "'no.Such'" })
      fails(2, { "proto", "-o", "protos", "grpc_service.proto" }, { "no names expected" })
      write(directory .. "/a_file", "x")
      fails(1, { "proto", "-o", "a_file/x" }, { "a_file" })
    end)
  end)

  describe("serve", function()
    local server

    local function spawn(...)
      local words = { "cd", quote(directory), "&& exec env", environment, process.lua, quote(here .. "/bin/mlserve"), "serve" }
      for i = 1, select("#", ...) do words[#words + 1] = quote((select(i, ...))) end
      return process.spawn("sh -c " .. quote(table.concat(words, " ")))
    end

    after_each(function()
      if server then server:stop() end
      server = nil
    end)

    it("answers the curl line it prints, as predict does, and leaves with 0 on SIGTERM", function()
      server = spawn("--model", "cancer=cancer", "--rest-port", "0")
      local address = server:expect "listening on (http://127%.0%.0%.1:%d+)\n"
      local curl = server:expect "model cancer version 1: (curl [^\n]+)\n"
      local pipe = assert(io.popen(curl:gsub("^curl", "curl -sS") .. " 2>&1"))
      local answer = pipe:read("*a")
      pipe:close()
      local zeros = "[[" .. ("0,"):rep(29) .. "0]]"
      assert.same(core.json_decode((succeeds({ "predict", "cancer" }, zeros))), core.json_decode(answer))
      pipe = assert(io.popen("curl -sS " .. address .. "/v1/models/cancer"))
      assert.equal("AVAILABLE", core.json_decode(pipe:read("*a")).model_version_status[1].state)
      pipe:close()
      server:signal "TERM"
      assert.equal(0, server:code(5))
    end)

    it("serves the good ones beside a bad one", function()
      os.execute("mkdir -p " .. quote(directory .. "/bad/1") .. " && cp " .. quote(directory .. "/junk.onnx") .. " "
        .. quote(directory .. "/bad/1/model.onnx"))
      server = spawn("--model", "bad=bad", "--model", "cancer=cancer", "--rest-port", "0")
      server:expect "model cancer version 1"
      assert.is_truthy(server:log():find("bad", 1, true))
      server:signal "INT"
      assert.equal(0, server:code(5))
    end)

    it("refuses what it cannot serve", function()
      fails(2, { "serve" }, { "--model" })
      fails(2, { "serve", "--model", "cancer" }, { "--model", "NAME=BASEDIR", "'cancer'" })
      fails(2, { "serve", "--model", "m=cancer", "--rest-port", "70000" }, { "--rest-port", "65535" })
      fails(2, { "serve", "--model", "m=cancer", "--model", "m=cancer" }, { "'m'" })
      fails(1, { "serve", "--model", "m=nowhere" }, { "'m'", "nowhere" })
      fails(1, { "serve", "--model", "m=empty" }, { "'m'", "empty" })
      fails(1, { "serve", "--model", "m/n=cancer" }, { "m/n" })
      fails(1, { "serve", "--model", "m=cancer", "--host", "256.1.1.1", "--rest-port", "0" }, { "cannot listen" })
    end)
  end)
end)
