local app = require "mlserve.serve.app"
local cjson = require "cjson"
local core = require "mlserve.core"
local cqueues = require "cqueues"
local fake_servable = require "spec.support.fake_servable"
local metrics = require "mlserve.serve.metrics"
local net = require "mlserve.net"
local process = require "spec.support.process"
local prometheus = require "spec.support.prometheus"
local raw_http = require "spec.support.raw_http"
local repository = require "mlserve.serve.repository"
local tfserving = require "mlserve.serve.protocols.tfserving"

local PAGE, TENSORFLOW_PAGE = "/metrics", "/monitoring/prometheus/metrics"
local ROW = '{"instances": [[1, 2, 3]]}'

local function lines_of(path)
  local lines = {}
  for line in (process.slurp(path) or ""):gmatch "[^\n]+" do lines[#lines + 1] = cjson.decode(line) end
  return lines
end

-- An app with the model m and its metrics, without a transport.
local function new(given)
  local models, it_ = repository.new(), app.new()
  models:add_model("m", fake_servable.new(0), 3)
  it_:mount(tfserving.routes(models))
  given = given or {}
  given.repository = models
  local watch = assert(metrics.new(given)):attach(it_)
  local function ask(method, path, body)
    return it_:handle { method = method, path = path, headers = {}, body = body or "", query = "key=hunter2" }
  end
  return ask, watch, models, it_
end

describe("metrics", function()
  it("count requests by model, version, verb and code, with their bytes and times", function()
    local ask = new()
    for _ = 1, 3 do ask("POST", "/v1/models/m:predict", ROW) end
    ask("POST", "/v1/models/m/versions/3:predict", "[")
    ask("GET", "/v1/models/m")
    local response = ask("GET", PAGE)
    assert.are.equal("text/plain; version=0.0.4; charset=utf-8", response.headers["content-type"])
    local samples, types = prometheus.parse(response.body)
    assert.are.equal(3, samples['mlserve_requests_total{model="m",version="3",verb="predict",code="200"}'])
    assert.are.equal(1, samples['mlserve_requests_total{model="m",version="3",verb="predict",code="400"}'])
    assert.are.equal(1, samples['mlserve_requests_total{model="m",version="",verb="status",code="200"}'])
    assert.are.equal(3 * #ROW + 1, samples['mlserve_request_bytes_total{model="m",version="3",verb="predict"}'])
    assert.are.equal(#ask("GET", "/v1/models/m").body,
      samples['mlserve_response_bytes_total{model="m",version="",verb="status"}'])
    assert.are.equal(4, samples['mlserve_request_seconds_count{model="m",version="3",verb="predict"}'])
    assert.are.equal("histogram", types.mlserve_request_seconds)
    assert.are.equal(1, samples['mlserve_model_state{model="m",version="3",state="AVAILABLE"}'])
    assert.are.equal(0, samples['mlserve_model_state{model="m",version="3",state="LOADING"}'])
    assert.are.equal(1, samples.mlserve_requests_in_flight) -- the one that asked
    assert.are.equal(1, samples.mlserve_processes)
    assert.is_true(samples.process_resident_memory_bytes > 1e6)
    assert.is_true(samples.process_start_time_seconds <= os.time() + 1 and samples.process_start_time_seconds > os.time() - 86400)
    assert.are.equal(1, samples['mlserve_info{version="' .. core._VERSION .. '"}'])
    assert.are.equal(405, ask("POST", PAGE).status)
  end)

  it("count gRPC's refusals under the status that REST has for them", function()
    local ask, _, _, it_ = new()
    local grpc = require "mlserve.serve.protocols.grpc"
    it_:exact("POST", "/p.S/M", grpc.unary(function(message, request)
      request.model, request.version, request.verb = "m", "3", "infer"
      if message == "" then return nil, "empty", "INVALID_ARGUMENT" end
      return message
    end))
    for _, body in ipairs { grpc.frame "x", grpc.frame "", grpc.frame "" } do
      assert.are.equal(200, it_:handle({ method = "POST", path = "/p.S/M", headers = { ["content-type"] = "application/grpc" }, body = body }).status)
    end
    local samples = prometheus.parse(ask("GET", PAGE).body)
    assert.are.equal(1, samples['mlserve_requests_total{model="m",version="3",verb="infer",code="200"}'])
    assert.are.equal(2, samples['mlserve_requests_total{model="m",version="3",verb="infer",code="400"}'])
  end)

  it("time what the handler took", function()
    local ask, _, _, it_ = new()
    it_:route("GET", "^/slow$", function()
      local till = core.clock() + 0.02
      repeat until core.clock() > till
      return { status = 200, verb = "slow" }
    end)
    ask("GET", "/slow")
    local samples = prometheus.parse(ask("GET", PAGE).body)
    local labels = 'model="",version="",verb="slow"'
    assert.is_true(samples["mlserve_request_seconds_sum{" .. labels .. "}"] >= 0.02)
    assert.are.equal(0, samples["mlserve_request_seconds_bucket{" .. labels .. ',le="0.0115683"}'])
    assert.are.equal(1, samples["mlserve_request_seconds_bucket{" .. labels .. ',le="+Inf"}'])
  end)

  it("are at TensorFlow Serving's path under its names", function()
    local ask = new()
    for _ = 1, 2 do ask("POST", "/v1/models/m:predict", ROW) end
    ask("POST", "/v1/models/m:predict", "[")
    ask("POST", "/v1/models/m/versions/9:predict", ROW)
    ask("GET", PAGE)
    local samples, types = prometheus.parse(ask("GET", TENSORFLOW_PAGE).body)
    assert.are.equal(2, samples[':tensorflow:serving:request_count{model_name="m",status="OK"}'])
    assert.are.equal(1, samples[':tensorflow:serving:request_count{model_name="m",status="INVALID_ARGUMENT"}'])
    assert.are.equal(1, samples[':tensorflow:serving:request_count{model_name="m",status="NOT_FOUND"}'])
    local labels = 'model_name="m",API="predict",entrypoint="REST"'
    assert.are.equal(2, samples[":tensorflow:serving:request_latency_count{" .. labels .. "}"])
    -- the bounds TensorFlow Serving prints: 10, 18, 32.4, …
    for i = 0, 32 do
      assert.is_truthy(samples[(":tensorflow:serving:request_latency_bucket{%s,le=\"%g\"}"):format(labels, 10 * 1.8 ^ i)], i)
    end
    assert.are.equal("histogram", types[":tensorflow:serving:request_latency"])
    assert.are.equal(2, samples['mlserve_requests_total{model="m",version="3",verb="predict",code="200"}'])
    assert.is_nil(prometheus.parse(ask("GET", PAGE).body)[':tensorflow:serving:request_count{model_name="m",status="OK"}'])
  end)

  it("take no names from callers", function()
    local ask, watch, models = new { slots = 64 }
    for i = 1, 500 do
      ask("POST", "/v1/models/evil" .. i .. ":predict", ROW)
      ask("POST", "/v1/models/m/versions/" .. i + 10 .. ":predict", ROW)
      ask("GET", '/v1/models/"\\n' .. i)
    end
    local text = watch:text()
    local samples = prometheus.parse(text)
    assert.is_nil(text:find("evil", 1, true))
    assert.are.equal(500, samples['mlserve_requests_total{model="",version="",verb="predict",code="404"}'])
    assert.are.equal(500, samples['mlserve_requests_total{model="m",version="",verb="predict",code="404"}'])
    assert.is_nil(samples['mlserve_requests_total{model="<other>",version="<other>",verb="<other>",code="<other>"}'])
    models:add_model("evil1", fake_servable.new(0)) -- a name that has become known counts as such
    ask("POST", "/v1/models/evil1:predict", ROW)
    assert.are.equal(1,
      prometheus.parse(watch:text())['mlserve_requests_total{model="evil1",version="1",verb="predict",code="200"}'])
  end)

  it("count what does not fit into the table together", function()
    local ask, watch, models = new { slots = 8 }
    for i = 10, 29 do
      models:add_model("m", fake_servable.new(0), i)
      ask("POST", "/v1/models/m/versions/" .. i .. ":predict", ROW)
    end
    local samples, by_name = prometheus.parse(watch:text()), 0
    for name, value in pairs(samples) do
      if name:find('^mlserve_requests_total{model="m"') then by_name = by_name + value end
    end
    assert.are.equal(3, by_name)
    assert.are.equal(17, samples['mlserve_requests_total{model="<other>",version="<other>",verb="<other>",code="<other>"}'])
  end)

  it("survive handlers that raise or answer nonsense, and strange labels", function()
    local ask, watch, _, it_ = new()
    local answer
    it_:route("GET", "^/x$", function() return answer end)
    it_:route("GET", "^/raise$", function() error("application error", 0) end)
    for _, each in ipairs { "text", { status = "200" }, { status = 0 / 0 }, { status = 1e300 }, { status = 200, verb = 'a"b' },
      { status = 200, model = {}, version = 7 }, { status = 404, code = 'x"\n' }, { status = 201, body = 5 } } do
      answer = each
      pcall(ask, "GET", "/x")
    end
    answer = nil
    pcall(ask, "GET", "/x")
    local ok, message = pcall(ask, "GET", "/raise")
    assert.are.same({ false, "application error" }, { ok, message })
    local samples = prometheus.parse(watch:text(true))
    assert.are.equal(7, samples['mlserve_requests_total{model="",version="",verb="",code="500"}'])
    assert.are.equal(2, samples['mlserve_requests_total{model="",version="",verb="",code="200"}'])
    assert.are.equal(0, samples.mlserve_requests_in_flight)
  end)

  it("tell why a model is not served, without what ended well", function()
    local _, watch, models = new()
    models.list = function() return { "1", "2" } end
    models.loader = function() return nil, 'cannot "open"\n\\ \255', "DATA_LOSS" end
    models:add_directory("bad", "models/bad")
    models:unload("m")
    local text = watch:text()
    local samples = prometheus.parse(text)
    assert.are.equal(1, samples['mlserve_model_state{model="bad",version="2",state="END"}'])
    assert.are.equal(1,
      samples['mlserve_model_load_error{model="bad",version="2",code="DATA_LOSS",message="cannot \\"open\\"?\\\\ ?"}'])
    assert.is_nil(text:find('model_state{model="m"', 1, true))
  end)

  it("take series of others", function()
    local _, watch = new()
    for _, rows in ipairs { 1, 3, 64 } do watch:observe("batch_size", rows, "m", "3") end
    watch:observe("queue_seconds", 0.00002, "m", "3")
    watch:count("queue_length", 5, "m")
    watch:count("queue_length", -2, "m")
    watch:count("queue_rejected", 7)
    local samples, types = prometheus.parse(watch:text(true))
    assert.are.equal(2, samples['mlserve_batch_size_bucket{model="m",version="3",le="4"}'])
    assert.are.equal(68, samples['mlserve_batch_size_sum{model="m",version="3"}'])
    assert.are.equal(1, samples['mlserve_queue_seconds_bucket{model="m",version="3",le="3.24e-05"}'])
    assert.are.equal(0, samples['mlserve_queue_seconds_bucket{model="m",version="3",le="1.8e-05"}'])
    assert.are.equal(20, samples[':tensorflow:serving:batching_session:queuing_latency_sum{model="m",version="3"}'])
    assert.are.equal(3, samples['mlserve_queue_length{model="m"}'])
    assert.are.equal("gauge", types.mlserve_queue_length)
    assert.are.equal(7, samples.mlserve_queue_rejected_total)
    assert.has_error(function() watch:count("nothing", 1) end)
  end)

  it("add up what forked processes count", function()
    local ask, watch = new()
    ask("POST", "/v1/models/m:predict", ROW) -- the parent's series are known before the fork
    local children = {}
    for i = 1, 2 do
      local pid = assert(net.fork())
      if pid == 0 then
        local ok = pcall(function()
          for _ = 1, 500 do ask("POST", "/v1/models/m:predict", ROW) end
          ask("GET", "/v1/models/m")
        end)
        net.kill(net.getpid(), ok and 9 or 15) -- no exit handlers of this spec's framework
      end
      children[i] = pid
    end
    for _, pid in ipairs(children) do
      local ended, how, number
      process.wait(10, function()
        ended, how, number = net.reap(pid)
        return ended
      end)
      assert.are.same({ pid, "signal", 9 }, { ended, how, number })
    end
    local samples = prometheus.parse(watch:text())
    assert.are.equal(1001, samples['mlserve_requests_total{model="m",version="3",verb="predict",code="200"}'])
    assert.are.equal(2, samples['mlserve_requests_total{model="m",version="",verb="status",code="200"}'])
    assert.are.equal(1, samples.mlserve_processes)
  end)

  it("can be elsewhere, or only in part", function()
    local models = repository.new()
    local function status(given, access_log)
      local it_, codes = app.new(), {}
      assert(metrics.watch(it_, models, given, access_log, print))
      for i, path in ipairs { PAGE, TENSORFLOW_PAGE, "/a.b", "/axb" } do
        codes[i] = it_:handle({ method = "GET", path = path, headers = {}, body = "" }).status
      end
      return codes
    end
    assert.are.same({ 200, 200, 404, 404 }, status(true))
    assert.are.same({ 404, 404, 404, 404 }, status(false))
    assert.are.same({ 404, 404, 404, 404 }, status(false, "/dev/null"))
    assert.are.same({ 200, 404, 200, 404 }, status { tensorflow_path = "/a.b" })
    assert.are.same({ 404, 404, 200, 404 }, status { tensorflow_path = false, path = "/a.b" })
    assert.has_error(function() metrics.watch(app.new(), models, { paths = 1 }, nil, print) end)
    local ok, message = metrics.watch(app.new(), models, true, "/nowhere/at/all", print)
    assert.is_nil(ok)
    assert.is_truthy(message:find("/nowhere/at/all", 1, true))
  end)

  it("read TensorFlow Serving's monitoring file", function()
    assert.are.same({ enable = true, path = "/x/y" },
      metrics.parse_config 'prometheus_config {\n  enable: true, # yes\n  path: "/x/y"\n}\n')
    assert.are.same({ enable = true }, metrics.parse_config "prometheus_config: { enable:true }")
    assert.are.same({ enable = false }, metrics.parse_config "")
    assert.are.same({ enable = false, path = "/p" }, metrics.parse_config "prometheus_config { path: '/p' }")
    for text, part in pairs {
      ["prometheus_config { enable: maybe }"] = "true or false", ["prometheus_config { path: x }"] = "path",
      ["prometheus_config { port: 1 }"] = "unknown field 'port'", ["prometheus_config {"] = "expected",
      ["other { }"] = "unknown field 'other'", ["prometheus_config { nonsense }"] = "unknown field",
    } do
      local config, message = metrics.parse_config(text)
      assert.is_nil(config)
      assert.is_truthy(message:find(part, 1, true), text .. " -> " .. message)
    end
    assert.is_truthy(select(2, metrics.read_config("/nowhere")):find("/nowhere", 1, true))
  end)
end)

describe("the access log", function()
  it("has a line of JSON for each request, and no secrets", function()
    local path = os.tmpname()
    local ask, watch, _, it_ = new { access_log = path }
    it_:handle { method = "POST", path = "/v1/models/m:predict", headers = { authorization = "Bearer hunter2" }, body = ROW,
      query = "key=hunter2", peer = "127.0.0.1:5" }
    ask("GET", '/"\\\0\255')
    ask("GET", "/v1/models/" .. ("x"):rep(5000))
    watch:tick()
    local text, lines = process.slurp(path), lines_of(path)
    assert.is_nil(text:find("hunter2", 1, true))
    assert.are.equal(3, #lines)
    local first = lines[1]
    assert.is_truthy(first.time:find("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$"))
    assert.is_true(first.seconds >= 0 and first.seconds < 10)
    first.time, first.seconds = nil, nil
    assert.are.same({ peer = "127.0.0.1:5", method = "POST", path = "/v1/models/m:predict", status = 200, model = "m", version = "3",
      verb = "predict", request_bytes = #ROW, response_bytes = #ask("POST", "/v1/models/m:predict", ROW).body }, first)
    assert.are.same({ 404, '/"\\\0\239\191\189' }, { lines[2].status, lines[2].path })
    assert.are.equal(1024, #lines[3].path)
    os.remove(path)
  end)

  it("counts lines that could not be written, and complains once", function()
    local complaints = {}
    local ask, watch = new { access_log = "/dev/full", log = function(_, message) complaints[#complaints + 1] = message end }
    for _ = 1, 2 do
      for _ = 1, 3 do ask("GET", "/x") end
      watch:tick()
    end
    assert.are.equal(6, prometheus.parse(watch:text()).mlserve_access_log_lost_lines_total)
    assert.are.equal(1, #complaints)
    assert.is_truthy(complaints[1]:find("/dev/full", 1, true))
  end)
end)

describe("a server's metrics and access log", function()
  local directory, child, port

  local function start(options)
    directory = process.directory()
    process.write(directory .. "/server.lua", ([[
      local fake_servable = require "spec.support.fake_servable"
      local server = assert(require("mlserve.serve.server") { %s })
      server:add_model("m", fake_servable.new(0))
      os.exit(server:run() and 0 or 1)
    ]]):format(options))
    child = process.spawn_lua(directory .. "/server.lua")
    port = tonumber(child:expect "listening on http://127%.0%.0%.1:(%d+)")
  end

  after_each(function()
    if child then child:stop() end
    os.execute("rm -rf " .. process.quote(directory))
    child = nil
  end)

  local function page(path) return prometheus.parse(raw_http.request(port, "GET", path or PAGE).body) end

  it("count what came over sockets, refused heads too", function()
    start "rest = { port = 0, head_timeout = 0.2 }"
    for _ = 1, 5 do raw_http.request(port, "POST", "/v1/models/m:predict", ROW) end
    raw_http.request(port, "GET", "/v1/models/none")
    local connection = raw_http.connect(port)
    connection:send "NONSENSE\r\n\r\n"
    assert.are.equal(400, connection:response().status)
    connection:close()
    local samples = page(TENSORFLOW_PAGE)
    assert.are.equal(5, samples['mlserve_requests_total{model="m",version="1",verb="predict",code="200"}'])
    assert.are.equal(5, samples[':tensorflow:serving:request_count{model_name="m",status="OK"}'])
    assert.are.equal(1, samples['mlserve_requests_total{model="",version="",verb="status",code="404"}'])
    assert.are.equal(1, samples['mlserve_requests_total{model="",version="",verb="",code="400"}'])
    assert.are.equal(1, page()['mlserve_requests_total{model="",version="",verb="metrics",code="200"}'])
  end)

  it("are off when they are not wanted", function()
    start "rest = { port = 0 }, metrics = false"
    assert.are.equal(404, raw_http.request(port, "GET", PAGE).status)
    assert.are.equal(404, raw_http.request(port, "GET", TENSORFLOW_PAGE).status)
  end)

  it("write each second, begin anew on SIGUSR1 and after a move, and write the rest at the end", function()
    local log = os.tmpname()
    start(("rest = { port = 0 }, access_log = %q"):format(log))
    raw_http.request(port, "GET", "/v1/models/m?key=hunter2")
    assert.is_truthy(process.wait(5, function() return #lines_of(log) == 1 end), "not written after some seconds")
    local line = lines_of(log)[1]
    assert.are.same({ "GET", "/v1/models/m", 200 }, { line.method, line.path, line.status })
    assert.is_truthy(line.peer:find("^127%.0%.0%.1:%d+$"))
    os.rename(log, log .. ".1") -- moved: noticed without a signal
    assert.is_truthy(process.wait(5, function() return process.slurp(log) end))
    raw_http.request(port, "GET", "/a")
    assert.is_truthy(process.wait(5, function() return #lines_of(log) == 1 end))
    os.rename(log, log .. ".2")
    child:signal "USR1"
    assert.is_truthy(process.wait(5, function() return process.slurp(log) end))
    local connection = raw_http.connect(port)
    connection:send "NONSENSE\r\n\r\n"
    connection:response()
    connection:close()
    raw_http.request(port, "GET", "/b")
    assert.are.equal(0, child:stop())
    child = nil
    local lines = lines_of(log)
    assert.are.equal(2, #lines)
    assert.are.same({ "-", 400, "/b", 404 }, { lines[1].path, lines[1].status, lines[2].path, lines[2].status })
    assert.are.same({ 1, 1 }, { #lines_of(log .. ".1"), #lines_of(log .. ".2") })
    for _, suffix in ipairs { "", ".1", ".2" } do os.remove(log .. suffix) end
  end)

  it("count what batching does", function()
    directory = process.directory()
    process.write(directory .. "/server.lua", [[
      local core = require "mlserve.core"
      local graph = core.graph "sum"
      local x = graph:input("x", "float32", { -1, 3 })
      graph:output(graph:node("MatMul", { x, graph:initializer("ones", core.tensor { { 1 }, { 1 }, { 1 } }) }), "y")
      local server = assert(require("mlserve.serve.server") { rest = { port = 0 },
        batching = { mode = "always", batch_timeout_micros = 20000, max_batch_size = 16, num_batch_threads = 1 } })
      server:add_model("m", core.servable(core.program(graph), { model = "m", version = 1 }))
      os.exit(server:run() and 0 or 1)
    ]])
    child = process.spawn_lua(directory .. "/server.lua")
    port = tonumber(child:expect "listening on http://127%.0%.0%.1:(%d+)")
    local loop, good = cqueues.new(), 0
    for _ = 1, 8 do
      loop:wrap(function()
        for _ = 1, 5 do
          if raw_http.request(port, "POST", "/v1/models/m:predict", ROW).status == 200 then good = good + 1 end
        end
      end)
    end
    assert(loop:loop(30))
    assert.are.equal(40, good)
    local samples, types = page(TENSORFLOW_PAGE)
    local labels = '{model="m",version="1"}'
    assert.are.equal(40, samples["mlserve_batch_size_sum" .. labels]) -- every row, however they were merged
    assert.is_true(samples["mlserve_batch_size_count" .. labels] < 40, "nothing was merged")
    assert.are.equal(40, samples["mlserve_queue_seconds_count" .. labels])
    assert.is_true(samples["mlserve_queue_seconds_sum" .. labels] > 0.001)
    assert.are.equal(0, samples["mlserve_queue_length" .. labels])
    assert.are.equal("histogram", types[":tensorflow:serving:batching_session:processed_batch_size"])
    assert.are.equal(40, samples[":tensorflow:serving:batching_session:processed_batch_size_sum" .. labels])
  end)

  it("are those of all workers, the killed ones included, and SIGUSR1 reaches every one", function()
    local log = os.tmpname()
    start(("rest = { port = 0, workers = 2 }, access_log = %q"):format(log))
    local function ask(n)
      for _ = 1, n do assert.are.equal(200, raw_http.request(port, "POST", "/v1/models/m:predict", ROW).status) end
    end
    -- connections are shared out as the workers take them: until both have
    local samples
    local asked = 0
    assert.is_truthy(process.wait(20, function()
      ask(20)
      asked = asked + 20
      samples = page()
      return samples.mlserve_processes == 2
    end), "one worker got every request")
    local name = 'mlserve_requests_total{model="m",version="1",verb="predict",code="200"}'
    assert.are.equal(asked, samples[name])
    assert.are.equal(1, samples.mlserve_requests_in_flight)
    local pipe = io.popen("ps -o pid= --ppid " .. child.pid)
    local victim = tonumber(pipe:read "*l")
    pipe:close()
    os.execute("kill -9 " .. victim)
    child:expect "process %d+%) ended" -- and is replaced
    ask(5)
    assert.are.equal(asked + 5, page()[name])
    os.rename(log, log .. ".1")
    child:signal "USR1"
    assert.is_truthy(process.wait(5, function() return process.slurp(log) end))
    for _ = 1, 10 do raw_http.request(port, "GET", "/after") end
    assert.are.equal(0, child:stop())
    child = nil
    local after = 0
    for _, line in ipairs(lines_of(log)) do -- beside what had not been written before
      if line.path == "/after" then after = after + 1 end
    end
    assert.are.equal(10, after)
    os.remove(log)
    os.remove(log .. ".1")
  end)

  it("may go to standard output", function()
    start 'rest = { port = 0 }, access_log = "-"'
    raw_http.request(port, "GET", "/here")
    assert.are.equal("/here", cjson.decode(child:expect('\n({"time"[^\n]+})\n')).path)
  end)
end)
