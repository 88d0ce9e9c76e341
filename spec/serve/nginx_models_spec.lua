-- Real models in a real nginx: the thread pool, new versions, scores and their budget.

local cjson = require "cjson"
local nginx_of = require "spec.support.nginx"
local process = require "spec.support.process"
local prometheus = require "spec.support.prometheus"
local raw_http = require "spec.support.raw_http"

local quote = process.quote

local function mlserve(arguments)
  local command = string.format("env LUA_PATH=%s LUA_CPATH=%s %s bin/mlserve %s >/dev/null 2>&1", quote(package.path), quote(package.cpath),
    process.lua, arguments)
  local status = os.execute(command)
  assert(status == true or status == 0, command)
end

describe("models in nginx", function()
  local models, nginx, port, directory
  local row = { 17.99, 10.38, 122.8, 1001, 0.1184, 0.2776, 0.3001, 0.1471, 0.2419, 0.07871, 1.095, 0.9053, 8.589, 153.4, 0.006399, 0.04904,
    0.05373, 0.01587, 0.03003, 0.006193, 25.38, 17.33, 184.6, 2019, 0.1622, 0.6656, 0.7119, 0.2654, 0.4601, 0.1189 }
  local text = table.concat(row, ",")

  local function body(rows)
    local items = {}
    for i = 1, rows do items[i] = "[" .. text .. "]" end
    return '{"instances":[' .. table.concat(items, ",") .. "]}"
  end

  setup(function()
    models = process.directory()
    mlserve("train --data examples/data/breast_cancer.csv --label diagnosis --epochs 3 -q -o " .. models .. "/cheap")
    mlserve("train --data examples/data/breast_cancer.csv --label diagnosis --epochs 1 --layers 2000,2000 -q -o " .. models .. "/heavy")
    os.execute("chmod -R a+rX " .. models)
  end)
  teardown(function() os.execute("rm -rf " .. quote(models)) end)

  after_each(function()
    if nginx then
      nginx:stop()
      os.execute("rm -rf " .. quote(directory))
    end
    nginx = nil
  end)

  local POOL = "thread_pool mlserve threads=2;"
  local SERVE = 'location /v1/ { content_by_lua_block { require("mlserve.nginx").handler() } }\n'
    .. 'location /ping { content_by_lua_block { ngx.print("pong") } }\n'

  local function start(more, given)
    given = given or {}
    given.init = string.format('assert(require("mlserve.nginx").init { models = { cheap = %q, heavy = %q }, watch = 0.1, inline = 50,\n%s })',
      given.cheap or models .. "/cheap", models .. "/heavy", more or "")
    given.main = given.main or POOL
    given.server = SERVE .. (given.server or "")
    given.http = 'init_worker_by_lua_block { require("mlserve.nginx").init_worker() }'
    nginx, port, directory = nginx_of.start(given)
  end

  -- the answer of the command line, which no part of nginx takes part in
  local function expected(model)
    local file = process.directory() .. "/rows.csv"
    local head = assert(process.slurp "examples/data/breast_cancer.csv"):match "^[^\n]*"
    process.write(file, (head:gsub(",?diagnosis", "")) .. "\n" .. text .. "\n")
    local pipe = io.popen(string.format("env LUA_PATH=%s LUA_CPATH=%s %s bin/mlserve predict %s --data %s 2>&1", quote(package.path),
      quote(package.cpath), process.lua, models .. "/" .. model, file))
    local out = pipe:read "*a"
    pipe:close()
    os.execute("rm -rf " .. quote(file:match "^(.*)/"))
    return assert(tonumber(out:match "([%d.eE+-]+)%s*$"), out) -- the share of "malignant"
  end

  it("answers from the event loop and from the thread pool alike", function()
    start()
    nginx:expect "model 'cheap' version 1: %d+ us a request, bodies up to %d+ bytes in the event loop"
    nginx:expect "model 'heavy' version 1: %d+ us a request, in the thread pool"
    for _, name in ipairs { "cheap", "heavy" } do
      local one = raw_http.request(port, "POST", "/v1/models/" .. name .. ":predict", body(1))
      assert.are.equal(200, one.status, one.body)
      local score = cjson.decode(one.body).predictions[1][1]
      assert.is_true(math.abs(score - expected(name)) < 1e-6)
      local many = cjson.decode(raw_http.request(port, "POST", "/v1/models/" .. name .. ":predict", body(1500), nil, 30).body).predictions
      assert.are.equal(1500, #many)
      assert.is_true(math.abs(many[1500][1] - score) < 1e-5)
    end
    local refused = raw_http.request(port, "POST", "/v1/models/heavy:predict", '{"instances": [[1, 2]]}')
    assert.are.equal(400, refused.status)
    assert.truthy(cjson.decode(refused.body).error:find("30", 1, true), refused.body)
  end)

  it("merges requests of its threads", function()
    start('batching = { models = { heavy = { batch_timeout_micros = 3000000, max_batch_size = 2 } } },', { server = [[
      location /stats { content_by_lua_block {
        local stats = require("mlserve.nginx").repository():get("heavy").servable:batch_stats()
        ngx.print(stats and stats.jobs .. " " .. stats.merged .. " " .. stats.largest or "none")
      } }
    ]] })
    nginx:expect "model 'heavy' version 1: .- in the thread pool"
    local request, connections = body(1), {}
    for i = 1, 2 do
      connections[i] = raw_http.connect(port)
      connections[i]:send(("POST /v1/models/heavy:predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"):format(#request, request))
    end
    for i = 1, 2 do
      local response = connections[i]:response(10)
      assert.are.equal(200, response.status, response.body)
      assert.is_true(math.abs(cjson.decode(response.body).predictions[1][1] - expected "heavy") < 1e-6)
      connections[i]:close()
    end
    assert.are.equal("2 2 2", raw_http.request(port, "GET", "/stats").body)
  end)

  it("answers others while a model works", function()
    start()
    nginx:expect "model 'heavy' version 1: .- in the thread pool"
    local slow, quick = raw_http.connect(port), raw_http.connect(port)
    local request = body(6000)
    slow:send(("POST /v1/models/heavy:predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"):format(#request, request))
    local pongs = 0
    local answered
    repeat -- one worker: it answers both
      quick:send "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
      assert.are.equal("pong", quick:response().body)
      pongs = pongs + 1
      answered = slow:response(0.001)
    until answered or pongs > 100000
    assert.are.equal(200, answered.status)
    assert.is_true(pongs >= 5, pongs)
    slow:close()
    quick:close()
  end)

  it("serves without a thread pool, and says what that means", function()
    start(nil, { main = "" })
    nginx:expect "thread pool 'mlserve' cannot be used %(.-%): nginx.conf needs `thread_pool mlserve threads=4;`"
    nginx:expect "model 'heavy' version 1 takes .- ms; requests hold up the worker"
    assert.are.equal(200, raw_http.request(port, "POST", "/v1/models/heavy:predict", body(1)).status)
  end)

  it("refuses what would wait too long", function()
    start 'pool_states = 1, pool_queue = 1,'
    nginx:expect "model 'heavy' version 1: .- in the thread pool"
    local request, connections, codes = body(4000), {}, {}
    for i = 1, 4 do
      connections[i] = raw_http.connect(port)
      connections[i]:send(("POST /v1/models/heavy:predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"):format(#request, request))
    end
    for i = 1, 4 do
      local status = connections[i]:response(30).status
      codes[status] = (codes[status] or 0) + 1
      connections[i]:close()
    end
    assert.are.same({ [200] = 2, [503] = 2 }, codes)
  end)

  it("merges requests of several clients into one run", function()
    start('batching = { mode = "always", max_batch_size = 4, batch_timeout_micros = 1000000 },', { main = "thread_pool mlserve threads=8;", server = [[
      location /stats { content_by_lua_block {
        ngx.print(require("cjson").encode(require("mlserve.nginx").repository():get("heavy").servable:batch_stats())) } }]] })
    nginx:expect "model 'heavy' version 1: .- in the thread pool"
    local request, connections = body(1), {}
    for i = 1, 4 do
      connections[i] = raw_http.connect(port)
      connections[i]:send(("POST /v1/models/heavy:predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"):format(#request, request))
    end
    for i = 1, 4 do
      local response = connections[i]:response(30)
      assert.are.equal(200, response.status)
      assert.is_true(math.abs(cjson.decode(response.body).predictions[1][1] - expected "heavy") < 1e-5)
      connections[i]:close()
    end
    local stats = cjson.decode(raw_http.request(port, "GET", "/stats").body)
    assert.is_true(stats.merged >= 2 and stats.largest >= 2, cjson.encode(stats))
  end)

  it("takes new versions in every worker, keeps the old one when a new one is bad", function()
    local base = process.directory()
    os.execute(string.format("cp -r %s/cheap/1 %s/1; chmod -R a+rX %s", models, base, base))
    start(nil, { cheap = base, workers = 2 })
    local function versions_seen(version)
      local count = 0
      for _ = 1, 20 do
        local response = raw_http.request(port, "GET", "/v1/models/cheap")
        assert.are.equal(200, response.status)
        local newest = cjson.decode(response.body).model_version_status[1]
        if newest.version == version and newest.state == "AVAILABLE" then count = count + 1 end
        assert.are.equal(200, raw_http.request(port, "POST", "/v1/models/cheap:predict", body(1)).status)
      end
      return count == 20
    end
    assert.is_true(versions_seen "1")
    os.execute(string.format("cp -r %s/cheap/1 %s/.2; chmod -R a+rX %s; mv %s/.2 %s/2", models, base, base, base, base))
    assert.is_true(process.wait(20, function() return versions_seen "2" end))
    os.execute(string.format("mkdir %s/.3; echo rubbish >%s/.3/model.onnx; mv %s/.3 %s/3", base, base, base, base))
    nginx:expect "model 'cheap' version 3: [^\n]+"
    assert.are.equal(200, raw_http.request(port, "POST", "/v1/models/cheap:predict", body(1)).status)
    assert.are.equal(200, raw_http.request(port, "POST", "/v1/models/cheap/versions/2:predict", body(1)).status)
    assert.are.equal(404, raw_http.request(port, "POST", "/v1/models/cheap/versions/1:predict", body(1)).status)
    os.execute("rm -rf " .. quote(base)) -- what vanishes unloads nothing
    require("cqueues").sleep(0.5)
    assert.are.equal(200, raw_http.request(port, "POST", "/v1/models/cheap:predict", body(1)).status)
  end)

  it("scores within a budget: from features told in the configuration", function()
    local specs = {}
    for i, value in ipairs(row) do specs[i] = tostring(value) end
    specs[1], specs[2] = '{ header = "X-Radius", default = 1 }', '{ json = "cell.texture.1" }'
    specs[3], specs[4] = '{ arg = "p", default = 122.8 }', '{ cookie = "area", default = 1001 }'
    specs = table.concat(specs, ", ")
    start('scores = { cheap = { model = "cheap", features = { ' .. specs .. ' }, header = "x-score", fallback = 7, deny = { above = 5, status = 429, '
      .. 'body = "too risky" } }, hurried = { model = "heavy", features = { ' .. specs .. ' }, budget = 1, fallback = -1, header = "x-score" },'
      .. 'patient = { model = "heavy", features = { ' .. specs .. ' }, budget = 20000000, fallback = -1, header = "x-score" } },',
      { server = [[
        location ~ ^/score/(\w+)$ { access_by_lua_block { require("mlserve.nginx").score(ngx.var[1]) }
          content_by_lua_block { ngx.print(ngx.var.http_x_score) } }
        location /within { content_by_lua_block {
          local pools = require "mlserve.serve.transports.nginx_pool"
          local pool = pools.new { name = "mlserve", states = 2, queue = 1, wait = 5, inline = 0 }
          local model = pool:serve(require("mlserve.nginx").repository():get("heavy").servable.servable)
          assert(pool:usable())
          ngx.req.read_body()
          local body = ngx.req.get_body_data() or io.open(ngx.req.get_body_file()):read "*a"
          ngx.say(tostring(pool:within(0.001, model.predict_json, model, body)), " ", pool.running, " ", model.busy)
          local in_time, answer = pool:within(30, model.predict_json, model, '{"instances": []}')
          ngx.say(tostring(in_time), " ", type(answer), " ", pool.running, " ", model.busy)
        } }]] })
    nginx:expect "model 'heavy' version 1: .- in the thread pool"
    local function score(path, given, fields)
      return raw_http.request(port, given and "POST" or "GET", path, given, fields)
    end
    local want = cjson.decode(raw_http.request(port, "POST", "/v1/models/cheap:predict", body(1)).body).predictions[1][1]
    local response = score("/score/cheap", '{"cell": {"texture": [10.38]}}', { ["x-radius"] = "17.99", ["x-score"] = "forged" })
    assert.is_true(math.abs(tonumber(response.body) - want) < 1e-6, response.body)
    local other = score("/score/cheap?p=60", '{"cell": {"texture": [10.38]}}', { ["x-radius"] = "6", cookie = "area=150" })
    assert.is_true(tonumber(other.body) ~= tonumber(response.body))
    response = score "/score/cheap" -- no texture: the fallback decides
    assert.are.same({ 429, "too risky" }, { response.status, response.body })
    response = score("/score/hurried", '{"cell": {"texture": [10.38]}}')
    assert.are.same({ 200, "-1" }, { response.status, response.body })
    response = score("/score/patient", '{"cell": {"texture": [10.38]}}')
    assert.is_true(tonumber(response.body) >= 0 and tonumber(response.body) <= 1, response.body)
    assert.are.equal("false 0 0\ntrue nil 0 0\n", raw_http.request(port, "POST", "/within", body(6000), nil, 40).body)
  end)

  it("runs from the command line, and ends with nginx", function()
    local temporary, log, monitoring = process.directory(), os.tmpname(), os.tmpname()
    process.write(monitoring, 'prometheus_config { enable: true path: "/watch" }')
    local server = process.spawn(string.format("env TMPDIR=%s LUA_PATH=%s LUA_CPATH=%s %s bin/mlserve serve --transport nginx --rest-port 0 "
      .. "--workers 2 --model cheap=%s/cheap --access-log %s --monitoring_config_file %s", temporary, quote(package.path),
      quote(package.cpath), process.lua, models, quote(log), quote(monitoring)))
    local address = tonumber(server:expect("listening on http://127%.0%.0%.1:(%d+) %(nginx, 2 workers%)", 20))
    assert.are.equal(200, raw_http.request(address, "POST", "/v1/models/cheap:predict", body(1)).status)
    for _, path in ipairs { "/metrics", "/watch" } do
      local samples = prometheus.parse(raw_http.request(address, "GET", path).body)
      assert.are.equal(1, samples['mlserve_requests_total{model="cheap",version="1",verb="predict",code="200"}'], path)
    end
    assert.are.equal(404, raw_http.request(address, "GET", "/monitoring/prometheus/metrics").status)
    server:signal "TERM"
    assert.are.equal(0, server:code(15))
    assert.are.equal(4, select(2, process.slurp(log):gsub("\n", "")))
    os.remove(log)
    os.remove(monitoring)
    assert.has_error(function() raw_http.connect(address) end)
    local pipe = io.popen("ls -A " .. temporary)
    assert.are.equal("", pipe:read "*a")
    pipe:close()
    server:stop()
    server = process.spawn(string.format("env LUA_PATH=%s LUA_CPATH=%s %s bin/mlserve serve --transport nginx --nginx /nonexistent/nginx --model a=b",
      quote(package.path), quote(package.cpath), process.lua))
    assert.are.equal(1, server:code(10))
    assert.truthy(server:log():find("'/nonexistent/nginx' cannot be run", 1, true))
    server:stop()
    os.execute("rm -rf " .. quote(temporary))
  end)
end)
