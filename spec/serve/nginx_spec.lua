-- The example configuration in a real nginx, with models that need no core.

local cjson = require "cjson"
local cqueues = require "cqueues"
local grpc_curl = require "spec.support.grpc_curl"
local process = require "spec.support.process"
local prometheus = require "spec.support.prometheus"
local raw_http = require "spec.support.raw_http"
local socket = require "cqueues.socket"

-- a port that was free a moment ago
local function free_port()
  local listener = assert(socket.listen { host = "127.0.0.1", port = "0", reuseaddr = true })
  assert(listener:listen())
  local _, _, port = listener:localname()
  listener:close()
  return tonumber(port)
end

local function read(path) return assert(process.slurp(path), path) end

local function root()
  local pipe = io.popen "pwd"
  local path = pipe:read "*l"
  pipe:close()
  return path
end

describe("the nginx transport", function()
  local nginx, port, grpc_port, prefix

  local function start(init, more)
    local conf, count = read "examples/nginx/nginx.conf", 0
    prefix, port = process.directory(), free_port()
    local function replace(what, by)
      local from, to = conf:find(what, 1, true)
      assert(from, what)
      conf, count = conf:sub(1, from - 1) .. by .. conf:sub(to + 1), count + 1
    end
    repeat grpc_port = free_port() until grpc_port ~= port
    replace("127.0.0.1:8080;", "127.0.0.1:" .. port .. ";\n" .. (more or ""))
    replace("127.0.0.1:8500 http2;", "127.0.0.1:" .. grpc_port .. " http2;")
    replace("$prefix/../../lua/?.lua;$prefix/../../lua/?/init.lua;", ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;"):format(
      root(), root(), root()))
    local build = os.getenv "BUILD" or "build"
    replace("$prefix/../../build/", (build:find "^/" and build or root() .. "/" .. build) .. "/")
    replace("client_body_buffer_size 1m;", "client_body_buffer_size 8k;")
    process.write(prefix .. "/nginx.conf", conf)
    process.write(prefix .. "/access.lua", read "examples/nginx/access.lua")
    process.write(prefix .. "/init.lua", init)
    nginx = process.spawn("nginx -p " .. prefix .. " -c nginx.conf")
    assert(process.wait(10, function()
      return nginx:code() or pcall(function() raw_http.connect(port):close() end)
    end))
    assert(not nginx:code(), nginx:log())
  end

  after_each(function()
    if nginx then
      nginx:stop()
      os.execute("rm -rf " .. process.quote(prefix))
    end
    nginx = nil
  end)

  local FAKE = [[
    local fake = require "spec.support.fake_servable"
    require("mlserve.nginx").init { models = { cancer = fake.new(0) } }
  ]]

  it("answers the REST protocol", function()
    start(FAKE)
    local response = raw_http.request(port, "POST", "/v1/models/cancer:predict?x=1", '{"instances": [[1, 2, 3], [4, 5, 6]]}')
    assert.are.same({ 200, "application/json" }, { response.status, response.headers["content-type"] })
    assert.are.same({ predictions = { { 6 }, { 15 } } }, cjson.decode(response.body))
    assert.are.equal("AVAILABLE",
      cjson.decode(raw_http.request(port, "GET", "/v1/models/cancer").body).model_version_status[1].state)
    response = raw_http.request(port, "GET", "/v1/models/none")
    assert.are.same({ 404, "Could not find any versions of model none" }, { response.status, cjson.decode(response.body).error })
    response = raw_http.request(port, "POST", "/v1/models/c%61ncer:predict", "")
    assert.are.same({ 400, "JSON Parse error: The document is empty" }, { response.status, cjson.decode(response.body).error })
    response = raw_http.request(port, "PUT", "/v1/models/a%2Fb", "x")
    assert.are.equal("Malformed request: PUT /v1/models/a%2Fb", cjson.decode(response.body).error)
  end)

  it("answers gRPC", function()
    start(FAKE)
    for message, expected in pairs { [""] = { "0", "\0\0\0\0\2\8\1" }, ["\10\6cancer"] = { "0", "\0\0\0\0\2\8\1" }, ["\10\1x"] = { "5", "" } } do
      local response = grpc_curl.request(("http://127.0.0.1:%d/grpc.health.v1.Health/Check"):format(grpc_port), {
        body = "\0\0\0\0" .. string.char(#message) .. message,
      })
      assert.are.same(expected, { response.fields["grpc-status"], response.body })
    end
    local response = grpc_curl.request(("http://127.0.0.1:%d/no.Such/Method"):format(grpc_port), { body = "\0\0\0\0\0" })
    assert.are.same({ "12", "unknown service no.Such" }, { response.fields["grpc-status"], response.fields["grpc-message"] })
    response = grpc_curl.request(("http://127.0.0.1:%d/v1/models/cancer"):format(grpc_port), { method = "GET" }) -- REST over HTTP/2
    assert.are.same({ 200, "2" }, { response.status, response.version })
    assert.are.equal("AVAILABLE", cjson.decode(response.body).model_version_status[1].state)
  end)

  it("reads bodies that nginx keeps in a file, and chunked ones", function()
    start(FAKE)
    local rows = {}
    for i = 1, 20000 do rows[i] = "[" .. i .. ",1]" end
    local body = '{"instances":[' .. table.concat(rows, ",") .. "]}"
    local response = raw_http.request(port, "POST", "/v1/models/cancer:predict", body)
    assert.are.equal(20001, cjson.decode(response.body).predictions[20000][1])
    local connection = raw_http.connect(port)
    connection:send("POST /v1/models/cancer:predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. '10\r\n{"instances":[[1\r\n5\r\n,2]]}\r\n0\r\n\r\n')
    assert.are.same({ predictions = { { 3 } } }, cjson.decode(connection:response().body))
    connection:close()
  end)

  it("takes and gives compressed bodies", function()
    start(FAKE)
    local net, rows = require "mlserve.net", {}
    for i = 1, 2000 do rows[i] = "[" .. i .. ",1]" end
    local body = net.deflate("gzip", '{"instances":[' .. table.concat(rows, ",") .. "]}", 6)
    local response = raw_http.request(port, "POST", "/v1/models/cancer:predict", body, { ["content-encoding"] = "gzip",
      ["accept-encoding"] = "gzip" })
    assert.are.same({ 200, "gzip", "Accept-Encoding" }, { response.status, response.headers["content-encoding"], response.headers.vary })
    assert.are.equal(2001, cjson.decode(net.inflate("gzip", response.body, 0, 0)).predictions[2000][1])
    response = raw_http.request(port, "POST", "/v1/models/cancer:predict", '{"instances":[[1,2]]}', { ["accept-encoding"] = "gzip" })
    assert.are.same({ 200 }, { response.status, response.headers["content-encoding"] })
    response = raw_http.request(port, "POST", "/v1/models/cancer:predict", "x", { ["content-encoding"] = "gzip" })
    assert.are.equal(400, response.status)
  end)

  it("scores in the access phase: refuses, or passes with the score", function()
    start(FAKE)
    local response = raw_http.request(port, "GET", "/account/", nil, { ["x-features"] = "0.25, 0.5,-0.125" })
    assert.are.same({ 200, "0.625", "welcome\n" }, { response.status, response.headers["x-risk"], response.body })
    response = raw_http.request(port, "GET", "/account/", nil, { ["x-features"] = "0.5,0.5" })
    assert.are.same({ 403, "1" }, { response.status, response.headers["x-risk"] })
    response = raw_http.request(port, "POST", "/account/", '{"features": [0.5, 0.25]}')
    assert.are.same({ 200, "0.75" }, { response.status, response.headers["x-risk"] })
    response = raw_http.request(port, "POST", "/account/", '{"features": [0.5' .. (",0"):rep(20000) .. "]}")
    assert.are.same({ 200, "0.5" }, { response.status, response.headers["x-risk"] })
    for _, features in ipairs { "", "a,b", "1,,2", "1,0x10", "nan", "1e999", "inf" } do
      response = raw_http.request(port, "GET", "/account/", nil, { ["x-features"] = features })
      assert.are.same({ 200, nil, "welcome\n" }, { response.status, response.headers["x-risk"], response.body }, features)
    end
  end)

  it("passes requests when there is no model, and says why in the log and in the status", function()
    start [[
      require("mlserve.nginx").init { models = { cancer = { predict_json = function() return nil, "model is ill",
        "INTERNAL" end } } }
    ]]
    local response = raw_http.request(port, "GET", "/account/", nil, { ["x-features"] = "1,2" })
    assert.are.same({ 200, nil }, { response.status, response.headers["x-risk"] })
    nginx:expect "not scored: model is ill"
    response = raw_http.request(port, "POST", "/v1/models/cancer:predict", "{}")
    assert.are.same({ 500, "model is ill" }, { response.status, cjson.decode(response.body).error })
  end)

  it("serves under a prefix, finds outputs by name, and falls back", function()
    start(FAKE .. [[
      local models = require("mlserve.nginx").repository()
      models:add_model("two", { predict_json = function() return '{"predictions": [{"a": [1, 2], "b": [0.5]}]}' end })
      models:add_model("nan", { predict_json = function() return '{"predictions": [NaN]}' end })
      models:add_model("text", { predict_json = function() return '{"predictions": ["x"]}' end })
    ]], [[
      location /ml/v1/ { content_by_lua_block { require("mlserve.nginx").handler { prefix = "/ml" } } }
      location /score { set $s ""; content_by_lua_block {
        local nginx = require "mlserve.nginx"
        local arg = ngx.req.get_uri_args()
        local value, message = nginx.score { model = arg.model, features = { 1, 2 }, output = arg.output, fallback = -1,
          variable = "s" }
        ngx.say(type(value), " ", ngx.var.s, " ", tostring(message))
      } }
      location /misuse { content_by_lua_block {
        local ok, message = pcall(require("mlserve.nginx").score, { modle = "m" })
        ngx.say(message)
      } }
    ]])
    assert.are.equal(200, raw_http.request(port, "GET", "/ml/v1/models/cancer").status)
    for query, expected in pairs {
      ["model=cancer"] = "number 3 nil\n", ["model=two&output=a"] = "table 1,2 nil\n",
        ["model=two&output=b"] = "number 0.5 nil\n",
      ["model=two&output=c"] = "number -1 the model's answer holds no score\n",
      ["model=nan"] = "number -1 the score is not a finite number\n",
      ["model=text"] = "number -1 the model's answer holds no score\n",
      ["model=none"] = "number -1 model 'none': no such model\n",
    } do
      assert.are.equal(expected, raw_http.request(port, "GET", "/score?" .. query).body, query)
    end
    assert.truthy(raw_http.request(port, "GET", "/misuse").body:find("unknown option 'modle'", 1, true))
  end)

  it("answers many clients from all workers", function()
    start(FAKE)
    local loop, good = cqueues.new(), 0
    for i = 1, 20 do
      loop:wrap(function()
        local connection = raw_http.connect(port)
        for j = 1, 20 do
          local body = ('{"instances":[[%d,%d]]}'):format(i, j)
          connection:send(("POST /v1/models/cancer:predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"):format(#body,
            body))
          if cjson.decode(connection:response().body).predictions[1][1] == i + j then good = good + 1 end
        end
        connection:close()
      end)
    end
    assert(loop:loop(20))
    assert.are.equal(400, good)
  end)

  it("counts what all workers do, and logs it", function()
    local log = os.tmpname()
    start(([[
      local fake = require "spec.support.fake_servable"
      assert(require("mlserve.nginx").init { models = { cancer = fake.new(0) }, access_log = %q })
    ]]):format(log), [[
      location = /metrics { content_by_lua_block { require("mlserve.nginx").handler() } }
      location /monitoring/ { content_by_lua_block { require("mlserve.nginx").handler() } }
    ]])
    local body = '{"instances":[[1,2]]}'
    for _ = 1, 60 do assert.are.equal(200, raw_http.request(port, "POST", "/v1/models/cancer:predict?key=hunter2", body).status) end
    raw_http.request(port, "GET", "/v1/models/none")
    for _ = 1, 10 do -- whichever worker answers
      local response = raw_http.request(port, "GET", "/monitoring/prometheus/metrics")
      local samples = prometheus.parse(response.body)
      assert.are.equal("text/plain; version=0.0.4; charset=utf-8", response.headers["content-type"])
      assert.are.equal(60, samples['mlserve_requests_total{model="cancer",version="1",verb="predict",code="200"}'])
      assert.are.equal(60 * #body, samples['mlserve_request_bytes_total{model="cancer",version="1",verb="predict"}'])
      assert.are.equal(60, samples[':tensorflow:serving:request_count{model_name="cancer",status="OK"}'])
      assert.are.equal(1, samples['mlserve_requests_total{model="",version="",verb="status",code="404"}'])
      assert.are.equal(1, samples['mlserve_model_state{model="cancer",version="1",state="AVAILABLE"}'])
    end
    assert.are.equal(200, raw_http.request(port, "GET", "/metrics").status)
    local function lines() return select(2, (process.slurp(log) or ""):gsub("\n", "")) end
    assert.is_truthy(process.wait(5, function() return lines() == 72 end), "lines in the log: " .. lines())
    os.rename(log, log .. ".1") -- as logrotate does
    assert.is_truthy(process.wait(5, function() return process.slurp(log) end))
    raw_http.request(port, "GET", "/v1/models/last")
    nginx:stop() -- writes the rest
    nginx = nil
    local entry = cjson.decode((process.slurp(log)))
    assert.are.same({ "/v1/models/last", 404, "127.0.0.1" }, { entry.path, entry.status, entry.peer })
    assert.is_nil(process.slurp(log .. ".1"):find("hunter2", 1, true))
    os.remove(log)
    os.remove(log .. ".1")
  end)
end)
