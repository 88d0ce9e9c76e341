-- What goes wrong around a server that runs: models, disks, clocks, descriptors, memory, clients without end. Real processes. What clients and
-- workers do wrong beside this is in hostile_spec, http_spec, workers_spec and overload_spec; docs/serving.md has the table of all.

local cjson = require "cjson"
local cqueues = require "cqueues"
local process = require "spec.support.process"
local prometheus = require "spec.support.prometheus"
local raw_http = require "spec.support.raw_http"
local store = require "spec.support.model_store"

local quote = process.quote
local sanitised = os.getenv "SANITIZER" ~= nil -- they hold on to freed memory, and need terabytes of addresses

describe("a server to which things happen", function()
  local directory, base, server, port

  before_each(function()
    directory = process.directory()
    base = directory .. "/m"
    store.publish(base, 1, 10)
  end)
  after_each(function()
    if server then server:stop() end
    server = nil
    store.remove(directory)
  end)

  local function listening(child)
    server = child
    port = tonumber(server:expect("listening on http://127%.0%.0%.1:(%d+)", 20))
  end

  local function serve(...)
    listening(process.spawn_lua("bin/mlserve", "serve", "--model", "m=" .. base, "--rest-port", "0", ...))
  end

  -- The same, started by a shell behind some words ("ulimit …; exec env VARIABLE=…").
  local function serve_behind(words, ...)
    local list = { words, "LUA_PATH=" .. quote(package.path), "LUA_CPATH=" .. quote(package.cpath), process.lua, "bin/mlserve", "serve", "--model",
      quote("m=" .. base), "--rest-port", "0", ... }
    listening(process.spawn("sh -c " .. quote(table.concat(list, " "))))
  end

  local function value()
    local response, why = raw_http.request(port, "POST", "/v1/models/m:predict", '{"instances":[[0]]}')
    if not response then return why end
    return tonumber(response.body:match "%[%[([%d.]+)") or response.body
  end

  -- version -> { state, code, message }
  local function states()
    local found = {}
    for _, each in ipairs(cjson.decode(raw_http.request(port, "GET", "/v1/models/m").body).model_version_status) do
      found[each.version] = { each.state, each.status.error_code, each.status.error_message }
    end
    return found
  end

  local function eventually(expected)
    assert.is_true(process.wait(10, function() return value() == expected end), tostring(expected) .. " expected, still " .. tostring(value()))
  end

  local function resident() return tonumber(process.slurp("/proc/" .. server.pid .. "/status"):match "VmRSS:%s*(%d+)") end

  it("says why a model that cannot be loaded is not served, while the old one goes on", function()
    serve()
    local good = process.slurp(base .. "/1/model.onnx")
    for version, bytes in pairs { [2] = "", [3] = ("\8\7rubbish"):rep(100), [4] = good:sub(1, -20), [5] = ("\255"):rep(1000) } do
      assert(os.execute("mkdir -p " .. quote(base .. "/tmp")))
      process.write(base .. "/tmp/model.onnx", bytes)
      store.rename(base .. "/tmp", base .. "/" .. version)
      assert.is_true(process.wait(10, function() return states()[tostring(version)] ~= nil and states()[tostring(version)][1] == "END" end))
      local state = states()[tostring(version)]
      assert.are_not.equal("OK", state[2])
      assert.truthy(state[3]:find("/" .. version .. "/model.onnx", 1, true), state[3])
      assert.are.equal(10, value())
      local samples = prometheus.parse(raw_http.request(port, "GET", "/metrics").body)
      local told = 0
      for name in pairs(samples) do
        if name:find(('mlserve_model_load_error{model="m",version="%d"'):format(version), 1, true) then told = told + 1 end
      end
      assert.are.equal(1, told)
    end
    store.publish(base, 6, 60)
    eventually(60)
  end)

  it("serves on when the directory vanishes and follows it when it is back", function()
    serve()
    store.rename(base, directory .. "/gone")
    for _ = 1, 10 do
      assert.are.equal(10, value())
      cqueues.sleep(0.1)
    end
    process.write(base, "a file in its place")
    cqueues.sleep(0.3)
    assert.are.equal(10, value())
    os.remove(base)
    store.rename(directory .. "/gone", base)
    store.publish(base, 2, 20)
    eventually(20)
  end)

  it("does not care for the wall clock: it may jump by hours, and beyond 2038", function()
    local library, offset = directory .. "/clock.so", directory .. "/offset"
    assert(os.execute("cc -shared -fPIC -o " .. quote(library) .. " spec/support/clock.c"))
    process.write(offset, "0")
    -- a sanitiser's library stays the first one
    local preload = (os.getenv "LD_PRELOAD" or "") .. " " .. library
    serve_behind("exec env LD_PRELOAD=" .. quote(preload) .. " CLOCK_OFFSET=" .. quote(offset), "--head-timeout", "5", "--idle-timeout", "30")
    local idle, half = raw_http.connect(port), raw_http.connect(port)
    local first, second = 'POST /v1/models/m:predict HTTP/1.1\r\nhost: a\r\ncontent-le', 'ngth: 19\r\n\r\n{"instances":[[5]]}'
    local version, expected = 1, 10
    for _, jump in ipairs { 3600, -3600, 20 * 365 * 86400, -86400, 0 } do
      half:send(first)
      process.write(offset, tostring(jump))
      local now = os.time() + jump
      idle:send "GET /v1/models/m HTTP/1.1\r\nhost: a\r\n\r\n"
      local response = idle:response(5)
      assert.are.equal(200, response.status)
      local dates = {}
      for second_more = -5, 5 do dates[os.date("!%a, %d %b %Y %H:%M:%S GMT", now + second_more)] = true end
      assert.is_true(dates[response.headers.date], response.headers.date .. " after a jump of " .. jump)
      half:send(second)
      assert.truthy(half:response(5).body:find("[[" .. expected + 5, 1, true))
      version, expected = version + 1, expected + 10
      store.publish(base, version, expected)
      eventually(expected)
      cqueues.sleep(0.1)
    end
    idle:close()
    half:close()
  end)

  it("goes on without descriptors for a new version, and takes it when there are some", function()
    serve_behind("ulimit -n 40; exec env")
    local connections = {}
    for i = 1, 60 do connections[i] = raw_http.connect(port) end -- more than there are descriptors
    connections[1]:send 'POST /v1/models/m:predict HTTP/1.1\r\nhost: a\r\ncontent-length: 19\r\n\r\n{"instances":[[0]]}'
    assert.are.equal(200, connections[1]:response(5).status)
    store.publish(base, 2, 20)
    cqueues.sleep(1.5)
    connections[1]:send 'POST /v1/models/m:predict HTTP/1.1\r\nhost: a\r\ncontent-length: 19\r\n\r\n{"instances":[[0]]}'
    local response = connections[1]:response(5)
    assert.are.equal(200, response.status)
    assert.truthy(response.body:find("[[10", 1, true))
    for i = 1, 60 do connections[i]:close() end
    assert.truthy(process.wait(10, function() return raw_http.request(port, "GET", "/v2/health/live").status == 200 end))
    eventually(20)
  end)

  it("refuses what there is no memory for and goes on with the rest", function()
    if sanitised then return end
    serve_behind("exec prlimit --as=700000000 env", "--max-body", "200000000")
    local small = '{"instances":[[0]]}'
    local refused = 0
    for _, megabytes in ipairs { 1, 20, 60, 120, 190 } do
      local body = '{"instances":[' .. ("[1],"):rep(megabytes * 250000) .. "[1]]}"
      local response, why = raw_http.request(port, "POST", "/v1/models/m:predict", body, nil, 60)
      assert(response, why)
      if response.status ~= 200 then
        refused = refused + 1
        assert.is_true(response.status == 429 or response.status == 503, response.status .. response.body:sub(1, 300))
      end
      assert.is_nil(server:code())
      assert.are.equal(200, raw_http.request(port, "POST", "/v1/models/m:predict", small).status)
    end
    assert.is_true(refused > 0) -- else the limit was none
  end)

  it("answers each request or refuses it when any allocation fails, and takes new versions all the same", function()
    listening(process.spawn_lua("spec/support/test_faults.lua", base))
    local connection, failures = raw_http.connect(port), 0
    local function ask(method, path, body, fields)
      connection:send(("%s %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n%s\r\n%s"):format(method, path, #body, fields or "", body))
      return assert(connection:response(10))
    end
    local json = '{"inputs":[{"name":"x","shape":[2,1],"datatype":"FP32","data":[1,2]}]}'
    local head = '{"inputs":[{"name":"x","shape":[2,1],"datatype":"FP32","parameters":{"binary_data_size":8}}]}'
    local requests = {
      { "POST", "/v1/models/m:predict", '{"instances":[[1],[2]]}' }, { "POST", "/v1/models/batched:predict", '{"inputs":[[1],[2]]}' },
      { "POST", "/v1/models/m:regress", '{"examples":[{"x":1},{"x":2}]}' }, { "POST", "/v2/models/m/infer", json },
      { "POST", "/v2/models/batched/infer", json },
      { "POST", "/v2/models/m/infer", head .. string.pack("<ff", 1, 2), "inference-header-content-length: " .. #head .. "\r\n" },
      { "GET", "/v1/models/m", "" }, { "GET", "/v1/models/m/metadata", "" }, { "GET", "/v2/models/m", "" }, { "GET", "/metrics", "" },
    }
    for _, request in ipairs(requests) do
      local right, good = ask(request[1], request[2], request[3], request[4]), 0
      assert.are.equal(200, right.status, right.body)
      for n = 1, 300 do
        ask("POST", "/fail/" .. n, "")
        local response = ask(request[1], request[2], request[3], request[4])
        if response.status == 200 then
          good = good + 1
          if request[2] ~= "/metrics" then assert.are.equal(right.body, response.body) end
        else
          good, failures = 0, failures + 1
          assert.is_true(response.status == 429 or response.status == 503, response.status .. " " .. response.body)
          assert.truthy(response.body:find("memory", 1, true), response.body)
        end
        ask("POST", "/fail/0", "")
        response = ask(request[1], request[2], request[3], request[4])
        assert.are.equal(200, response.status)
        if request[2] ~= "/metrics" then assert.are.equal(right.body, response.body) end
        if good > 5 then break end
      end
      assert.is_true(good > 5, request[2] .. " never succeeds")
    end
    assert.is_true(failures > 20, failures .. " failures")
    for version, n in ipairs { 0, 5, 40, 90, 200 } do
      ask("POST", "/fail/" .. n, "")
      store.publish(base, version + 1, version * 10 + 10)
      eventually(version * 10 + 10)
    end
    connection:close()
    assert.falsy(server:log():find("traceback", 1, true))
  end)

  it("goes on with a full disk under its log", function()
    serve("--access-log", "/dev/full")
    for _ = 1, 20 do assert.are.equal(10, value()) end
    assert.truthy(process.wait(5, function()
      local samples = prometheus.parse(raw_http.request(port, "GET", "/metrics").body)
      return (samples.mlserve_access_log_lost_lines_total or 0) >= 20
    end))
    assert.truthy(server:log():find("/dev/full", 1, true))
  end)

  it("reads no more of 100 MB of header than it takes", function()
    serve()
    value()
    local before = resident()
    for _, field in ipairs { "x: " .. ("a"):rep(1000) .. "\r\n", ("a"):rep(1000), "a:\r\n" } do
      local connection, sent, block = raw_http.connect(port), 0, field:rep(100)
      connection:send "GET / HTTP/1.1\r\nhost: a\r\n"
      while sent < 100e6 and connection:send(block, 5) do sent = sent + #block end
      local response = connection:response(5) -- nil when the reset that follows a megabyte unread has overtaken it
      if response then assert.are.equal(431, response.status) end
      assert.is_true(sent < 50e6, sent .. " bytes were taken")
      connection:close()
      assert.are.equal(10, value())
    end
    assert.is_true(sanitised or resident() - before < 20000, before .. " KiB before, " .. resident() .. " after")
  end)

  it("keeps little for clients that never read, and ends them", function()
    serve("--write-timeout", "1")
    value()
    local before, list = resident(), {}
    local request = "GET /monitoring/prometheus/metrics HTTP/1.1\r\nhost: a\r\n\r\n"
    for i = 1, 20 do
      list[i] = raw_http.connect(port)
      while list[i]:send(request:rep(50), 0.05) do end -- luacheck: ignore 542
    end
    assert.are.equal(10, value())
    assert.is_true(sanitised or resident() - before < 40000, before .. " KiB before, " .. resident() .. " with 20 such clients")
    assert.truthy(process.wait(60, function()
      local pipe = assert(io.popen(("ls /proc/%d/fd | wc -l"):format(server.pid)))
      local count = pipe:read "n"
      pipe:close()
      return count < 20
    end))
    for i = 1, 20 do list[i]:close() end
    assert.are.equal(10, value())
  end)

  it("answers one byte a second within the limit, and one that is slower with 408", function()
    serve("--head-timeout", "2", "--body-timeout", "2")
    local fast, slow = raw_http.connect(port), raw_http.connect(port)
    local bytes = 'POST /v1/models/m:predict HTTP/1.1\r\nhost: a\r\ncontent-length: 19\r\n\r\n{"instances":[[0]]}'
    for at = 1, #bytes do
      fast:send(bytes:sub(at, at))
      if at % 3 == 0 then cqueues.sleep(0.02) end
    end
    assert.are.equal(200, fast:response(5).status)
    for at = 1, 3 do
      slow:send(bytes:sub(at, at))
      assert.are.equal(10, value())
      if at < 3 then cqueues.sleep(1) end
    end
    assert.are.equal(408, slow:response(5).status)
    fast:close()
    slow:close()
  end)
end)
