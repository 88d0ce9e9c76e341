--- The clients of a soak: each is a coroutine that asks, checks every answer, and notes what it got.
--
-- Well-behaved ones have a right to an answer to everything. It may be lost only when a worker was killed after the connection's last
-- answer, and a kept connection may turn out to be closed when a worker was replaced meanwhile (any client has to ask again then).
-- The others send what nobody should, and only what they are told counts.

local cjson = require "cjson"
local cqueues = require "cqueues"
local raw_http = require "spec.support.raw_http"

local format, random = string.format, math.random
local schema = require("mlserve.serve.protocols.grpc_schema").schema()

local M = {}

local PATIENCE = 10 -- seconds for an answer, and after which a version that was removed must not answer any more
local HEAD = "POST %s HTTP/1.1\r\nhost: soak\r\ncontent-length: %d\r\n%s\r\n"
local PATHS = { tensorflow = "/v1/models/%s:predict", kserve = "/v2/models/%s/infer" }

local function post(path, body, fields) return format(HEAD, path, #body, fields or "") .. body end

---------------------------------------------------------------------------------------------------------------------------
-- keeping count

local function bump(counts, key, amount) counts[key] = (counts[key] or 0) + (amount or 1) end

-- Something that must not happen; the first ones are told.
local function wrong(run, kind, what)
  bump(run.errors, kind)
  if #run.complaints < 20 then run.complaints[#run.complaints + 1] = kind .. ": " .. what end
end

local function describe(response) return format("%s %s", tostring(response.status), tostring(response.body):sub(1, 200):gsub("%s+", " ")) end

local function got(run, response)
  run.answers = run.answers + 1
  bump(run.by_status, response.status)
end

-- ---- connections ----

-- `since` is before the connection was made, or before its last request that was answered: what happens to the server later may end it.
local function open(run, client)
  client.since = cqueues.monotime()
  local ok, connection = pcall(raw_http.connect, run.port)
  if not ok then
    wrong(run, "refused connection", tostring(connection))
    cqueues.sleep(0.05)
    return nil
  end
  client.connection, client.version = connection, nil
  return connection
end

local function close(client)
  if client.connection then client.connection:close() end
  client.connection = nil
end

-- Sends and reads `count` answers; nil when they are lost with good reason or a complaint has been made.
local function exchange(run, client, bytes, count)
  for _ = 1, 3 do
    local kept = client.connection ~= nil
    local connection = client.connection or open(run, client)
    if not connection then return nil end
    local answers, why, begin = {}, nil, cqueues.monotime()
    run.sent = run.sent + count
    if connection:send(bytes, PATIENCE) then
      for i = 1, count do
        answers[i], why = connection:response(PATIENCE)
        if not answers[i] then break end
        got(run, answers[i])
      end
    else
      why = "closed"
    end
    if #answers == count then
      client.since = begin
      if answers[count].headers.connection == "close" then close(client) end
      return answers
    end
    close(client)
    if run.killed_at >= client.since then
      run.lost = run.lost + count - #answers
      return nil
    elseif kept and #answers == 0 and why == "closed" and run.replaced_at >= client.since then
      run.asked_again = run.asked_again + 1
    elseif #answers > 0 and why == "closed" and answers[#answers].headers.connection == "close" then
      run.asked_again = run.asked_again + 1 -- pipelined behind the last answer of a worker that ended
      return nil
    else
      wrong(run, "no answer", format("%s after %d of %d answers to %s", tostring(why), #answers, count, bytes:sub(1, 60):gsub("%s+", " ")))
      return nil
    end
  end
end

---------------------------------------------------------------------------------------------------------------------------
-- what is asked, and what is right

local function whole() return random(-1000, 1000) end

local function numbers(rows)
  local list = {}
  for i = 1, rows do list[i] = whole() end
  return list
end

local function row_form(list) return '{"instances":[[' .. table.concat(list, "],[") .. "]]}" end
local function column_form(list) return '{"inputs":[[' .. table.concat(list, "],[") .. "]]}" end

local function infer_form(list, binary)
  local head = format('{"inputs":[{"name":"x","shape":[%d,1],"datatype":"FP32"', #list)
  if not binary then return head .. ',"data":[' .. table.concat(list, ",") .. "]}]}" end
  head = head .. format(',"parameters":{"binary_data_size":%d}}]}', 4 * #list)
  return head .. string.pack(("<f"):rep(#list), table.unpack(list)), format("inference-header-content-length: %d\r\n", #head)
end

-- The version that gave these answers; nil and why when they are not right.
local function version_of(given, answers)
  if type(answers) ~= "table" or #answers ~= #given then return nil, "another number of answers" end
  local version
  for i, answer in ipairs(answers) do
    local value = type(answer) == "table" and answer[1] or answer
    if type(value) ~= "number" then return nil, "no numbers" end
    version = version or value - given[i]
    if value - given[i] ~= version then return nil, "answers of two versions, or wrong ones" end
  end
  return version
end

-- What a gRPC answer over HTTP/1.1 (gRPC-Web: frames, the last of which are the trailers) says, in the form of the other protocols.
local function grpc_document(response)
  local at, body, document = 1, response.body, {}
  while at + 4 <= #body do
    local flag, content, after = string.unpack(">Bs4", body, at)
    at = after
    if flag == 128 then document.status = tonumber(content:match "grpc%-status: ?(%d+)") else document.message = content end
  end
  if document.status ~= 0 or not document.message then return nil end
  if response.tensorflow then
    return { predictions = schema:decode("tensorflow.serving.PredictResponse", document.message).outputs.y.float_val }
  end
  local inferred = schema:decode("inference.ModelInferResponse", document.message)
  local raw, list = inferred.raw_output_contents[1], {}
  for i = 1, #raw / 4 do list[i] = (string.unpack("<f", raw, 4 * i - 3)) end
  return { predictions = list, model_version = inferred.model_version }
end

local function check(run, client, model, asked, given, response, named)
  local ok, document = pcall(response.grpc and grpc_document or cjson.decode, response.grpc and response or response.body)
  if response.status ~= 200 or not ok or not document then return wrong(run, "status of a good request", describe(response)) end
  local output = document.outputs and document.outputs[1]
  local answers = document.predictions or type(output) == "table" and output.data or document.outputs
  local version, why = version_of(given, answers)
  if not version then return wrong(run, "wrong answer", why .. ": " .. describe(response)) end
  run.rows[model] = (run.rows[model] or 0) + #given
  if document.model_version and tonumber(document.model_version) ~= version then
    return wrong(run, "wrong answer", format("version %s says it is %s", version, document.model_version))
  end
  if model ~= "swapped" then
    if version ~= 1 then wrong(run, "wrong answer", format("%s: %s", model, describe(response))) end
  elseif named and version ~= named then
    wrong(run, "wrong answer", format("version %d instead of %d", version, named))
  elseif not run.models:plausible(version, asked, PATIENCE) then
    wrong(run, "wrong answer", format("version %s, which is not there", version))
  elseif not named then
    if client.version and version < client.version then
      wrong(run, "wrong answer", format("version %d after %d", version, client.version))
    end
    client.version = version
  end
end

local function time(run, model, begin) -- latencies of plain requests, before the swaps and during them
  local list = run.latencies[run.phase]
  if list and model ~= "batched" then list[#list + 1] = cqueues.monotime() - begin end
end

local good = {}

function good.predict(run, client, model)
  local list, begin = numbers(random(1, 3)), cqueues.monotime()
  local answers = exchange(run, client, post(PATHS.tensorflow:format(model), random(2) == 1 and row_form(list) or column_form(list)), 1)
  if not answers then return end
  time(run, model, begin)
  bump(run.good, model .. " predict")
  check(run, client, model, begin, list, answers[1])
end

function good.infer(run, client, model)
  local list, begin = numbers(random(1, 3)), cqueues.monotime()
  local body, fields = infer_form(list, random(2) == 1)
  local answers = exchange(run, client, post(PATHS.kserve:format(model), body, fields), 1)
  if not answers then return end
  time(run, model, begin)
  bump(run.good, model .. " infer")
  check(run, client, model, begin, list, answers[1])
end

function good.version(run, client, model)
  if model ~= "swapped" then return good.predict(run, client, model) end
  local version, begin, list = run.models.versions[random(#run.models.versions)], cqueues.monotime(), numbers(1)
  local answers = exchange(run, client, post(format("/v1/models/swapped/versions/%d:predict", version), row_form(list)), 1)
  if not answers then return end
  if answers[1].status == 404 then -- not loaded yet, or not any more
    if not answers[1].body:find("Servable not found for request: Specific(swapped, " .. version .. ")", 1, true) then
      wrong(run, "wrong error", describe(answers[1]))
    end
  else
    bump(run.good, "swapped predict")
    check(run, client, model, begin, list, answers[1], version)
  end
end

function good.pipeline(run, client, model)
  local lists, requests, begin = {}, {}, cqueues.monotime()
  for i = 1, 8 do
    lists[i] = numbers(1)
    requests[i] = post(PATHS.tensorflow:format(model), row_form(lists[i]))
  end
  local answers = exchange(run, client, table.concat(requests), #requests)
  for i, answer in ipairs(answers or {}) do
    bump(run.good, model .. " predict")
    check(run, client, model, begin, lists[i], answer)
  end
end

function good.chunked(run, client, model)
  local list, begin = numbers(2), cqueues.monotime()
  local body, chunks = row_form(list), {}
  for at = 1, #body, 7 do
    local piece = body:sub(at, at + 6)
    chunks[#chunks + 1] = format("%x\r\n%s\r\n", #piece, piece)
  end
  local answers = exchange(run, client, "POST " .. PATHS.tensorflow:format(model) .. " HTTP/1.1\r\nhost: soak\r\ntransfer-encoding: chunked\r\n\r\n"
    .. table.concat(chunks) .. "0\r\n\r\n", 1)
  if not answers then return end
  bump(run.good, model .. " predict")
  check(run, client, model, begin, list, answers[1])
end

function good.grpc(run, client, model)
  local list, begin, tensorflow = numbers(random(1, 3)), cqueues.monotime(), random(2) == 1
  local path, message, verb
  if tensorflow then
    path, verb = "/tensorflow.serving.PredictionService/Predict", "predict"
    message = schema:encode("tensorflow.serving.PredictRequest", { model_spec = { name = model }, inputs = {
      x = { dtype = "DT_FLOAT", tensor_shape = { dim = { { size = #list }, { size = 1 } } }, float_val = list } } })
  else
    path, verb = "/inference.GRPCInferenceService/ModelInfer", "infer"
    message = schema:encode("inference.ModelInferRequest", { model_name = model, inputs = {
      { name = "x", datatype = "FP32", shape = { #list, 1 }, contents = { fp32_contents = list } } } })
  end
  local answers = exchange(run, client, post(path, string.pack(">Bs4", 0, message), "content-type: application/grpc-web+proto\r\n"), 1)
  if not answers then return end
  bump(run.good, model .. " " .. verb)
  answers[1].grpc, answers[1].tensorflow = true, tensorflow
  check(run, client, model, begin, list, answers[1])
end

local GETS = {
  { "/v1/models/swapped", '"AVAILABLE"' }, { "/v1/models/cheap/metadata", '"DT_FLOAT"' }, { "/v2/health/live" }, { "/v2/health/ready" },
  { "/v2/models/batched", '"FP32"' }, { "/v2/models/swapped/stats", '"model_stats"' }, { "/metrics", "mlserve_requests_total" },
}
function good.get(run, client)
  local what = GETS[random(#GETS)]
  local answers = exchange(run, client, "GET " .. what[1] .. " HTTP/1.1\r\nhost: soak\r\n\r\n", 1)
  if answers and not (answers[1].status == 200 and (not what[2] or answers[1].body:find(what[2], 1, true))) then
    wrong(run, "status of a good request", what[1] .. ": " .. describe(answers[1]))
  end
end

-- requests that are refused: bytes, and the status
local function mistakes()
  local valid = row_form(numbers(2))
  local list = {
    { post("/v1/models/cheap:predict", valid:sub(1, random(#valid - 1))), 400 },
    { post("/v1/models/batched:predict", '{"instances":[[1,2]]}'), 400 },
    { post("/v1/models/cheap:predict", ("["):rep(20000)), 400 },
    { post("/v1/models/cheap:predict", '{"instances":[["text"]]}'), 400 },
    { post("/v2/models/cheap/infer", '{"inputs":[{"name":"x","shape":[9007199254740993,1],"datatype":"FP32","data":[1]}]}'), 400 },
    { post("/v2/models/batched/infer", '{"inputs":[{"name":"z","shape":[1,1],"datatype":"FP32","data":[1]}]}'), 400 },
    { post("/v1/models/nobody:predict", valid), 404 }, { post("/v1/models/cheap/versions/77:predict", valid), 404 },
    { post("/v2/models/nobody/infer", valid), 404 }, { "DELETE /metrics HTTP/1.1\r\nhost: soak\r\n\r\n", 405 },
    { "GET /nothing HTTP/1.1\r\nhost: soak\r\n\r\n", 404 }, { post("/v1/models/cheap:predict", valid, "content-encoding: gzip\r\n"), 400 },
    { post("/v1/models/cheap:predict", valid, "content-encoding: br\r\n"), 415 },
  }
  return list[random(#list)]
end

function good.mistake(run, client)
  local what = mistakes()
  local answers = exchange(run, client, what[1], 1)
  if answers and answers[1].status ~= what[2] then
    wrong(run, "wrong error", format("%d expected for %s, got %s", what[2], what[1]:sub(1, 60):gsub("%s+", " "), describe(answers[1])))
  end
end

function good.mutant(run, client) -- a valid body with some bytes changed: an answer or a 400, and JSON in any case
  local kind, body, fields = "/v1/models/cheap:predict", row_form(numbers(3)), nil
  if random(2) == 1 then
    kind = "/v2/models/cheap/infer"
    body, fields = infer_form(numbers(3), random(2) == 1)
  end
  for _ = 1, random(1, 4) do
    local at = random(#body)
    body = body:sub(1, at - 1) .. string.char(random(0, 255)) .. body:sub(at + random(0, 1))
  end
  local answers = exchange(run, client, post(kind, body, fields), 1)
  if not answers then return end
  run.maybe_good = run.maybe_good + 1
  if answers[1].status ~= 200 and answers[1].status ~= 400 then wrong(run, "wrong error", describe(answers[1]))
  elseif answers[1].body:sub(1, 1) ~= "{" then wrong(run, "wrong error", "no JSON: " .. describe(answers[1])) end
end

function good.slow(run, client) -- byte by byte, but within the limits
  close(client)
  local list = numbers(1)
  local bytes, begin = post(PATHS.tensorflow:format "cheap", row_form(list)), cqueues.monotime()
  local connection = open(run, client)
  if not connection then return end
  run.sent = run.sent + 1
  for at = 1, #bytes, 2 do
    if not connection:send(bytes:sub(at, at + 1)) then break end
    cqueues.sleep(0.01)
  end
  local response, why = connection:response(PATIENCE)
  if response then
    got(run, response)
    bump(run.good, "cheap predict")
    check(run, client, "cheap", begin, list, response)
  elseif run.killed_at >= client.since then run.lost = run.lost + 1
  else wrong(run, "no answer", "a slow client: " .. tostring(why)) end
  close(client)
end

---------------------------------------------------------------------------------------------------------------------------
-- those who misbehave; what they send may count or not

local bad = {}

function bad.drip(run, connection) -- one byte at a time, for ever: 408
  for _ = 1, 100 do
    if not connection:send "G" then break end
    local response = connection:response(0.3)
    if response then
      run.by_status[response.status] = (run.by_status[response.status] or 0) + 1
      if response.status ~= 408 and response.status ~= 501 then wrong(run, "wrong error", describe(response)) end
      return
    end
    if run.stop then return end
  end
end

function bad.leave(_, connection) -- in the middle of a body, or of a head, or before the answer
  local bytes = post(PATHS.tensorflow:format "batched", row_form(numbers(10)))
  connection:send(bytes:sub(1, random(3) == 1 and #bytes or random(#bytes - 1)))
  cqueues.sleep(random() * 0.01)
end

function bad.never_read(run, connection)
  local request = "GET /monitoring/prometheus/metrics HTTP/1.1\r\nhost: soak\r\n\r\n" -- a large answer
  for _ = 1, 100 do
    if run.stop or not connection:send(request:rep(20), 0.05) then break end
    run.unread = run.unread + 20
  end
  cqueues.sleep(run.stop and 0 or 0.3)
end

-- HTTP/2 without manners: streams that are begun and reset at once, pings, settings, frames of no kind
local function frame(kind, flags, stream, payload) return string.pack(">I3BBI4", #payload, kind, flags, stream) .. payload end

function bad.http2(run, connection)
  local head = "\130\134\4\15/v2/health/live\65\1a" -- GET, http, :path and :authority, as RFC 7541 writes them
  local out, kind = { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0, "") }, random(4)
  for i = 1, 300 do
    if kind == 1 then out[#out + 1] = frame(1, 5, 2 * i - 1, head) .. frame(3, 0, 2 * i - 1, "\0\0\0\8")
    elseif kind == 2 then out[#out + 1] = frame(6, 0, 0, "12345678")
    elseif kind == 3 then out[#out + 1] = frame(4, 0, 0, "\0\4\0\0\0" .. string.char(i % 256))
    else out[#out + 1] = frame(random(0, 255), random(0, 255), random(0, 9), ("x"):rep(random(0, 40))) end
  end
  if kind == 1 then run.unread = run.unread + 300 end
  connection:send(table.concat(out), 1)
  connection:rest(0.2)
end

local HOSTILE = {
  { "POST /v1/models/cheap:predict HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nhost: a\r\n\r\n", 400 },
  { "POST /v1/models/cheap:predict HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400 },
  { "POST /v1/models/cheap:predict HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\nabcd", 413 },
  { "GET / HTTP/1.1\r\n\r\n", 400 }, { "GET / HTTP/1.1\r\nhost: a\r\nx: " .. ("a"):rep(50000) .. "\r\n\r\n", 431 },
  { "GET / HTTP/1.1\r\nhost: a\r\n" .. ("a: b\r\n"):rep(2000) .. "\r\n", 431 }, { ("\22\3\1"):rep(100) .. "\n", 400 },
}

function bad.hostile(run, connection, since) -- one answer, then the end
  local what = HOSTILE[random(#HOSTILE)]
  connection:send(what[1])
  local response, why = connection:response(PATIENCE)
  if run.killed_at >= since then return end
  if not response then return wrong(run, "no answer", "a hostile client: " .. tostring(why)) end
  run.by_status[response.status] = (run.by_status[response.status] or 0) + 1
  if response.status ~= what[2] then wrong(run, "wrong error", describe(response)) end
  local rest, closed = connection:rest(PATIENCE)
  if run.killed_at < since and not (closed and rest == "") then wrong(run, "wrong error", "the connection goes on after a refusal") end
end

---------------------------------------------------------------------------------------------------------------------------

local MODELS = { "cheap", "swapped", "swapped", "batched" }
local MIX = { "predict", "infer", "predict", "infer", "version", "pipeline", "chunked", "get", "mistake", "mutant", "grpc" }

-- A client that keeps its connection for a while.
local function behave(run)
  local client, pick = {}, {}
  while not run.stop do
    pick[1], pick[2] = MIX[random(#MIX)], MODELS[random(#MODELS)]
    good[pick[1]](run, client, pick[2])
    if random(50) == 1 then close(client) end
    cqueues.sleep(random() * 0.004)
  end
  close(client)
end

local function be_slow(run)
  local client = {}
  while not run.stop do good.slow(run, client) end
end

local function misbehave(run, how)
  while not run.stop do
    local begin = cqueues.monotime()
    local ok, connection = pcall(raw_http.connect, run.port)
    if ok then
      run.others = run.others + 1
      bad[how](run, connection, begin)
      connection:close()
    else
      wrong(run, "refused connection", tostring(connection))
    end
    cqueues.sleep(random() * 0.05)
  end
end

--- What is counted.
function M.new(port, models)
  return {
    port = port, models = models, phase = "warm", stop = false, killed_at = -1, replaced_at = -1,
    sent = 0, answers = 0, by_status = {}, good = {}, rows = {}, lost = 0, asked_again = 0, unread = 0, others = 0, maybe_good = 0,
    errors = {}, complaints = {}, latencies = { normal = {}, swaps = {} },
  }
end

--- Starts all clients in a controller; they end when run.stop is set.
function M.start(loop, run)
  for _ = 1, 12 do loop:wrap(behave, run) end
  for _ = 1, 2 do loop:wrap(be_slow, run) end
  for how in pairs(bad) do loop:wrap(misbehave, run, how) end
end

return M
