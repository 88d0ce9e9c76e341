-- bench_request.lua MODEL [COUNT]: what a request costs without a socket: route, decode, run, encode, count for /metrics. Lines: what, microseconds (the
-- median of samples), unit; separated by tabs. With COUNT: that many REST predictions and nothing else, for callgrind.
local core = require "mlserve.core"
local mlserve = require "mlserve"

local grpc, grpc_schema = require "mlserve.serve.protocols.grpc", require "mlserve.serve.protocols.grpc_schema"
local server = assert(mlserve.server { rest = { port = 0 } })
server:add_model("m", assert(mlserve.load(arg[1])))
local app = server.app
local row = {}
for i = 1, 30 do row[i] = ("%.6f"):format(i * 0.37) end
row = table.concat(row, ",")

local function request(path, body)
  return { method = "POST", path = path, headers = { host = "localhost", ["content-type"] = "application/json" }, body = body }
end

local function predict()
  return app:handle(request("/v1/models/m:predict", '{"instances":[[' .. row .. "]]}"))
end

local function infer()
  return app:handle(request("/v2/models/m/infer", '{"inputs":[{"name":"x","shape":[1,30],"datatype":"FP32","data":[' .. row .. "]}]}"))
end

local floats = {}
for i = 1, 30 do floats[i] = string.pack("<f", i * 0.37) end
local message = grpc.frame(grpc_schema.schema():encode("tensorflow.serving.PredictRequest", {
  model_spec = { name = "m" },
  inputs = { x = { dtype = 1, tensor_shape = { dim = { { size = 1 }, { size = 30 } } }, tensor_content = table.concat(floats) } },
}))

local function grpc_predict()
  local response = app:handle {
    method = "POST", path = "/tensorflow.serving.PredictionService/Predict", body = message, http = "2",
    headers = { host = "localhost", ["content-type"] = "application/grpc", te = "trailers" },
  }
  assert(response.trailers["grpc-status"] == "0", response.trailers["grpc-message"])
  return response
end

local function median(call)
  local samples = {}
  assert(call().status == 200, call().body)
  for round = 1, 101 do
    local begin = core.clock()
    for _ = 1, 200 do call() end
    samples[round] = (core.clock() - begin) * 1e6 / 200
  end
  table.sort(samples)
  return samples[51]
end

if arg[2] then
  for _ = 1, tonumber(arg[2]) do predict() end
else
  print(("a REST predict request without its socket\t%.2f\tus"):format(median(predict)))
  print(("a v2 infer request without its socket\t%.2f\tus"):format(median(infer)))
  print(("a gRPC Predict request without its socket\t%.2f\tus"):format(median(grpc_predict)))
end
