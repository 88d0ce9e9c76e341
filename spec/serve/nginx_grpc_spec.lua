-- gRPC in a configuration of one's own: the thread pool, deadlines and cancelled calls in its queue, bodies in files, metadata, what is not configured.

local cjson = require "cjson"
local grpc_curl = require "spec.support.grpc_curl"
local grpc_schema = require "mlserve.serve.protocols.grpc_schema"
local nginx_of = require "spec.support.nginx"
local process = require "spec.support.process"
local prometheus = require "spec.support.prometheus"
local protobuf = require "spec.support.protobuf"
local raw_http = require "spec.support.raw_http"
local store = require "spec.support.model_store"

local INFER, LIVE, WATCH = "/inference.GRPCInferenceService/ModelInfer", "/inference.GRPCInferenceService/ServerLive", "/grpc.health.v1.Health/Watch"

local GRPC = [[
  set $grpc_status ""; set $grpc_message ""; set $grpc_status_details_bin ""; set $grpc_trailer_x_late ""; set $grpc_trailer_x_raw_bin "";
  add_trailer grpc-status $grpc_status; add_trailer grpc-message $grpc_message; add_trailer grpc-status-details-bin $grpc_status_details_bin;
  add_trailer x-late $grpc_trailer_x_late; add_trailer x-raw-bin $grpc_trailer_x_raw_bin;
  content_by_lua_block { require("mlserve.nginx").handler() }
]]

describe("gRPC in nginx", function()
  local nginx, port, directory, models, h2, rest

  setup(function()
    models = process.directory()
    store.publish(models .. "/m", 1, 7)
    os.execute("chmod -R a+rX " .. process.quote(models))
  end)
  teardown(function() store.remove(models) end)

  after_each(function()
    if nginx then
      nginx:stop()
      store.remove(directory)
    end
    nginx = nil
  end)

  local function start(init, more, location)
    local second = nginx_of.free_port()
    nginx, port, directory = nginx_of.start {
      main = "thread_pool mlserve threads=2;", init = init, http = 'init_worker_by_lua_block { require("mlserve.nginx").init_worker() }\n',
      server = ("listen 127.0.0.1:%d http2; lua_check_client_abort on; large_client_header_buffers 4 32k;\n"):format(second)
        .. 'location /v1/ { content_by_lua_block { require("mlserve.nginx").handler() } }\n'
        .. 'location /metrics { content_by_lua_block { require("mlserve.nginx").handler() } }\n'
        .. "location / {" .. (location or GRPC) .. "}\n" .. (more or ""),
    }
    h2, rest = ("http://127.0.0.1:%d"):format(second), ("http://127.0.0.1:%d"):format(port)
  end

  local function infer_message(rows)
    return grpc_schema.schema():encode("inference.ModelInferRequest", {
      model_name = "m", inputs = { { name = "x", datatype = "FP32", shape = { rows, 1 } } }, raw_input_contents = { ("\0\0\128\63"):rep(rows) }, -- ones
    })
  end

  local function frame(message)
    local size = #message
    return string.char(0, math.floor(size / 16777216), math.floor(size / 65536) % 256, math.floor(size / 256) % 256, size % 256) .. message
  end

  local function infer(rows, given)
    given = given or {}
    given.body = frame(infer_message(rows))
    local response = grpc_curl.request(h2 .. INFER, given)
    local answer = #response.body > 5 and assert(grpc_schema.schema():decode("inference.ModelInferResponse", response.body:sub(6)))
    return response.fields["grpc-status"], answer and table.concat(answer.raw_output_contents), response.fields["grpc-message"]
  end

  local EIGHT = "\0\0\0\65" -- 1 + 7 as a float
  local POOLED = ('assert(require("mlserve.nginx").init { models = { m = "%%s/m" }, inline = 0, pool_states = 1, %s })')
  local POOL = [[
    location /hold { content_by_lua_block { local pool = require("mlserve.nginx").repository():get("m").servable.pool
      pool.running = pool.running + tonumber(ngx.var.arg_n) ngx.print("held") } }
    location /pool { content_by_lua_block { local pool = require("mlserve.nginx").repository():get("m").servable.pool
      ngx.print(pool.running, " ", pool.waiting) } }
    location /stats { content_by_lua_block { local stats = require("mlserve.nginx").repository():get("m").servable:batch_stats()
      ngx.print(stats and stats.jobs or "none") } }
  ]]

  it("is configured as the version of nginx wants it", function()
    local nginx_conf = require "mlserve.serve.transports.nginx_conf"
    local function lines(version, tls)
      local text = assert(nginx_conf.render {
        nginx = nginx_conf.describe("nginx version: nginx/" .. version .. "\nconfigure arguments: --with-threads --modules-path=/m"), exists = function() return true end,
        listen = { { address = "127.0.0.1:1" }, { address = "127.0.0.1:2", http2 = true }, { address = "unix:/u", plain = true } }, pool = 1,
        directory = "/d", path = "/p", cpath = "/c", streams = true, tls = tls and { cert = "/cert", key = "/key", client_ca = "/ca", ciphers = "A:B" },
      })
      local found = { http2 = text:find("http2 on;", 1, true) ~= nil, verify = text:find('ssl_client_certificate "/ca";%s+ssl_verify_client on;') ~= nil }
      for line in text:gmatch "listen ([^\n]*);" do found[#found + 1] = line end
      return found
    end
    assert.are.same({ http2 = false, verify = false, "127.0.0.1:1", "127.0.0.1:2 http2", "unix:/u" }, lines "1.22.1")
    assert.are.same({ http2 = false, verify = true, "127.0.0.1:1 ssl http2", "127.0.0.1:2 ssl http2", "unix:/u" }, lines("1.25.0", true))
    assert.are.same({ http2 = true, verify = false, "127.0.0.1:1", "127.0.0.1:2", "unix:/u" }, lines "1.25.1")
    assert.are.same({ http2 = true, verify = true, "127.0.0.1:1 ssl", "127.0.0.1:2 ssl", "unix:/u" }, lines("1.29.3", true))
  end)

  it("runs requests in the thread pool, which keeps to deadlines and drops what is cancelled", function()
    start(POOLED:format 'batching = { mode = "never" }':format(models), POOL)
    nginx:expect "model 'm' version 1: .- in the thread pool"
    assert.are.same({ "0", EIGHT:rep(3) }, { infer(3) })
    assert.are.equal("0 0", raw_http.request(port, "GET", "/pool").body)
    raw_http.request(port, "GET", "/hold?n=1") -- as if the only thread had much to do
    local function pool(expected)
      return process.wait(5, function() return raw_http.request(port, "GET", "/pool").body == expected end)
    end
    local status, _, text = infer(1, { headers = { ["grpc-timeout"] = "200m" } })
    assert.are.same({ "4", "Deadline Exceeded" }, { status, text })
    assert.are.equal("1 0", raw_http.request(port, "GET", "/pool").body)

    assert.is_nil((infer(1, { seconds = 0.3 }))) -- resets its stream
    assert.is_truthy(pool "1 0")
    local connection = raw_http.connect(port) -- HTTP/1.1: closes its connection
    connection:send 'POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{"instances": [[1]]}'
    assert.is_truthy(pool "1 1")
    connection:close()
    assert.is_truthy(pool "1 0")

    raw_http.request(port, "GET", "/hold?n=-1")
    assert.are.same({ "0", EIGHT }, { infer(1, { headers = { ["grpc-timeout"] = "5S" } }) })
    local samples = prometheus.parse(raw_http.request(port, "GET", "/metrics").body)
    assert.are.equal(2, samples['mlserve_requests_total{model="m",version="1",verb="infer",code="200"}'])
    assert.are.equal(1, samples['mlserve_requests_total{model="m",version="1",verb="infer",code="504"}'])
    assert.are.equal(1, samples['mlserve_requests_total{model="m",version="1",verb="infer",code="499"}'])
  end)

  it("merges requests of gRPC too", function()
    start(POOLED:format 'batching = { mode = "always" }':format(models), POOL)
    nginx:expect "model 'm' version 1: .- in the thread pool"
    local before = tonumber(raw_http.request(port, "GET", "/stats").body)
    assert.are.same({ "0", EIGHT:rep(2) }, { infer(2, { headers = { ["grpc-timeout"] = "5S" } }) })
    assert.are.equal(before + 1, tonumber(raw_http.request(port, "GET", "/stats").body))
  end)

  it("takes bodies that nginx has put into a file", function()
    start(('assert(require("mlserve.nginx").init { models = { m = %q }, grpc = { max_message = 3000000 } })'):format(models .. "/m"))
    local status, answer = infer(700000)
    assert.are.equal("0", status)
    assert.is_true(answer == EIGHT:rep(700000))
    assert.truthy(nginx:log():find("is buffered to a temporary file", 1, true))
    assert.are.same({ "8", "Received message larger than max (3600025 vs. 3000000)" }, { (infer(900000)), (select(3, infer(900000))) })
  end)

  it("sends metadata with the head and behind the body, and tells what is missing for it", function()
    start([[
      local nginx, grpc = require "mlserve.nginx", require "mlserve.serve.protocols.grpc"
      assert(nginx.init { models = {} })
      local function metadata(message, request)
        request.reply_headers = { ["x-early"] = "1", ["x-early-bin"] = "\0\1" }
        request.reply_trailers = { ["x-late"] = "2", ["x-raw-bin"] = "\0\2", ["x-unknown"] = "3" }
        if message == "fail" then return nil, "no\nway", "ABORTED", { { type_url = "t", value = "v" } } end
        return message
      end
      nginx.app():mount {
        { method = "POST", path = "/test.Test/Unary", handler = grpc.unary(metadata) },
        { method = "POST", path = "/test.Test/Stream", stream = true, handler = grpc.streaming(function(stream, request)
          local message = stream:receive()
          while message do
            metadata(message, request)
            assert(stream:send(message))
            message = stream:receive()
          end
          return true
        end) },
      }
    ]])
    local function call(path, body)
      local response = grpc_curl.request(h2 .. path, { body = body })
      return response, response.fields
    end
    local response, fields = call("/test.Test/Unary", frame "abc")
    assert.are.same({ frame "abc", "0", "1", "AAE", "2", "AAI" },
      { response.body, fields["grpc-status"], fields["x-early"], fields["x-early-bin"], fields["x-late"], fields["x-raw-bin"] })
    assert.are.equal("3", fields["x-unknown"]) -- with the head, since no trailer is configured
    nginx:expect "trailer 'x%-unknown' is sent as a header field: the location lacks `set %$grpc_trailer_x_unknown"
    response, fields = call("/test.Test/Unary", frame "fail")
    assert.are.same({ "", "10", "no%0Away", "1", "2" }, { response.body, fields["grpc-status"], fields["grpc-message"], fields["x-early"], fields["x-late"] })
    -- google.rpc.Status: code 10, the text, one detail
    local details = "\8\10" .. protobuf.field(2, "no\nway") .. protobuf.field(3, protobuf.field(1, "t") .. protobuf.field(2, "v"))
    assert.are.equal(details, require("mlserve.core").base64_decode(fields["grpc-status-details-bin"]))
    response, fields = call("/test.Test/Stream", frame "one" .. frame "two")
    assert.are.same({ frame "one" .. frame "two", "0", "1", "2" }, { response.body, fields["grpc-status"], fields["x-early"], fields["x-late"] })
  end)

  it("tells what the configuration lacks", function()
    start(('assert(require("mlserve.nginx").init { models = { m = %q } })'):format(models .. "/m"), "", 'content_by_lua_block { require("mlserve.nginx").handler() }')
    local response = grpc_curl.request(h2 .. LIVE, { body = frame "" })
    assert.are.same({ 501, "gRPC is not configured at this location\n" }, { response.status, response.body })
    assert.is_nil(response.fields["grpc-status"])
    nginx:expect "for gRPC the location needs `set %$grpc_status"
    response = grpc_curl.request(h2 .. LIVE, { body = frame "", type = "application/grpc-web+proto" }) -- which needs nothing
    assert.are.same({ 200, frame "\8\1" .. "\128\0\0\0\16grpc-status: 0\r\n" }, { response.status, response.body })
  end)

  it("ends a stream that nobody reads, and streams when it ends itself", function()
    local log = os.tmpname()
    start(('assert(require("mlserve.nginx").init { models = { m = %q }, access_log = %q })'):format(models .. "/m", log))
    local function counted(code)
      return process.wait(5, function()
        return prometheus.parse(raw_http.request(port, "GET", "/metrics").body)[('mlserve_requests_total{model="",version="",verb="health",code="%d"}'):format(code)]
      end)
    end
    assert.are.equal(frame "\8\1", grpc_curl.request(h2 .. WATCH, { body = frame "", seconds = 0.4 }).body)
    assert.are.equal(1, counted(499))
    for version = 1, 2 do -- gRPC-Web as well
      local response = grpc_curl.request((version == 1 and rest or h2) .. WATCH, {
        body = frame "", seconds = 0.4, version = version, type = "application/grpc-web+proto",
      })
      assert.are.equal(frame "\8\1", response.body)
    end
    assert.is_truthy(process.wait(5, function() return counted(499) == 3 end))

    local output = directory .. "/watched"
    process.write(directory .. "/empty", frame "")
    os.execute(("curl -sN --noproxy '*' --http2-prior-knowledge -m 20 -H 'content-type: application/grpc' --data-binary @%s/empty -o %s -D %s.head %s%s & "):format(
      directory, output, output, h2, WATCH))
    assert.is_truthy(process.wait(5, function() return (process.slurp(output) or "") ~= "" end))
    nginx:signal "QUIT"
    assert.are.equal(0, nginx:code(10))
    assert.is_nil(nginx:log():find("ngx.sleep(0)", 1, true))
    -- curl may leave at the GOAWAY: the log tells how the stream ended
    local last
    for line in process.slurp(log):gmatch "[^\n]+" do last = line end
    local entry = cjson.decode(last)
    assert.are.equal(WATCH, entry.path)
    assert.is_true(entry.status == 503 or entry.status == 499, entry.status)
    os.remove(log)
  end)
end)
