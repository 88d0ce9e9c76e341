-- Batching: the parameters file, what is decided about a model, waiting in an event loop, and a real server under concurrent clients.
-- The models add up their rows, so expected answers are sums of small integers.

local batching = require "mlserve.serve.batching"
local cjson = require "cjson"
local condition = require "cqueues.condition"
local core = require "mlserve.core"
local cqueues = require "cqueues"
local execute = require "mlserve.serve.execute"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"

-- y = x · (1 … 1), `work` times over so that it takes a while
local function summing(work, width)
  local graph = core.graph "summing"
  local x = graph:input("x", "float32", { -1, width or 3 })
  local ones, eye = {}, {}
  for i = 1, width or 3 do
    ones[i], eye[i] = { 1 }, {}
    for k = 1, width or 3 do eye[i][k] = i == k and 1 or 0 end
  end
  local matrix = (work or 0) > 0 and graph:initializer("eye", core.tensor(eye))
  for _ = 1, work or 0 do x = graph:node("Relu", { graph:node("MatMul", { x, matrix }) }) end -- x for what is not negative
  graph:output(graph:node("MatMul", { x, graph:initializer("ones", core.tensor(ones)) }), "y")
  return graph
end

-- rows less their mean over the batch
local function mixing()
  local graph = core.graph "mixing"
  local x = graph:input("x", "float32", { -1, 2 })
  local mean = graph:node("ReduceMean", { x, graph:initializer("axes", core.tensor({ 0 }, "int64")) })
  graph:output(graph:node("Sub", { x, mean }), "y")
  return graph
end

local function post(connection, path, text)
  connection:send(("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"):format(path, #text, text))
  return connection:response(20)
end

local function get(connection, path)
  connection:send("GET " .. path .. " HTTP/1.1\r\nHost: x\r\n\r\n")
  return connection:response(20)
end

local function servable(graph, options)
  local given = core.servable(core.program(graph), { model = "m" })
  return given, options and given:batching(options)
end

local function body(...) return cjson.encode { instances = { ... } } end
local function predictions(text) return cjson.decode((assert(text))).predictions end

describe("batching parameters", function()
  it("are TensorFlow Serving's, with its defaults", function()
    local options = assert(batching.parse [[
      max_batch_size { value: 128 }
      batch_timeout_micros { value: 0 }
      max_enqueued_batches { value: 1000000 }
      num_batch_threads { value: 8 }
      thread_pool_name { value: "pool" }
      allowed_batch_sizes: 8
      allowed_batch_sizes: 128
      pad_variable_length_inputs: true
    ]])
    assert.are.same({
      max_batch_size = 128, batch_timeout_micros = 0, max_enqueued_batches = 1000000, num_batch_threads = 8,
      allowed_batch_sizes = { 8, 128 }, pad_variable_length_inputs = true, enable_large_batch_splitting = false,
    }, options)
    local defaults = batching.parse ""
    assert.are.same({ 1000, 0, 10, core.threads(), false }, {
      defaults.max_batch_size, defaults.batch_timeout_micros, defaults.max_enqueued_batches, defaults.num_batch_threads,
      defaults.enable_large_batch_splitting,
    })
  end)

  it("are refused with the name of what is wrong", function()
    for text, expected in pairs {
      ["max_batch: 1"] = "t:1:1: unknown field 'max_batch'; known: allowed_batch_sizes, batch_timeout_micros, enable_large_batch_splitting, "
        .. "max_batch_size, max_enqueued_batches, max_execution_batch_size, num_batch_threads, pad_variable_length_inputs, thread_pool_name",
      ["max_batch_size: 1"] = "t:1:17: '{' expected behind 'max_batch_size', got '1'",
      ["max_batch_size { value: 0 }"] = "t: 'max_batch_size': an integer not below 1 expected, got 0",
      ["max_batch_size {}"] = "t: 'max_batch_size': an integer not below 1 expected, got 0",
      ["allowed_batch_sizes: [1, -2]"] = "t: 'allowed_batch_sizes': an integer not below 1 expected, got -2",
      ["max_batch_size { value: 1.5 }"] = "t:1:25: integer expected, got '1.5'",
      ["max_batch_size { size: 1 }"] = "t:1:18: unknown field 'size'; known: value",
      ["pad_variable_length_inputs: 3"] = "t:1:29: pad_variable_length_inputs: true or false expected, got '3'",
      ["max_batch_size { value: 1 } max_batch_size { value: 2 }"] = "t:1:29: 'max_batch_size' is given twice",
    } do
      assert.are.same({ nil, expected }, { batching.parse(text, "t") })
    end
    assert.error_matches(function() batching.config { sizes = 1 } end, "unknown option 'sizes'; known: allowed_batch_sizes,")
    assert.error_matches(function() batching.config "sometimes" end, "'mode': \"auto\", \"always\" or \"never\" expected")
    assert.error_matches(function() batching.config { models = { m = { mode = 1 } } } end, "model 'm': 'mode': string expected, got number")
    local _, message = batching.config { file = "no such file" }
    assert.matches("no such file", message)
    assert.error_matches(function() servable(summing(), { mode = "always", allowed_batch_sizes = { 2, 1 } }) end, "monotonically increasing")
    assert.error_matches(function() servable(summing(), { mode = "always", max_batch_size = 4, allowed_batch_sizes = { 2 } }) end,
      "last entry in allowed_batch_sizes must equal max_batch_size, 4; got 2")
  end)

  it("are joined for a model from the file, the table and its own", function()
    local name = os.tmpname()
    process.write(name, "max_batch_size { value: 64 } num_batch_threads { value: 3 }")
    local config = assert(batching.config { file = name, mode = "always", num_batch_threads = 2, models = { big = { max_batch_size = 16 } } })
    local big, other = config:options "big", config:options "other"
    assert.are.same({ 16, 2, "always", false }, { big.max_batch_size, big.num_batch_threads, big.mode, big.enable_large_batch_splitting })
    assert.are.equal(64, other.max_batch_size)
    os.remove(name)
  end)
end)

describe("what is decided about a model", function()
  it("depends on what a run costs and on the mode", function()
    local cheap, report = servable(summing(), { mode = "auto", inline_below = 1e6 })
    assert.is_false(report.threads)
    assert.is_true(report.run_us > 0 and not cheap:batched())
    local dear, decided = servable(summing(), { mode = "auto", inline_below = 0 })
    assert.are.same({ true, true, true, "" }, { decided.threads, decided.merge, decided.exact, decided.reason })
    assert.is_true(dear:batched())
    assert.is_true(select(2, servable(summing(), { mode = "always", inline_below = 1e6 })).merge)
    local never, off = servable(summing(), { mode = "never" })
    assert.is_true(not off.threads and not never:batched())
  end)

  it("never merges rows that influence each other", function()
    for _, mode in ipairs { "auto", "always" } do
      local mixed, report = servable(mixing(), { mode = mode, inline_below = 0 })
      assert.are.same({ true, false, "the rows of output 'y' depend on each other" }, { report.threads, report.merge, report.reason })
      local first, second = mixed:start_json(body({ 1, 5 }, { 3, 5 })), mixed:start_json(body({ 7, 9 }))
      assert.are.same({ { -1, 0 }, { 1, 0 } }, predictions(first:text()))
      assert.are.same({ { 0, 0 } }, predictions(second:text()))
      assert.are.equal(0, mixed:batch_stats().merged)
    end
    local fixed = core.graph "fixed"
    fixed:output(fixed:node("Relu", { fixed:input("x", "float32", { 1, 2 }) }), "y")
    assert.are.equal("the first dimension of input 'x' is fixed", select(2, servable(fixed, { mode = "always" })).reason)
  end)
end)

describe("a batched servable", function()
  it("answers as it would by itself, whatever ran together", function()
    local alone = servable(summing())
    local merged = servable(summing(), { mode = "always", max_batch_size = 8, batch_timeout_micros = 20000 })
    local jobs, bodies = {}, {}
    for i = 1, 20 do
      local rows = {}
      for k = 1, i % 5 + 1 do rows[k] = { i, k, 0.1 * i } end
      bodies[i] = cjson.encode { instances = rows }
      jobs[i] = merged:start_json(bodies[i])
    end
    for i, job in ipairs(jobs) do assert.are.equal(alone:predict_json(bodies[i]), job:text()) end
    local stats = merged:batch_stats()
    assert.are.equal(20, stats.jobs)
    assert.is_true(stats.largest > 1 and stats.largest <= 8 and stats.merged > 0, cjson.encode(stats))
    assert.are.equal(0, stats.waiting_rows)
  end)

  it("refuses when the queue is full, and drops what is late or not wanted", function()
    local model = servable(summing(), { mode = "always", max_batch_size = 4, batch_timeout_micros = 300000, max_enqueued_batches = 1 })
    local kept = { model:start_json(body { 1, 1, 1 }), model:start_json(body { 2, 2, 2 }), model:start_json(body { 3, 3, 3 }) }
    assert.are.same({ nil, "The batch scheduling queue to which this task was submitted is full", "UNAVAILABLE" },
      { model:start_json(body({ 1, 2, 3 }, { 1, 2, 3 })) })
    assert.is_true(kept[2]:cancel())
    assert.are.same({ nil, "the request was cancelled", "CANCELLED" }, { kept[2]:text() })
    assert.are.same({ { 3 } }, predictions(kept[1]:text()))
    assert.are.same({ { 9 } }, predictions(kept[3]:text()))
    local stats = model:batch_stats()
    assert.are.same({ 2, 1, 1, 0 }, { stats.jobs, stats.refused, stats.cancelled, stats.waiting_jobs })
    assert.is_nil((model:start_json("{}")))
    assert.are.equal("INVALID_ARGUMENT", select(3, model:start_json("{")))
  end)

  it("may be forgotten with requests in it", function()
    do
      local model = servable(summing(), { mode = "always", batch_timeout_micros = 50000 })
      local job = model:start_json(body { 1, 2, 3 })
      model:start_json(body { 1, 2, 3 })
      model:close()
      model = nil -- luacheck: ignore
      collectgarbage()
      assert.are.same({ { 6 } }, predictions(job:text()))
    end
    collectgarbage()
  end)
end)

describe("execute", function()
  local function loop(tasks)
    local controller, problems = cqueues.new(), {}
    for _, task in ipairs(tasks) do controller:wrap(task) end
    for err in controller:errors(30) do problems[#problems + 1] = tostring(err) end
    assert.are.same({}, problems)
    assert.is_true(controller:empty())
  end

  it("waits without stopping the loop, and merges what waits", function()
    local entry, tasks, answers, ticks = { servable = servable(summing(), { mode = "always", batch_timeout_micros = 50000, max_batch_size = 16 }) }, {}, {}, 0
    for i = 1, 10 do
      tasks[i] = function() answers[i] = predictions(execute.predict_json(entry, body { i, i, i }))[1][1] end
    end
    tasks[11] = function()
      while #answers < 10 do
        ticks = ticks + 1
        cqueues.sleep(0.001)
      end
    end
    loop(tasks)
    assert.are.same({ 3, 6, 9, 12, 15, 18, 21, 24, 27, 30 }, answers)
    assert.is_true(ticks > 3)
    assert.are.equal(10, entry.servable:batch_stats().largest)
  end)

  it("gives up on requests that are late or whose client has gone", function()
    local entry = { servable = servable(summing(), { mode = "always", batch_timeout_micros = 1000000, max_batch_size = 16 }) }
    local closed, late, gone = condition.new(), nil, nil
    loop {
      function() gone = { execute.predict_json(entry, body { 1, 2, 3 }, { closed = closed }) } end,
      function()
        cqueues.sleep(0.02)
        closed:signal()
      end,
    }
    assert.are.same({ nil, "the request was cancelled", "CANCELLED" }, gone)
    local busy = { servable = servable(summing(200, 200), { mode = "always", max_batch_size = 1, enable_large_batch_splitting = true }) }
    local row, answered, many = {}, 0, {}
    for i = 1, 200 do row[i] = 1 end
    for i = 1, 8 do
      many[i] = function()
        local text, _, code = execute.predict_json(busy, body(row), i > 1 and { timeout = 0.0001 } or nil)
        if text then answered = answered + 1 else late = code end
      end
    end
    loop(many)
    assert.are.equal("DEADLINE_EXCEEDED", late)
    assert.is_true(answered >= 1)
    assert.are.equal(8 - answered, busy.servable:batch_stats().expired)
  end)

  it("blocks where there is no loop to wait in", function()
    local entry = { servable = servable(summing(), { mode = "always" }) }
    assert.are.same({ { 6 } }, predictions(execute.predict_json(entry, body { 1, 2, 3 })))
    assert.are.same({ { 6 } }, predictions(execute.predict_json({ servable = servable(summing()) }, body { 1, 2, 3 })))
  end)

  it("merges infer requests of both protocols, with their own parameters, names and binary tensors", function()
    local entry = { servable = servable(summing(), { mode = "always", batch_timeout_micros = 100000, max_batch_size = 16 }) }
    local answers, tasks = {}, {}
    local function infer(rows, parameters)
      local data = {}
      for i = 1, rows * 3 do data[i] = i end
      return cjson.encode {
        id = "r" .. rows, parameters = parameters,
        inputs = { { name = "x", datatype = "FP32", shape = { rows, 3 }, data = data } },
      }
    end
    for rows = 1, 3 do
      tasks[rows] = function()
        local text, headers = execute.infer(entry, infer(rows, { priority = rows }), nil, nil, { model = "name", version = "7" })
        answers[rows] = headers == nil and cjson.decode(text)
      end
    end
    local binary = { name = "x", datatype = "FP32", shape = { 1, 3 }, parameters = { binary_data_size = 12 } }
    local head = cjson.encode { inputs = { binary }, parameters = { binary_data_output = true } }
    tasks[4] = function()
      -- 1, 2 and 0.5 as little-endian float32
      local text, headers = execute.infer(entry, head .. "\0\0\128\63\0\0\0\64\0\0\0\63", nil, #head)
      answers[4] = text:sub(tonumber(headers["inference-header-content-length"]) + 1)
    end
    tasks[5] = function() answers[5] = predictions(execute.predict_json(entry, body { 1, 1, 1 })) end
    loop(tasks)
    for rows = 1, 3 do
      assert.are.same({ "name", "7", "r" .. rows, { rows, 1 } },
        { answers[rows].model_name, answers[rows].model_version, answers[rows].id, answers[rows].outputs[1].shape })
      assert.are.same(({ { 6 }, { 6, 15 }, { 6, 15, 24 } })[rows], answers[rows].outputs[1].data)
    end
    assert.are.equal("\0\0\96\64", answers[4]) -- 3.5
    assert.are.same({ { 3 } }, answers[5])
    local stats = entry.servable:batch_stats()
    assert.are.same({ 5, 1, 8 }, { stats.jobs, stats.runs, stats.largest })
    assert.are.equal(4, cjson.decode(entry.servable:statistics()).inference_stats.success.count)
    local late
    loop { function() late = { execute.infer(entry, infer(1, { timeout = 1 })) } end }
    assert.are.equal("DEADLINE_EXCEEDED", late[3])
    assert.are.equal("INVALID_ARGUMENT", select(3, execute.infer(entry, "{")))
  end)

  it("is reached by handle from other Lua states", function()
    local worker = require "mlserve.serve.transports.nginx_worker"
    local model = servable(summing(), { mode = "always" })
    assert.are.same({ { 6 } }, predictions(worker.call(model:handle(), false, "predict_json", body { 1, 2, 3 })))
    assert.are.equal(1, model:batch_stats().jobs)
    local text = worker.call(model:handle(), false, "infer", cjson.encode {
      inputs = { { name = "x", datatype = "FP32", shape = { 1, 3 }, data = { 1, 2, 4 } } },
    }, nil, { model = "name", version = "7" })
    assert.are.same({ "name", { 7 } }, { cjson.decode(text).model_name, cjson.decode(text).outputs[1].data })
    assert.are.equal(2, model:batch_stats().jobs)
    assert.are.equal("NOT_FOUND", select(3, worker.call(4711, false, "predict_json", "")))
    assert.are.same({ { 6 } }, predictions(worker.call(model:handle(), core.clock() + 60, "predict_json", body { 1, 2, 3 })))
    assert.are.equal("DEADLINE_EXCEEDED", select(3, worker.call(model:handle(), core.clock() - 1, "predict_json", body { 1, 2, 3 })))
  end)
end)

describe("a server with batching", function()
  it("gives every client its own answer", function()
    local file, name = os.tmpname(), os.tmpname()
    process.write(name, "max_batch_size { value: 16 } batch_timeout_micros { value: 2000 } num_batch_threads { value: 2 } enable_large_batch_splitting { value: true }")
    process.write(file, [[
      local core = require "mlserve.core"
      local graph = core.graph "summing"
      local x = graph:input("x", "float32", { -1, 3 })
      graph:output(graph:node("MatMul", { x, graph:initializer("ones", core.tensor { { 1 }, { 1 }, { 1 } }) }), "y")
      local model = core.servable(core.program(graph), { model = "m" })
      local server = require("mlserve.serve.server").new { rest = { port = 0 }, batching = { mode = "always", file = arg[1] } }
      server:add_model("m", model)
      server.app:route("GET", "^/stats$", function()
        local stats = model:batch_stats()
        return { status = 200, body = ("%d %d %d %d"):format(stats.jobs, stats.largest, stats.merged, stats.waiting_jobs) }
      end)
      os.exit(server:run() and 0 or 1)
    ]])
    local child = process.spawn_lua(file, name)
    local port = tonumber(child:expect "listening on http://127%.0%.0%.1:(%d+)\n")
    local controller, wrong, right = cqueues.new(), {}, 0
    for client = 1, 16 do
      controller:wrap(function()
        local connection = raw_http.connect(port)
        for i = 1, 20 do
          local rows, expected = {}, {}
          for k = 1, client == 1 and 40 or (i + client) % 4 + 1 do
            rows[k], expected[k] = { client, i, k }, { client + i + k }
          end
          local response = post(connection, "/v1/models/m:predict", cjson.encode { instances = rows })
          local got = response and cjson.decode(response.body).predictions
          local same = got and #got == #expected
          for k = 1, same and #expected or 0 do same = same and got[k][1] == expected[k][1] end
          if same then right = right + 1 else wrong[#wrong + 1] = response and response.body or "no answer" end
        end
        connection:close()
      end)
    end
    assert(controller:loop(60))
    assert.are.same({}, wrong)
    assert.are.equal(320, right)
    local connection = raw_http.connect(port)
    local jobs, largest, merged, waiting = get(connection, "/stats").body:match "(%d+) (%d+) (%d+) (%d+)"
    connection:close()
    assert.are.same({ "320", "0" }, { jobs, waiting })
    assert.is_true(tonumber(largest) > 4 and tonumber(merged) > 0, largest .. " rows, " .. merged .. " merged")
    assert.are.equal(0, child:stop())
    os.remove(file)
    os.remove(name)
  end)
end)
