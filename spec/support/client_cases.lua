-- Calls of mlserve.client with what must come back, for every place it runs in: plain Lua, a cqueues loop, nginx. The models are those of
-- spec/support/tfserving_cases.lua, whose arithmetic is exact; penguins' scores are ONNX Runtime's.

local M = {}

local function totable(value)
  if type(value) == "userdata" then return { dtype = value:dtype(), shape = value:shape(), value = #value:shape() == 0 and value:item() or value:totable() } end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, each in pairs(value) do copy[key] = totable(each) end
  return copy
end
M.totable = totable

local function t(dtype, shape, value) return { dtype = dtype, shape = shape, value = value } end

M.REST = {
  { protocol = "tfserving" }, { protocol = "tfserving", compression = "gzip" }, { protocol = "kserve" }, { protocol = "kserve", binary = false },
  { protocol = "kserve", compression = "gzip" },
}
M.GRPC = { { protocol = "grpc" }, { protocol = "grpc-kserve" }, { protocol = "grpc", compression = "gzip" }, { protocol = "grpc-kserve", compression = "gzip" } }

--- equal(expected, got, what) compares deeply; make(options) gives a client of the server; penguins: { inputs, labels, probabilities }; list: of
--- options.
function M.run(make, equal, penguins, list)
  local core = require "mlserve.core"
  local client
  local function predict(want, model, ...)
    local value, message = client:predict(model, ...)
    equal(want, value == nil and message or totable(value), model)
  end

  local pair_in = { a = { { 4, 3 }, { 1, 1 } }, b = { { 2, 1 }, { 0.5, 1 } } }
  local sum, diff = t("float32", { 2, 2 }, { { 6, 4 }, { 1.5, 2 } }), t("float32", { 2, 2 }, { { 2, 2 }, { 0.5, 0 } })

  for _, given in ipairs(list) do
    local tf, json = given.protocol == "tfserving" or given.protocol == "grpc", given.protocol == "tfserving"
    client = make(given)
    -- what is taken: nested arrays, tensors, by name or alone; what is given: alone or by name
    predict(t("float32", { 2, 2 }, { { 2, 5 }, { 6, -8 } }), "double", { { 1, 2.5 }, { 3, -4 } })
    predict(t("float32", { 1, 2 }, { { 2, 5 } }), "double", core.tensor { { 1, 2.5 } })
    predict({ y = t("float32", { 1, 2 }, { { 2, 5 } }) }, "double", { x = { { 1, 2.5 } } })
    predict({ y = t("float32", { 1, 2 }, { { 2, 5 } }) }, "double", { x = core.tensor { { 1, 2.5 } } })
    predict({ sum = sum, diff = diff }, "pair", pair_in)
    predict({ sum = sum, diff = diff }, "pair", { a = core.tensor(pair_in.a), b = pair_in.b })
    predict({ diff = diff }, "pair", pair_in, { outputs = { "diff" } })
    predict(t("float32", { 1, 2 }, { { 2, 4 } }), "double", { { 1, 2 } }, { version = 1 })
    predict(t("float32", { 1, 2 }, { { 2, 4 } }), "double", { { 1, 2 } }, { version = "2", timeout = 5, headers = { ["x-a"] = "b" } })
    predict(t("float32", { 1, 2 }, { { 2, 4 } }), "double", { { 1, 2 } }, { label = "canary" })
    -- element types
    predict(t("int64", { 1, 2 }, { { 2, -8 } }), "int64", { { 1, -4 } })
    predict(t("int64", { 1, 2 }, { { 2, -8 } }), "int64", core.tensor({ { 1, -4 } }, "int64"))
    predict(t(json and "int64" or "uint8", { 1, 2 }, { { 2, 254 } }), "uint8", { { 1, 127 } })
    predict(t("float64", { 1, 2 }, { { 0.2, 2e300 } }), "float64", { { 0.1, 1e300 } }, json and { dtypes = "float64" } or nil)
    predict(t("float32", { 2 }, { math.huge, -math.huge }), "value", { math.huge, -math.huge })
    local texts = { "a", "", "\228\189\160" }
    predict({ plain = t("string", { 3 }, texts), raw_bytes = t("string", { 3 }, texts) }, "text", texts)
    if tf or given.binary ~= false then -- text's other output is no place for bytes: TensorFlow Serving's JSON has them only under names ending in _bytes
      predict({ raw_bytes = t("string", { 2 }, { "\0\255", "b" }) }, "text", { s = core.tensor { "\0\255", "b" } }, { outputs = { "raw_bytes" } })
    else
      local value, message, code = client:predict("text", core.tensor { "\0\255" })
      equal({ nil, "input 's': a string that is no UTF-8 has no form in JSON: send it as binary", "INVALID_ARGUMENT" }, { value, message, code }, "bytes")
    end
    -- a model with numbers, texts and labels; probabilities by label are tables
    local outputs = client:predict("penguins", penguins.inputs)
    equal(penguins.labels, outputs.output_label:totable(), "labels")
    local probabilities = outputs.output_probability
    for i, wanted in ipairs(penguins.probabilities) do
      local row = json and probabilities[i] or core.json_decode(probabilities:get(i))
      for label, score in pairs(wanted) do equal(true, math.abs(row[label] - score) < 1e-5, "probability of " .. label) end
    end
    -- refusals
    local value, message, code = client:predict("none", { x = core.tensor { 1 } })
    equal({ nil, tf and "Servable not found for request: Latest(none)" or "Request for unknown model: 'none' is not found", "NOT_FOUND" },
      { value, message, code }, "no model")
    value, message, code = client:predict("double", core.tensor { { 1, 2, 3 } })
    equal({ nil, true, "INVALID_ARGUMENT" }, { value, message ~= nil and message:find("2", 1, true) ~= nil, code }, "wrong shape")
    value, message, code = client:predict("pair", pair_in, { outputs = { "nothing" } })
    equal({ nil, true, "INVALID_ARGUMENT" }, { value, message ~= nil and message:find("nothing", 1, true) ~= nil, code }, "no such output")
    value, message, code = client:predict("double", { { 1, 2 } }, { version = 9 })
    equal({ nil, true, "NOT_FOUND" }, { value, message ~= nil, code }, "no such version")
    -- the rest
    equal({ true, nil, nil }, { client:live() }, "live")
    equal({ true, nil, nil }, { client:ready() }, "ready")
    equal({ true, nil, nil }, { client:ready("double", { version = 1 }) }, "model ready")
    local ready, _, why = client:ready "none"
    equal({ false, given.protocol == "grpc-kserve" and "UNAVAILABLE" or "NOT_FOUND" }, { ready, why }, "model not ready")
    equal({ { "2", "AVAILABLE" }, { "1", "AVAILABLE" } }, (function(versions)
      local short = {}
      for i, each in ipairs(versions) do short[i] = { each.version, each.state } end
      return short
    end)(assert(client:status "double")), "status")
    local metadata = assert(client:metadata "pair")
    equal({ inputs = { a = { dtype = "float32", shape = { -1, 2 } }, b = { dtype = "float32", shape = { -1, 2 } } },
      outputs = { sum = { dtype = "float32", shape = { -1, 2 } }, diff = { dtype = "float32", shape = { -1, 2 } } } },
      { inputs = metadata.inputs, outputs = metadata.outputs }, "metadata")
    equal("mlserve", assert(client:server_metadata()).name, "server metadata")
    equal("double", assert(client:statistics("double", { version = 1 }))[1].name, "statistics")
    equal("double", assert(client:config "double").name, "config")
    equal({ nil, "UNAVAILABLE" }, { (client:index()), select(3, client:index()) }, "index without admin rights")
    equal({ nil, "UNAVAILABLE" }, { (client:load "double"), select(3, client:load "double") }, "load without admin rights")

    if json then
      predict(t("float32", { 2, 2 }, { { 2, 5 }, { 6, -8 } }), "double", { { 1, 2.5 }, { 3, -4 } }, { format = "row" })
      predict({ sum = sum, diff = diff }, "pair", pair_in, { format = "row" })
      predict({ sum = sum, diff = diff }, "pair", { a = core.tensor(pair_in.a), b = pair_in.b }, { format = "row" })
      predict({ d = diff }, "pair", pair_in, { signature = "difference", format = "row", outputs = { "d" } })
      value, message, code = client:predict("pair", pair_in, { signature = "nothing", outputs = { "d" } })
      equal({ nil, 'Serving signature name: "nothing" not found in signature def', "INVALID_ARGUMENT" }, { value, message, code }, "no such signature")
      predict(t("string", { 2 }, { "\255", "b" }), "text", { { b64 = "/w==" }, "b" }, { dtypes = { plain = "string" }, outputs = { "raw_bytes" } })
    end
    if tf then
      predict({ d = diff }, "pair", pair_in, { signature = "difference" })
      equal({ { { label = "no", score = 79 }, { label = "yes", score = 2 } } }, client:classify("double", { { age = 39.5, income = 1 } }), "classify")
      equal({ { { label = "no", score = 2 }, { label = "yes", score = 4 } } }, client:classify("double", { { income = 2 } }, { context = { age = 1 } }), "context")
      equal({ 3, 5 }, client:regress("value", { { x = 1.5 }, { x = 2.5 } }), "regress")
      equal({ 3 }, client:regress("value", { { x = { 1.5 } } }), "a list of one")
      equal({ 3 }, client:regress("value", { { x = core.tensor { 1.5 } } }), "a tensor")
      equal("INVALID_ARGUMENT", select(3, client:regress("value", {})), "no examples")
      equal({ "d" }, (function(outputs_of)
        local names = {}
        for name in pairs(outputs_of) do names[#names + 1] = name end
        return names
      end)(assert(client:metadata("pair", { signature = "difference" })).outputs), "metadata of a signature")
    else
      predict({ sum = sum }, "pair", pair_in, { outputs = { sum = {} }, id = "42", parameters = { priority = 1 } })
      predict({ sum = t("string", { 2, 1 }, { { "6.000000:0" }, { "2.000000:1" } }) }, "pair", pair_in, { outputs = { sum = { classification = 1 } } })
      equal("UNIMPLEMENTED", select(3, client:classify("double", { { age = 1.5 } })), "classify")
      value, message, code = client:predict("pair", { { 1, 2 } })
      equal({ nil, "the model has 2 inputs (a, b): give them by name", "INVALID_ARGUMENT" }, { value, message, code }, "which input")
    end
    client:close()
    equal("CANCELLED", select(3, client:live()), "closed")
  end
end

return M
