-- Classical models (ai.onnx.ml), recurrent layers and text operators against ONNX Runtime's results: every case of spec/golden/ml and
-- spec/golden/recurrent at each optimisation level, labels exactly and numbers to 1e-5; then files that lie about their trees.

local core = require "mlserve.core"

local here = debug.getinfo(1, "S").source:match("^@(.*)ml_spec%.lua$")
local TOLERANCE = 1e-5 -- absolute below 1, relative above

local function cases_in(folder)
  local list, pipe = {}, assert(io.popen("ls '" .. here .. "golden/" .. folder .. "'"))
  for name in pipe:lines() do list[#list + 1] = name end
  pipe:close()
  return list
end

local function tensors(directory, kind)
  local list = {}
  while true do
    local t = core.tensor_pb_load(("%s/test_data_set_0/%s_%d.pb"):format(directory, kind, #list))
    if not t then return list end
    list[#list + 1] = t
  end
end

local function flat(t) return t:reshape({ t:count() }):totable() end

local function same(want, got)
  if type(want) ~= "number" then return want == got end
  if want ~= want then return got ~= got end
  return want == got or math.abs(want - got) <= TOLERANCE * math.max(1, math.abs(want))
end

local function compare(want, got)
  assert.equal(want:dtype(), got:dtype())
  assert.same(want:shape(), got:shape())
  local a, b = flat(want), flat(got)
  for i = 1, #a do
    if not same(a[i], b[i]) then error(("element %d: expected %s, got %s"):format(i, tostring(a[i]), tostring(b[i]))) end
  end
end

for folder, least in pairs { ml = 90, recurrent = 30 } do
  describe("golden/" .. folder, function()
    local names = cases_in(folder)

    it("is there", function() assert.is_true(#names >= least) end)

    for _, name in ipairs(names) do
      it(name, function()
        local directory = here .. "golden/" .. folder .. "/" .. name
        local graph = assert(core.onnx_load(directory .. "/model.onnx"))
        local inputs, expected = tensors(directory, "input"), tensors(directory, "output")
        assert.is_true(#inputs > 0 and #expected > 0)
        for _, level in ipairs { "none", "exact", "fast" } do
          local outputs = core.program(graph, { level = level }):run(inputs)
          for i, want in ipairs(expected) do compare(want, outputs[i]) end
        end
        -- what we write is read again and gives the same
        local again = assert(core.onnx_parse(core.onnx_bytes(graph), name))
        local outputs = core.program(again):run(inputs)
        for i, want in ipairs(expected) do compare(want, outputs[i]) end
      end)
    end
  end)
end

describe("golden models", function()
  it("use every one of these operators", function()
    local text = {}
    for _, folder in ipairs { "ml", "recurrent" } do
      for _, name in ipairs(cases_in(folder)) do
        local file = assert(io.open(here .. "golden/" .. folder .. "/" .. name .. "/model.onnx", "rb"))
        text[#text + 1] = file:read("*a")
        file:close()
      end
    end
    text = table.concat(text)
    for _, op in ipairs { "ArrayFeatureExtractor", "CategoryMapper", "FeatureVectorizer", "GRU", "LSTM", "LinearClassifier", "LinearRegressor", "MurmurHash3", "RNN",
                          "RegexFullMatch", "SVMClassifier", "SVMRegressor", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Tokenizer",
                          "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor" } do
      assert.is_truthy(text:find(op .. "[^%a]"), op) -- op_type is followed by another field's tag
    end
  end)
end)

describe("a batch of trees", function()
  it("gives each row what the row gives alone", function()
    local directory = here .. "golden/ml/xgboost_missing"
    local graph = assert(core.onnx_load(directory .. "/model.onnx"))
    local program, x = core.program(graph), tensors(directory, "input")[1]
    local all = program:run({ x })
    local labels, scores = flat(all[1]), all[2]:totable()
    for i, row in ipairs(x:totable()) do
      local one = program:run({ core.tensor({ row }, "float32") })
      assert.equal(labels[i], flat(one[1])[1])
      assert.same(scores[i], one[2]:totable()[1])
    end
  end)
end)

describe("unsound models", function()
  -- x0 <= 0.5 ? (x1 <= 0.5 ? 1 : 2) : 3
  local function attributes()
    return {
      nodes_treeids = { 0, 0, 0, 0, 0 }, nodes_nodeids = { 0, 1, 2, 3, 4 }, nodes_featureids = { 0, 1, 0, 0, 0 },
      nodes_modes = { "BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF" }, nodes_values = { 0.5, 0.5, 0, 0, 0 },
      nodes_truenodeids = { 1, 3, 0, 0, 0 }, nodes_falsenodeids = { 2, 4, 0, 0, 0 },
      target_treeids = { 0, 0, 0 }, target_nodeids = { 3, 4, 2 }, target_ids = { 0, 0, 0 }, target_weights = { 1, 2, 3 }, n_targets = 1,
    }
  end

  local function run(op, list, input, outputs)
    local graph = core.graph("trees")
    local x = graph:input("x", input:dtype(), input:shape())
    local made = { graph:node(op, { x }, list, outputs or 1) }
    for _, value in ipairs(made) do graph:output(value) end
    return core.program(graph):run({ input })
  end

  local function trees(change, input)
    local list = attributes()
    if change then change(list) end
    return run("ai.onnx.ml.TreeEnsembleRegressor", list, input or core.tensor({ { 0, 0 }, { 0, 1 }, { 1, 0 } }, "float32"))
  end

  local function refused(words, fn, ...)
    local ok, message = pcall(fn, ...)
    assert.is_false(ok, "accepted")
    assert.is_truthy(tostring(message):find(words, 1, true), tostring(message))
  end

  it("sound ones work", function() assert.same({ { 1 }, { 2 }, { 3 } }, trees()[1]:totable()) end)

  it("lists of unequal length", function()
    for _, name in ipairs { "nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_values", "nodes_truenodeids", "nodes_falsenodeids",
                            "target_nodeids", "target_ids", "target_weights" } do
      refused(name, trees, function(a) a[name][#a[name]] = nil end)
    end
    refused("nodes_missing_value_tracks_true", trees, function(a) a.nodes_missing_value_tracks_true = { 1 } end)
  end)

  it("children, votes, features and targets that are not there", function()
    refused("nodes_truenodeids[0]: tree 0 has no node 9", trees, function(a) a.nodes_truenodeids[1] = 9 end)
    refused("nodes_falsenodeids[1]: tree 0 has no node -1", trees, function(a) a.nodes_falsenodeids[2] = -1 end)
    refused("target_nodeids[2]: tree 0 has no node 7", trees, function(a) a.target_nodeids[3] = 7 end)
    refused("target_ids[1] is 1", trees, function(a) a.target_ids[2] = 1 end)
    refused("target_ids[1] is -1", trees, function(a) a.target_ids[2] = -1 end)
    refused("nodes_featureids[1] is -3", trees, function(a) a.nodes_featureids[2] = -3 end)
    refused("X has 2 features, the trees need 8", trees, function(a) a.nodes_featureids[2] = 7 end)
    refused("nodes_nodeids[4]: tree 0 has a node 3 already", trees, function(a) a.nodes_nodeids[5] = 3 end)
    refused("unknown mode 'BRANCH_'", trees, function(a) a.nodes_modes[1] = "BRANCH_" end)
    refused("base_values", trees, function(a) a.base_values = { 1, 2 } end)
    refused("n_targets", trees, function(a) a.n_targets = 0 end)
  end)

  it("cycles", function()
    refused("a cycle", trees, function(a) a.nodes_truenodeids[2] = 0 end)
    refused("a cycle", trees, function(a) a.nodes_truenodeids[1] = 0 end)
  end)

  it("trees that share nodes are no cycles", function()
    assert.same({ { 1 }, { 3 }, { 3 } }, trees(function(a) a.nodes_falsenodeids[2] = 2 end)[1]:totable())
  end)

  it("linear models and support vectors of the wrong size", function()
    local x = core.tensor({ { 1, 2, 3 } }, "float32")
    refused("coefficients", run, "ai.onnx.ml.LinearRegressor", { coefficients = { 1, 2, 3 }, targets = 2 }, x)
    refused("X has 3 features", run, "ai.onnx.ml.LinearRegressor", { coefficients = { 1, 2 } }, x)
    refused("intercepts", run, "ai.onnx.ml.LinearClassifier", { coefficients = { 1, 2, 3 }, intercepts = { 1, 2, 3 }, classlabels_ints = { 1, 2 } }, x, 2)
    refused("classlabels_ints", run, "ai.onnx.ml.LinearClassifier", { coefficients = { 1, 2, 3 } }, x, 2)
    refused("rho", run, "ai.onnx.ml.SVMClassifier", { classlabels_ints = { 1, 2, 3 }, vectors_per_class = { 1, 1, 1 }, coefficients = { 1, 2, 3, 4, 5, 6 },
      support_vectors = { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, rho = { 1 } }, x, 2)
    refused("vectors_per_class[0]", run, "ai.onnx.ml.SVMClassifier", { classlabels_ints = { 1, 2 }, vectors_per_class = { -1, 2 }, coefficients = { 1 },
      support_vectors = { 1 }, rho = { 1 } }, x, 2)
    refused("support_vectors", run, "ai.onnx.ml.SVMRegressor", { n_supports = 2, coefficients = { 1, 2 }, rho = { 0 }, support_vectors = { 1 } }, x)
    refused("post_transform", run, "ai.onnx.ml.SVMRegressor", { coefficients = { 1, 2, 3 }, rho = { 0 }, post_transform = "CUBE" }, x)
  end)

  it("n-grams that do not fit their pool", function()
    local x, base = core.tensor({ 1, 2 }, "int64"), { mode = "TF", min_gram_length = 1, max_gram_length = 2, max_skip_count = 0 }
    local function grams(counts, indexes, pool)
      local list = { ngram_counts = counts, ngram_indexes = indexes, pool_int64s = pool }
      for k, v in pairs(base) do list[k] = v end
      return run("TfIdfVectorizer", list, x)
    end
    assert.same({ 1, 1 }, grams({ 0, 1 }, { 0, 1 }, { 1, 1, 2 })[1]:totable())
    refused("ngram_counts[1]", grams, { 0, 1 }, { 0, 1 }, { 1, 1, 2, 3 })
    refused("ngram_counts[0]", grams, { 0, 9 }, { 0, 1 }, { 1, 1, 2 })
    refused("ngram_indexes", grams, { 0, 1 }, { 0 }, { 1, 1, 2 })
    refused("ngram_indexes[1] is -1", grams, { 0, 1 }, { 0, -1 }, { 1, 1, 2 })
    refused("max_gram_length", grams, { 0 }, { 0, 1 }, { 1, 1, 2 })
  end)
end)

describe("ArrayFeatureExtractor", function()
  it("counts negative indices from the end, as ONNX's reference implementation does", function()
    local function columns(...)
      local graph = core.graph("columns")
      local x, y = graph:input("x", "float32", { 2, 3 }), graph:input("y", "int64", { 2 })
      graph:output((graph:node("ai.onnx.ml.ArrayFeatureExtractor", { x, y })))
      return core.program(graph):run({ core.tensor { { 1, 2, 3 }, { 4, 5, 6 } }, core.tensor({ ... }, "int64") })[1]:totable()
    end
    assert.same({ { 3, 1 }, { 6, 4 } }, columns(-1, 0))
    assert.same({ { 1, 3 }, { 4, 6 } }, columns(-3, 2))
    for _, index in ipairs { -4, 3 } do
      local ok, message = pcall(columns, 0, index)
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find(("Y[1] is %d, X has 3 columns"):format(index), 1, true), tostring(message))
    end
  end)
end)

describe("RegexFullMatch", function()
  local function match(pattern, text)
    local graph = core.graph("text")
    local x = graph:input("x", "string", { 1 })
    graph:output((graph:node("RegexFullMatch", { x }, { pattern = pattern })))
    return core.program(graph):run({ core.tensor({ text }) })[1]:totable()[1]
  end

  it("takes time in proportion to the text", function() -- a backtracking engine would never end
    assert.is_false(match("(a*)*b", ("a"):rep(20000)))
    assert.is_true(match("(a|aa)+", ("a"):rep(20000)))
  end)

  it("refuses what it does not know, and what grows without bounds", function()
    for pattern, words in pairs { ["("] = "missing )", [")"] = "a ) too many", ["a**"] = "repetition of a repetition", ["[a"] = "without its ]",
                                  ["(?=a)"] = "unknown group", ["\\q"] = "unknown escape", ["a{2,1}"] = "wrong repetition", ["*a"] = "nothing to repeat",
                                  ["((a{1000}){1000}){1000}"] = "too large", ["(((){1000}){1000}){1000}"] = "too large",
                                  [("("):rep(1000)] = "too deep" } do
      local ok, message = pcall(match, pattern, "a")
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find(words, 1, true), tostring(message))
    end
  end)
end)

describe("StringNormalizer beyond ASCII", function()
  it("changes the case without a locale", function()
    local function changed(words, action)
      local graph = core.graph("text")
      local x = graph:input("x", "string", { #words })
      graph:output((graph:node("StringNormalizer", { x }, { case_change_action = action })))
      return core.program(graph):run({ core.tensor(words) })[1]:totable()
    end
    assert.same({ "straße", "été", "łódź", "ωμέγα", "жизнь", "日本" }, changed({ "STRAßE", "ÉTÉ", "ŁÓDŹ", "ΩΜΈΓΑ", "ЖИЗНЬ", "日本" }, "LOWER"))
    assert.same({ "STRAßE", "ÉTÉ", "ŁÓDŹ", "ΩΜΈΓΑΣ", "ЖИЗНЬ", "日本" }, changed({ "straße", "été", "łódź", "ωμέγας", "жизнь", "日本" }, "UPPER"))
  end)
end)
