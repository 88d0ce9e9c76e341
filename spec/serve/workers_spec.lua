-- Several processes on one port, with real processes that are signalled and killed by pid.

local cqueues = require "cqueues"
local net = require "mlserve.net"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"
local store = require "spec.support.model_store"

describe("the workers of a server", function()
  local server, port

  local function start(options)
    server = process.spawn_lua("spec/support/test_workers.lua", options)
    port = tonumber(server:expect "listening on http://127%.0%.0%.1:(%d+)\n")
  end

  after_each(function()
    if server then server:stop() end
    server = nil
  end)

  local function get(path) return raw_http.request(port, "GET", path) end

  -- pids of `count` different workers, found by asking; nil when fewer show up
  local function workers(count, without)
    local seen, list = {}, {}
    return process.wait(10, function()
      local response = get "/who"
      local pid = response and tonumber(response.body)
      if pid and not seen[pid] and not (without and without[pid]) then
        seen[pid] = true
        list[#list + 1] = pid
      end
      return #list == count and list or nil
    end)
  end

  local function alive(pid)
    local stat = process.slurp("/proc/" .. pid .. "/stat")
    return stat ~= nil and not stat:match("%) Z ")
  end

  it("share port and models, which the parent loads once", function()
    start "{ rest = { port = 0, workers = 3 } }"
    local parent, list = server.pid, workers(3)
    assert.is_table(list)
    for _, pid in ipairs(list) do assert.are_not.equal(parent, pid) end
    local slots = {}
    assert.is_true(process.wait(5, function()
      assert.are.equal(tostring(parent), get("/loads").body)
      slots[get("/slot").body] = true
      return slots["1"] and slots["2"] and slots["3"]
    end))
    local body = '{"instances":[[1,2,3]]}'
    assert.truthy(raw_http.request(port, "POST", "/v1/models/m:predict", body).body:find("[6]", 1, true))
    assert.are.equal(0, server:stop())
    server = nil
    for _, pid in ipairs(list) do assert.is_false(alive(pid)) end
  end)

  it("divide the threads of predictions among them", function()
    start "{ rest = { port = 0, workers = 2 }, threads = 8 }"
    assert.are.equal("4", get("/threads").body)
  end)

  it("lose only their requests in flight when one is killed under load, and it is replaced", function()
    start "{ rest = { port = 0, workers = 2 } }"
    local list = workers(2)
    local victim = list[1]
    local loop, failed, answered, after, stop = cqueues.new(), {}, 0, 0, false
    local killed = false
    for i = 1, 8 do
      loop:wrap(function()
        local connection, served_by
        while not stop do
          if not connection then
            -- which worker this connection belongs to is known after its first answer
            connection, served_by = raw_http.connect(port), nil
          end
          local was_killed = killed
          local sent = connection:send("GET /sleep/" .. i .. " HTTP/1.1\r\nHost: a\r\n\r\n")
          local response = sent and connection:response(5)
          if response then
            answered = answered + 1
            served_by = tonumber(response.body)
            if was_killed then after = after + 1 end
          else
            failed[#failed + 1] = served_by or 0
            connection:close()
            connection = nil
          end
        end
        if connection then connection:close() end
      end)
    end
    loop:wrap(function()
      cqueues.sleep(0.3)
      net.kill(victim, 9)
      killed = true
      cqueues.sleep(0.7)
      stop = true
    end)
    assert(loop:loop(15))
    assert.truthy(answered > 50)
    assert.truthy(after > 20)
    assert.truthy(#failed <= 8) -- one connection has one request in flight
    for _, pid in ipairs(failed) do assert.truthy(pid == victim or pid == 0) end
    local fresh = workers(2, { [victim] = true })
    assert.is_table(fresh)
    assert.truthy(server:log():find("process " .. victim .. "%) ended after [%d.]+ s: signal 9;"))
    assert.is_false(alive(victim))
  end)

  it("are replaced when all die at once: connections wait in the port's queue", function()
    start "{ rest = { port = 0, workers = 2 } }"
    local list, dead = workers(2), {}
    for _, pid in ipairs(list) do
      dead[pid] = true
      net.kill(pid, 9)
    end
    local connection = raw_http.connect(port)
    connection:send("GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
    local response = connection:response(5)
    assert.are.equal(200, response.status)
    assert.is_nil(dead[tonumber(response.body)])
    connection:close()
    assert.is_table(workers(2, dead))
  end)

  it("are replaced when a request makes them exit", function()
    start "{ rest = { port = 0, workers = 2 } }"
    workers(2)
    for _ = 1, 3 do raw_http.request(port, "GET", "/leave") end
    assert.are.equal(200, get("/who").status)
    assert.is_true(process.wait(5, function() return select(2, server:log():gsub("ended after [%d.]+ s: exit 3;", "")) == 3 end))
  end)

  it("that never start are replaced after growing pauses, then the server ends with a message", function()
    server = process.spawn_lua("spec/support/test_workers.lua", '{ rest = { port = 0, workers = 1 + 1 }, start = "raise" }')
    assert.are.equal(1, server:code(20))
    assert.truthy(server:log():find("run returned nil workers end before they serve", 1, true))
    assert.truthy(server:log():find("error: worker 1: [^\n]*no transport"))
    local pauses = {}
    for pause in server:log():gmatch("worker 1 [^\n]*exit 1; the next one in ([%d.]+) s") do pauses[#pauses + 1] = pause end
    assert.are.equal("0.1 0.2 0.4 0.8", table.concat(pauses, " ", 1, 4))
  end)

  it("drain on SIGTERM: what was asked is answered, connections waiting are served, the exit code is 0", function()
    start "{ rest = { port = 0, workers = 2 } }"
    local list, busy = workers(2), {}
    for i = 1, 6 do
      busy[i] = raw_http.connect(port)
      busy[i]:send("GET /sleep/600 HTTP/1.1\r\nHost: a\r\n\r\n")
    end
    cqueues.sleep(0.2)
    server:signal "TERM"
    cqueues.sleep(0.2)
    assert.has_error(function() raw_http.connect(port) end)
    for i = 1, 6 do
      local response = busy[i]:response()
      assert.are.same({ 200, "close" }, { response.status, response.headers.connection })
      busy[i]:close()
    end
    assert.are.equal(0, server:code(5))
    for _, pid in ipairs(list) do assert.is_false(alive(pid)) end
    assert.are.equal(1, select(2, server:log():gsub("run returned", "")))
  end)

  it("that do not end in time are killed", function()
    start "{ rest = { port = 0, workers = 2, drain_timeout = 0.3 } }"
    local connection = raw_http.connect(port)
    connection:send("GET /spin HTTP/1.1\r\nHost: a\r\n\r\n")
    server:expect "spinning"
    server:signal "TERM"
    assert.are.equal(0, server:code(5))
    assert.truthy(server:log():find("did not end in time: killed", 1, true))
    connection:close()
  end)

  it("end at the second signal", function()
    start "{ rest = { port = 0, workers = 2, drain_timeout = 60 } }"
    local connection = raw_http.connect(port)
    connection:send("GET /sleep/50000 HTTP/1.1\r\nHost: a\r\n\r\n")
    server:expect "sleeping"
    server:signal "TERM"
    cqueues.sleep(0.3)
    assert.is_nil(server:code())
    server:signal "TERM"
    assert.are.equal(0, server:code(5))
    connection:close()
  end)

  it("leave SIGINT, which a terminal sends to all, to their parent", function()
    start "{ rest = { port = 0, workers = 2 } }"
    local list = workers(2)
    local connection = raw_http.connect(port)
    connection:send("GET /sleep/500 HTTP/1.1\r\nHost: a\r\n\r\n")
    server:expect "sleeping"
    for _, pid in ipairs(list) do net.kill(pid, 2) end
    server:signal "INT"
    assert.are.equal(200, connection:response().status)
    connection:close()
    assert.are.equal(0, server:code(5))
    assert.falsy(server:log():find("second signal", 1, true))
  end)

  it("end when their parent is killed", function()
    start "{ rest = { port = 0, workers = 2 } }"
    local list = workers(2)
    server:signal "KILL"
    assert.is_true(process.wait(5, function() return not alive(list[1]) and not alive(list[2]) end))
  end)

  it("are replaced one by one on SIGHUP, after the configuration, and no request is lost", function()
    start "{ rest = { port = 0, workers = 2 } }"
    local old = {}
    for _, pid in ipairs(workers(2)) do old[pid] = true end
    assert.are.equal("0", get("/generation").body)
    local loop, lost, answered, stop = cqueues.new(), 0, 0, false
    for _ = 1, 4 do
      loop:wrap(function()
        local connection
        while not stop do
          connection = connection or raw_http.connect(port)
          if connection:send("GET /sleep/2 HTTP/1.1\r\nHost: a\r\n\r\n") then
            local response = connection:response(5)
            if not response then lost = lost + 1 else answered = answered + 1 end
            if not response or response.headers.connection == "close" then
              connection:close()
              connection = nil
            end
          else
            connection:close()
            connection = nil
          end
        end
        if connection then connection:close() end
      end)
    end
    loop:wrap(function()
      cqueues.sleep(0.2)
      server:signal "HUP"
      local deadline = cqueues.monotime() + 8
      repeat cqueues.sleep(0.1) until server:log():find("every worker is new", 1, true) or cqueues.monotime() > deadline
      cqueues.sleep(0.2)
      stop = true
    end)
    assert(loop:loop(20))
    assert.are.equal(0, lost)
    assert.truthy(answered > 50)
    assert.truthy(server:log():find("every worker is new", 1, true))
    assert.is_true(process.wait(5, function()
      for pid in pairs(old) do
        if alive(pid) then return false end
      end
      return true
    end))
    assert.is_table(workers(2, old))
    assert.are.equal("1", get("/generation").body)
  end)

  it("go on when the new configuration is bad", function()
    for _, how in ipairs { "fail", "raise" } do
      start('{ rest = { port = 0, workers = 2 }, reload = "' .. how .. '" }')
      local old = {}
      for _, pid in ipairs(workers(2)) do old[pid] = true end
      server:signal "HUP"
      server:expect "error: reload: [^\n]*(broken configuration); the old configuration goes on"
      for _ = 1, 5 do assert.is_true(old[tonumber(get("/who").body)]) end
      server:stop()
    end
  end)

  it("accept max_connections in all", function()
    start "{ rest = { port = 0, workers = 2, max_connections = 4 } }"
    local open = {}
    for i = 1, 4 do
      open[i] = raw_http.connect(port)
      open[i]:send("GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.are.equal(200, open[i]:response().status)
    end
    local fifth = raw_http.connect(port)
    fifth:send("GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.are.same({ nil, "timeout" }, { fifth:response(0.3) })
    open[1]:close()
    assert.are.equal(200, fifth:response().status)
    fifth:close()
    for i = 2, 4 do open[i]:close() end
  end)
end)

describe("mlserve serve --workers", function()
  it("serves models of files from several processes, and at a Unix socket", function()
    local directory = process.directory()
    os.execute("mkdir -p " .. directory .. "/m/1 && cp spec/golden/dtype/float8e4m3fnuz/model.onnx " .. directory .. "/m/1/")
    local server = process.spawn_lua("bin/mlserve", "serve", "--model", "m=" .. directory .. "/m", "--rest-port", "0", "--workers", "2",
      "--unix-socket", directory .. "/s.sock", "--max-head", "1000")
    local port = tonumber(server:expect "listening on http://127%.0%.0%.1:(%d+), unix:")
    local status = raw_http.request(port, "GET", "/v1/models/m")
    assert.truthy(status.body:find('"AVAILABLE"', 1, true))
    assert.are.equal(status.body, raw_http.request(directory .. "/s.sock", "GET", "/v1/models/m").body)
    assert.are.equal(431, raw_http.request(port, "GET", "/v1/models/m", nil, { x = ("a"):rep(1000) }).status)
    server:signal "HUP"
    server:expect "(reloaded: every worker is new)\n"
    assert.are.equal(status.body, raw_http.request(port, "GET", "/v1/models/m").body)
    assert.are.equal(0, server:stop())
    os.execute("rm -rf " .. process.quote(directory))
  end)
end)

describe("a worker that takes the place of another one", function()
  it("answers with the versions of now, not with those of the server's start", function()
    local directory = process.directory()
    local base = directory .. "/m"
    store.publish(base, 1, 10)
    local server = process.spawn_lua("bin/mlserve", "serve", "--model", "m=" .. base, "--rest-port", "0", "--workers", "2")
    finally(function()
      server:stop()
      store.remove(directory)
    end)
    local port = tonumber(server:expect "listening on http://127%.0%.0%.1:(%d+)\n")
    local function value()
      local response = raw_http.request(port, "POST", "/v1/models/m:predict", '{"instances":[[0]]}')
      return response and tonumber(response.body:match "%[%[([%d.]+)")
    end
    assert.are.equal(10, value())
    store.publish(base, 2, 20)
    assert.is_true(process.wait(10, function() return select(2, server:log():gsub("version 2: available", "")) == 2 end))
    store.remove(base .. "/1")
    for pid in process.slurp(("/proc/%d/task/%d/children"):format(server.pid, server.pid)):gmatch "%d+" do net.kill(tonumber(pid), 9) end
    for _ = 1, 20 do assert.are.equal(20, value()) end -- the first ones wait in the port's queue
  end)
end)

describe("a server in one process", function()
  it("reloads on SIGHUP and goes on when that fails", function()
    for how, expected in pairs { ok = "1", fail = "0", raise = "0" } do
      local server = process.spawn_lua("spec/support/test_workers.lua", '{ rest = { port = 0 }, reload = "' .. how .. '" }')
      local port = tonumber(server:expect "listening on http://127%.0%.0%.1:(%d+)\n")
      assert.are.equal("0", raw_http.request(port, "GET", "/generation").body)
      server:signal "HUP"
      server:expect(how == "ok" and "(SIGHUP: reloading)" or "(broken configuration; the old configuration goes on)")
      assert.is_truthy(process.wait(5, function() return raw_http.request(port, "GET", "/generation").body == expected end))
      assert.are.equal(tostring(server.pid), raw_http.request(port, "GET", "/who").body)
      assert.are.equal(0, server:stop())
    end
  end)
end)
