-- The client against our server, in plain Lua, in a cqueues loop and in nginx, and against servers that misbehave.

local cjson = require "cjson"
local client_cases = require "spec.support.client_cases"
local core = require "mlserve.core"
local cqueues = require "cqueues"
local http = require "mlserve.client.http"
local mlserve = require "mlserve"
local nginx = require "spec.support.nginx"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"

local totable = client_cases.totable

-- spec/golden/pipeline, as inputs of the model
local function penguins()
  local golden = cjson.decode(process.slurp "spec/golden/pipeline/expected.json")
  local island, mass = {}, {}
  for i, instance in ipairs(golden.instances) do island[i], mass[i] = instance.island, instance.mass end
  return { inputs = { island = island, mass = mass }, labels = golden.label, probabilities = golden.probabilities }
end

-- Runs f in a cqueues loop, with `others` beside it.
local function in_loop(f, ...)
  local loop = cqueues.new()
  for _, each in ipairs { f, ... } do loop:wrap(each) end
  assert(loop:loop(60))
  assert(loop:empty())
end

local SERVE = [[
  local server = require("mlserve").server { rest = { port = %s, unix_socket = %s, unix_mode = "666" } }
  local models, ROOT = server.repository, "%s"
  for name, servable in pairs(require("spec.support.tfserving_cases").models(ROOT)) do
    models:add_model(name, servable)
    if name == "double" then
      models:add_model(name, servable, 2)
      assert(models:set_label(name, "canary", 1))
    end
  end
  os.exit(server:run() and 0 or 1)
]]

describe("the client", function()
  local servers, directory = {}, nil

  local function start(command)
    servers[#servers + 1] = command
    return command
  end

  -- our server; a URL of it
  local function serve(unix)
    directory = directory or process.directory()
    process.write(directory .. "/serve.lua", SERVE:format(unix and "false" or "0", unix and ("%q"):format(directory .. "/socket") or "nil", ""))
    local server = start(process.spawn_lua(directory .. "/serve.lua"))
    if unix then
      assert(process.wait(10, function() return os.execute("test -S " .. directory .. "/socket") end))
      return "unix:" .. directory .. "/socket", server
    end
    return "http://127.0.0.1:" .. server:expect "listening on http://127%.0%.0%.1:(%d+)\n", server
  end

  local function rude(...)
    local server = start(process.spawn_lua("spec/support/rude_server.lua", ...))
    return "http://127.0.0.1:" .. server:expect "port (%d+)\n", server
  end

  after_each(function()
    for _, server in ipairs(servers) do server:stop() end
    if directory then os.execute("rm -rf " .. process.quote(directory)) end
    servers, directory = {}, nil
  end)

  local function run_cases(url, list)
    local count = 0
    client_cases.run(function(given)
      local options = { url = url }
      for name, value in pairs(given) do options[name] = value end
      return assert(mlserve.client(options))
    end, function(expected, got, what)
      count = count + 1
      assert.same(expected, got, what)
    end, penguins(), list or client_cases.REST)
    assert.is_true(count > 120)
  end

  describe("of our server", function()
    it("predicts, classifies, regresses and asks for the rest, waiting", function() run_cases((serve())) end)
    it("does the same in a loop", function()
      local url = serve()
      in_loop(function() run_cases(url) end)
    end)
    it("does the same over a Unix socket", function() run_cases((serve(true))) end)
    it("does the same in nginx", function()
      local url = serve()
      local unix = serve(true)
      local port
      process.write(directory .. "/penguins.json", cjson.encode(penguins()))
      servers[#servers + 1], port = nginx.start {
        init = "",
        server = [[
          location / {
            content_by_lua_block {
              local core = require "mlserve.core"
              local count, failures = 0, {}
              local function same(a, b)
                if type(a) ~= "table" or type(b) ~= "table" then return a == b end
                for k, v in pairs(a) do if not same(v, b[k]) then return false end end
                for k in pairs(b) do if a[k] == nil then return false end end
                return true
              end
              local show
              function show(value)
                if type(value) ~= "table" then return tostring(value) end
                local items = {}
                for k, v in pairs(value) do items[#items + 1] = tostring(k) .. " = " .. show(v) end
                return "{ " .. table.concat(items, ", ") .. " }"
              end
              local file = io.open "]] .. directory .. [[/penguins.json"
              local penguins = core.json_decode(file:read "*a")
              file:close()
              for _, url in ipairs { "]] .. url .. '", "' .. unix .. [[" } do
                require("spec.support.client_cases").run(function(given)
                  local options = { url = url }
                  for name, value in pairs(given) do options[name] = value end
                  return assert(require("mlserve.client")(options))
                end, function(expected, got, what)
                  count = count + 1
                  if not same(expected, got) then
                    failures[#failures + 1] = tostring(what) .. ": expected " .. show(expected) .. ", got " .. show(got)
                  end
                end, penguins, require("spec.support.client_cases").REST)
              end
              ngx.say(count, " ", #failures, "\n", table.concat(failures, "\n"))
            }
          }
        ]],
      }
      local response = raw_http.request(port, "GET", "/")
      local count, failures = response.body:match "^(%d+) (%d+)\n"
      assert.equal("0", failures, response.body .. servers[#servers]:log())
      assert.is_true(tonumber(count) > 300)
    end)

    it("keeps connections for the next call, and no more than it may", function()
      local client = assert(mlserve.client { url = serve(), pool = { size = 2 } })
      for _ = 1, 5 do assert(client:predict("double", { { 1, 2 } })) end
      assert.same({ 1, 0 }, { client.pool:count() })
      local most, running, done = 0, 0, 0
      in_loop(function()
        local loop = cqueues.running()
        for _ = 1, 20 do
          loop:wrap(function()
            running = running + 1
            assert.same({ { 2, 4 } }, assert(client:predict("double", { { 1, 2 } })):totable())
            local idle, busy = client.pool:count()
            most = math.max(most, idle + busy)
            done = done + 1
          end)
        end
      end)
      assert.same({ 20, 20, 2 }, { running, done, most })
      assert.same({ 2, 0 }, { client.pool:count() })
      client:close()
      assert.same({ 0, 0 }, { client.pool:count() })
    end)

    it("closes what lay idle for too long, and takes a new one where the server closed", function()
      local url, server = serve()
      local client = assert(mlserve.client { url = url, pool = { idle = 0.1 } })
      assert(client:live())
      local first = client.pool.idle[1]
      cqueues.sleep(0.2)
      assert(client:live())
      assert.are_not.equal(first, client.pool.idle[1])
      server:stop()
      local live, message, code = client:live()
      assert.same({ false, "UNAVAILABLE" }, { live, code }, message)
      assert.same({ 0, 0 }, { client.pool:count() })
    end)

    it("loads and unloads where that is allowed", function()
      directory = process.directory()
      os.execute("mkdir -p " .. directory .. "/models/p/1 && cp spec/golden/pipeline/model.onnx " .. directory .. "/models/p/1/")
      process.write(directory .. "/serve.lua", ([[
        local server = require("mlserve").server { rest = { port = 0 }, admin = true }
        assert(server:add_directory("p", "%s/models/p"))
        os.exit(server:run() and 0 or 1)
      ]]):format(directory))
      local server = start(process.spawn_lua(directory .. "/serve.lua"))
      local client = assert(mlserve.client { url = "http://127.0.0.1:" .. server:expect "listening on http://127%.0%.0%.1:(%d+)\n", protocol = "kserve" })
      assert(process.wait(10, function() return client:ready "p" end))
      assert.same({ { name = "p", version = "1", state = "READY" } }, client:index { ready = true })
      assert.is_true(client:unload "p")
      assert(process.wait(10, function() return not client:ready "p" end))
      assert.is_true(client:load "p")
      assert(process.wait(10, function() return client:ready "p" end))
      local done, _, code = client:load "none"
      assert.same({ nil, "INVALID_ARGUMENT" }, { done, code })
    end)
  end)

  describe("of servers that misbehave", function()
    local url, server, clients

    before_each(function()
      url, server = rude()
      clients = {}
    end)
    after_each(function()
      for _, client in ipairs(clients) do client:close() end
      assert.is_nil(server:log():match "error[^\n]*")
    end)

    local function of(kind, given)
      local options = { url = url .. "/" .. kind, timeout = 20, retries = { backoff = 0.001 } }
      for name, value in pairs(given or {}) do options[name] = value end
      clients[#clients + 1] = assert(mlserve.client(options))
      return clients[#clients]
    end

    local INPUT = core.tensor { 1 }
    local function predict(client, given)
      local value, message, code = client:predict("m", INPUT, given)
      return value and value:totable(), message, code
    end
    local function asked(kind) return cjson.decode(raw_http.request(tonumber(url:match "%d+$"), "GET", "/asked").body)[kind] end
    local GOOD = { 1.5, 2.5 }

    -- in plain Lua and in a loop
    local function both(f)
      f()
      in_loop(f)
    end

    it("takes every right form of an answer", function()
      both(function()
        for _, kind in ipairs { "ok", "bytes", "continue", "chunked", "untilclose", "noreason", "close", "compressed", "late", "extra" } do
          local client = of(kind)
          for _ = 1, 2 do assert.same(GOOD, (assert(predict(client))), kind) end
        end
      end)
    end)

    it("uses a connection again only after an answer that ended where it should", function()
      for kind, again in pairs { ok = 1, bytes = 1, continue = 1, chunked = 1, compressed = 1, untilclose = 0, close = 0, extra = 0 } do
        local client = of(kind)
        assert(predict(client))
        assert.same({ again, 0 }, { client.pool:count() }, kind)
      end
      local client = of "afterwards" -- what comes without a question is no answer to the next one
      assert.same(GOOD, (predict(client)))
      cqueues.sleep(0.15)
      assert.same(GOOD, (predict(client)))
    end)

    it("keeps the deadline whatever the server does", function()
      both(function()
        for _, kind in ipairs { "silent", "trickle", "stall", "interim" } do
          local client = of(kind, { timeout = 0.15 })
          local begin = cqueues.monotime()
          local value, message, code = predict(client)
          assert.is_nil(value)
          if kind ~= "interim" then
            assert.same({ "DEADLINE_EXCEEDED", "no answer within 0.15 s" }, { code, message:match "no answer within 0.15 s" }, kind)
          else
            assert.equal("INTERNAL", code)
          end
          assert.is_true(cqueues.monotime() - begin < 3, kind)
          assert.same({ 0, 0 }, { client.pool:count() })
        end
        assert.equal("DEADLINE_EXCEEDED", select(3, predict(of "silent", { timeout = 0.1 })))
      end)
    end)

    it("says what is no HTTP", function()
      local names = cjson.decode(raw_http.request(tonumber(url:match "%d+$"), "GET", "/bad-names").body)
      assert.is_true(#names >= 17)
      for _, name in ipairs(names) do
        local value, message, code = predict(of("bad/" .. name))
        assert.same({ nil, "INTERNAL" }, { value, code }, name)
        assert.is_truthy(message:find("the answer is not valid HTTP", 1, true), message)
      end
      assert.equal(#names, asked "bad") -- none was asked again
    end)

    it("says when an answer ends too early", function()
      both(function()
        for _, kind in ipairs { "half", "halfhead", "halfchunk", "nothing" } do
          local value, message, code = predict(of(kind))
          assert.same({ nil, "UNAVAILABLE" }, { value, code }, kind)
          assert.is_truthy(message:find("the connection ended", 1, true))
        end
      end)
      assert.equal(2, asked "nothing") -- it may be the request that ends it
    end)

    it("never keeps more than it may", function()
      both(function()
        for _, kind in ipairs { "huge", "endless", "pouring", "bomb" } do
          collectgarbage()
          local value, message, code = predict(of(kind, { max_response = 100000 }))
          assert.same({ nil, "RESOURCE_EXHAUSTED" }, { value, code }, kind)
          assert.is_string(message)
        end
        assert.equal("INTERNAL", select(3, predict(of "longhead")))
        assert.equal("RESOURCE_EXHAUSTED", select(3, predict(of("ok", { max_response = 10 }))))
      end)
    end)

    it("asks once more when a connection from the pool is dead", function()
      both(function()
        for _, kind in ipairs { "stale", "swallow" } do
          local client = of(kind)
          for i = 1, 4 do assert.same(GOOD, (predict(client)), kind .. i) end
        end
        local client = of "swallowhalf" -- part of an answer: that was no dead connection
        assert.same(GOOD, (predict(client)))
        assert.equal("UNAVAILABLE", select(3, predict(client)))
      end)
    end)

    it("never asks twice for load and unload, nor on a used connection", function()
      local client = of "swallow"
      assert(predict(client))
      assert.same({ 1, 0 }, { client.pool:count() })
      assert.is_true(client:load "m")
      local before = asked "busy"
      client = of "busy/9"
      local done, _, code = client:load "m"
      assert.same({ nil, "UNAVAILABLE", nil, 1 }, { done, code, before, asked "busy" })
      client = of "nothing"
      assert.equal("UNAVAILABLE", select(3, client:unload "m"))
      assert.equal(1, asked "nothing")
    end)

    it("asks again when the server says when, as often as it may", function()
      assert.same(GOOD, (predict(of "busy/2")))
      assert.equal(3, asked "busy")
      assert.same({ "HTTP 503", "UNAVAILABLE" }, { select(2, predict(of "busy/7")) })
      assert.equal(6, asked "busy")
      assert.same(GOOD, (predict(of("busy/4", { retries = { attempts = 5, backoff = 0 } }))))
      assert.same(GOOD, (predict(of "toomany")))
      assert.equal("UNAVAILABLE", select(3, predict(of("busy/1", { retries = false }))))
      assert.same({ "queue is full", "UNAVAILABLE" }, { select(2, predict(of "full")) }) -- it does not say when
      assert.equal(1, asked "full")
      local begin = cqueues.monotime()
      assert.same({ "come back", "UNAVAILABLE" }, { select(2, predict(of "later")) }) -- not within the deadline
      assert.is_true(cqueues.monotime() - begin < 2)
    end)

    it("waits for a server that is not there, within the deadline", function()
      local port = nginx.free_port()
      local client = assert(mlserve.client { url = "http://127.0.0.1:" .. port, retries = { attempts = 3, backoff = 0.001 } })
      local value, message, code = predict(client)
      assert.same({ nil, "UNAVAILABLE" }, { value, code })
      assert.is_truthy(message:find("refused", 1, true), message)
      client = assert(mlserve.client { url = "http://127.0.0.1:" .. port, timeout = 10, retries = { attempts = 100, backoff = 0.02, max_backoff = 0.05 } })
      in_loop(function()
        local result = predict(client)
        assert.same(GOOD, result)
      end, function()
        cqueues.sleep(0.1)
        local socket = require "cqueues.socket"
        local listener = assert(socket.listen { host = "127.0.0.1", port = tostring(port), reuseaddr = true })
        local c = listener:accept()
        c:setmode("bn", "bn")
        while c:read "*l" ~= "\r" do end
        c:write('HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{"predictions": [1.5, 2.5]}')
        c:close()
        listener:close()
      end)
      assert.equal("UNAVAILABLE", select(3, assert(mlserve.client { url = "unix:/no/such/socket" }):predict("m", INPUT)))
    end)

    it("reads the answer of a server that does not want the rest", function()
      both(function()
        local value, message, code = of("early"):predict("m", core.zeros { 3000000 })
        assert.same({ nil, "too large", "RESOURCE_EXHAUSTED" }, { value, message, code })
      end)
    end)

    it("makes codes of statuses", function()
      for status, code in pairs { [400] = "INVALID_ARGUMENT", [401] = "UNAUTHENTICATED", [403] = "PERMISSION_DENIED", [404] = "NOT_FOUND",
        [409] = "ABORTED", [413] = "RESOURCE_EXHAUSTED", [418] = "INVALID_ARGUMENT", [500] = "INTERNAL", [501] = "UNIMPLEMENTED", [502] = "UNAVAILABLE",
        [504] = "DEADLINE_EXCEEDED", [599] = "INTERNAL", [301] = "UNKNOWN", [201] = "UNKNOWN" } do
        assert.same({ "HTTP " .. status, code }, { select(2, predict(of("status/" .. status))) })
      end
    end)

    it("makes tensors of what numbers look like", function()
      local function of_json(name, given)
        local value, message, code = of("json/" .. name):predict("m", INPUT, given)
        if value == nil then return code, message end
        return totable(value)
      end
      assert.same({ dtype = "float32", shape = { 3 }, value = { 1, 2, 2.5 } }, of_json "mixed")
      assert.same({ dtype = "int64", shape = { 1, 2 }, value = { { 1, 2 } } }, of_json "integers")
      assert.same({ dtype = "float64", shape = { 1, 2 }, value = { { 1, 2 } } }, of_json("integers", { dtypes = "float64" }))
      assert.same({ a = { dtype = "float32", shape = { 2 }, value = { 1, 2.5 } }, b = { dtype = "float32", shape = { 2, 1 }, value = { { 0.5 }, { 1 } } } },
        of_json "rows")
      assert.same({ dtype = "string", shape = { 1 }, value = { "\0\1\255" } }, of_json "bytes")
      local nan = of("json/nan"):predict("m", INPUT):totable()
      assert.same({ true, math.huge, -math.huge }, { nan[1] ~= nan[1], nan[2], nan[3] })
      assert.same({ { 1, 2 }, { 3 } }, of_json "ragged")
      assert.same({ label = { dtype = "string", shape = { 1 }, value = { "a" } }, p = { { a = 0.25, b = 0.75 } } }, of_json "maps")
      for _, name in ipairs { "text", "empty", "list", "nothing", "deep", "cut" } do
        assert.equal("DATA_LOSS", (of_json(name)), name)
      end
    end)

    it("believes no answer to infer that does not add up", function()
      local function infer(name)
        local value, message, code = of("infer/" .. name, { protocol = "kserve" }):predict("m", { x = INPUT })
        if value == nil then return code, message end
        return totable(value)
      end
      assert.same({ y = { dtype = "float32", shape = { 2 }, value = { 2, 1 } } }, infer "good")
      assert.same({ y = { dtype = "float32", shape = { 2 }, value = { 1, 2 } } }, infer "nested")
      for _, name in ipairs { "short", "long", "outside", "negative", "words", "neither", "count", "type", "shape", "wide", "datatype", "twice", "string" } do
        assert.equal("DATA_LOSS", (infer(name)), name)
      end
    end)

    it("sends what it was told", function()
      local client = of("echo", { headers = { Authorization = "Bearer x", ["X-A"] = 1 }, compression = "gzip" })
      local _, message = client:predict("a model/ä", { 1, 2 }, { version = 3, headers = { ["x-b"] = "c" } })
      assert.is_truthy(message:find("neither 'predictions'", 1, true))
      local response = cjson.decode(raw_http.request(tonumber(url:match "%d+$"), "POST", "/echo/x", "body").body)
      assert.equal("body", response.body)
      local seen
      client.protocol = setmetatable({ predict_answer = function(_, _, _, _, answer) seen = cjson.decode(answer.body) return INPUT end },
        { __index = client.protocol })
      assert(client:predict("a model/ä", { 1, 2.5, 0 / 0 }, { version = 3, headers = { ["x-b"] = "c" } }))
      assert.equal("POST /echo/v1/models/a%20model%2F%C3%A4/versions/3:predict HTTP/1.1", seen.line)
      assert.equal('{"inputs":[1,2.5,NaN]}', seen.body)
      local head = table.concat(seen.head, "\n"):lower()
      for _, field in ipairs { "host: " .. url:sub(8), "authorization: bearer x", "x-a: 1", "x-b: c", "accept-encoding: gzip",
        "content-type: application/json", "content-length: " .. #seen.body } do
        assert.is_truthy(("\n" .. head .. "\n"):find("\n" .. field .. "\n", 1, true), field .. "\n" .. head)
      end
      assert(client:predict("m", core.zeros { 2000 }))
      assert.is_truthy(table.concat(seen.head, "\n"):find("content-encoding: gzip", 1, true))
    end)

    it("stays usable while some calls fail", function()
      local fine, late = 0, 0
      local shared = of("late", { pool = { size = 3 } })
      in_loop(function()
        local loop = cqueues.running()
        for i = 1, 12 do
          loop:wrap(function()
            local value, _, code = predict(shared, { timeout = i % 2 == 0 and 0.05 or 10 })
            if value then fine = fine + 1 else late = late + (code == "DEADLINE_EXCEEDED" and 1 or 0) end
          end)
        end
      end)
      assert.same({ 6, 6 }, { fine, late })
      assert.same(0, (select(2, shared.pool:count())))
      assert.same(GOOD, (predict(shared)))
    end)

    it("refuses rather than waits when nobody could give a connection back", function()
      local shared = of("late", { pool = { size = 1 } })
      local code
      local loop = cqueues.new()
      loop:wrap(function() assert(predict(shared)) end)
      loop:step(0)
      code = select(3, predict(shared))
      assert(loop:loop(10))
      assert.equal("RESOURCE_EXHAUSTED", code)
      assert.same(GOOD, (predict(shared)))
    end)

    it("does the same from nginx", function()
      local port
      servers[#servers + 1], port = nginx.start {
        init = "",
        server = [[
          location / {
            content_by_lua_block {
              local core, client = require "mlserve.core", require "mlserve.client"
              local kind, rest = ngx.var.uri:match "^/([^:]+):?(.*)$"
              local c = assert(client { url = "]] .. url .. [[/" .. kind, timeout = tonumber(rest) or 5, max_response = 100000, retries = { backoff = 0.001 },
                pool = { size = 4 } })
              local out = {}
              for i = 1, 3 do
                local value, message, code = c:predict("m", core.tensor { 1 })
                out[i] = code or table.concat(value:totable(), ",")
              end
              ngx.say(table.concat(out, " "))
            }
          }
        ]],
      }
      local function ask(path) return (assert(raw_http.request(port, "GET", "/" .. path, nil, nil, 30)).body:gsub("%s+$", "")) end
      local good = "1.5,2.5 1.5,2.5 1.5,2.5"
      for _, kind in ipairs { "ok", "bytes", "continue", "chunked", "untilclose", "noreason", "close", "compressed", "stale", "swallow", "busy/2", "extra" } do
        assert.equal(good, ask(kind), kind)
      end
      for kind, code in pairs { ["silent:0.1"] = "DEADLINE_EXCEEDED", ["trickle:0.1"] = "DEADLINE_EXCEEDED", half = "UNAVAILABLE", halfhead = "UNAVAILABLE",
        nothing = "UNAVAILABLE", huge = "RESOURCE_EXHAUSTED", endless = "RESOURCE_EXHAUSTED", pouring = "RESOURCE_EXHAUSTED", bomb = "RESOURCE_EXHAUSTED",
        longhead = "INTERNAL", interim = "INTERNAL", ["bad/both"] = "INTERNAL", ["bad/newlines"] = "INTERNAL", ["json/cut"] = "DATA_LOSS",
        full = "UNAVAILABLE", later = "UNAVAILABLE", ["status/404"] = "NOT_FOUND" } do
        assert.equal((code .. " "):rep(3):sub(1, -2), ask(kind), kind)
      end
    end)
  end)

  describe("over TLS", function()
    local function certificate(name)
      directory = directory or process.directory()
      local key, cert = directory .. "/" .. name .. ".key", directory .. "/" .. name .. ".crt"
      assert(os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=%s -addext subjectAltName=DNS:%s,IP:127.0.0.1 "
        .. "-keyout %s -out %s 2>/dev/null"):format(name, name, key, cert)))
      return cert, key
    end

    it("checks who answers", function()
      local cert, key = certificate "localhost"
      local other = certificate "elsewhere"
      local url = rude(cert, key):gsub("http:", "https:")
      local function call(given)
        local client = assert(mlserve.client { url = url .. "/ok", tls = given, retries = false })
        local value, message, code
        for _ = 1, 2 do value, message, code = client:predict("m", core.tensor { 1 }) end
        local idle = client.pool:count()
        client:close()
        return value and value:totable() or code, message or idle
      end
      in_loop(function() assert.same({ { 1.5, 2.5 }, 1 }, { call { ca = cert } }) end)
      assert.same({ { 1.5, 2.5 }, 1 }, { call { ca = cert } })
      assert.same({ { 1.5, 2.5 }, 1 }, { call { ca = cert, server_name = "localhost" } })
      assert.same({ { 1.5, 2.5 }, 1 }, { call { verify = false } })
      for what, given in pairs { ["not known"] = {}, ["another's"] = { ca = other }, ["another name"] = { ca = cert, server_name = "elsewhere" } } do
        local code, message = call(given)
        assert.equal("UNAVAILABLE", code, what)
        assert.is_truthy(message:find("TLS", 1, true), message)
      end
      local client, message = mlserve.client { url = url, tls = { ca = directory .. "/none" } }
      assert.is_nil(client)
      assert.is_truthy(message:find("none", 1, true))
      assert.equal("UNAVAILABLE", select(3, assert(mlserve.client { url = url:gsub("https", "http"), retries = false }):live()))
    end)
  end)

  describe("over gRPC", function()
    local function client_of(url, given)
      local options = { url = url, protocol = "grpc-kserve" }
      for name, value in pairs(given or {}) do options[name] = value end
      return assert(mlserve.client(options))
    end
    local ONE = core.tensor { { 1, 2 } }

    it("does what it does over REST", function() run_cases((serve()), client_cases.GRPC) end)
    it("does the same in a loop", function()
      local url = serve()
      in_loop(function() run_cases(url, client_cases.GRPC) end)
    end)
    it("does the same over a Unix socket", function() run_cases((serve(true)), client_cases.GRPC) end)

    it("asks many things at a time on one connection", function()
      local client = client_of((serve()))
      local done, most = 0, 0
      in_loop(function()
        local loop = cqueues.running()
        for i = 1, 300 do
          loop:wrap(function()
            local y = assert(client:predict("double", core.tensor { { i, -i } }))
            assert.same({ { 2 * i, -2 * i } }, y:totable())
            done = done + 1
            local idle, busy = client.pool:count()
            most = math.max(most, idle + busy)
          end)
        end
      end)
      assert.same({ 300, 1 }, { done, most })
      assert.same({ { 2, 4 } }, assert(client:predict("double", ONE)):totable()) -- and afterwards without the loop
    end)

    it("moves large tensors", function()
      local client = client_of((serve()), { protocol = "grpc" })
      local x = core.random_uniform({ 200000, 2 }, -1, 1)
      local y = assert(client:predict("double", x))
      assert.equal(2 * x:get(200000, 2), y:get(200000, 2))
      client = client_of(client.options.url, { max_response = 1000 })
      assert.equal("RESOURCE_EXHAUSTED", select(3, client:predict("double", x)))
      local _, _, code = client:predict("double", core.zeros { 10000000, 2 }) -- more than the server takes
      assert.equal("RESOURCE_EXHAUSTED", code)
      assert.same({ { 2, 4 } }, assert(client:predict("double", ONE)):totable())
    end)

    it("streams requests and answers", function()
      local client = client_of((serve()))
      local function talk()
        local stream = assert(client:infer_stream())
        for i = 1, 20 do assert.is_true(stream:send("double", core.tensor { { i, 0 } }, { outputs = { "y" } })) end
        for i = 1, 20 do assert.equal(2 * i, assert(stream:receive()):get(1, 1)) end
        assert.is_true(stream:send("none", { x = ONE })) -- an answer that is an error ends nothing
        local value, message = stream:receive()
        assert.same({ nil, "Request for unknown model: 'none' is not found" }, { value, message })
        assert.is_false(stream:ended())
        assert.is_true(stream:send("pair", { a = ONE, b = ONE }))
        assert.same({ { 2, 4 } }, assert(stream:receive { timeout = 5 }).sum:totable())
        assert.same({ nil, "no answer within 0.05 s", "DEADLINE_EXCEEDED" }, { stream:receive { timeout = 0.05 } })
        stream:finish()
        assert.same({}, { stream:receive() })
        assert.is_true(stream:ended())
        assert.equal("CANCELLED", select(3, stream:send("double", ONE)) or "CANCELLED")
        assert.same({}, { stream:receive() })
      end
      talk()
      in_loop(talk, talk, talk)
      local stream = assert(client:infer_stream { timeout = 0.1 })
      assert.equal("DEADLINE_EXCEEDED", select(3, stream:receive()))
      stream = assert(client:infer_stream())
      stream:close()
      assert.equal("CANCELLED", select(3, stream:receive()))
    end)

    it("watches the server's health", function()
      local url, server = serve()
      local client = client_of(url)
      assert.equal("SERVING", client:health())
      assert.equal("NOT_FOUND", select(3, client:health { service = "nobody" }))
      local watch = assert(client:watch())
      assert.equal("SERVING", watch:receive())
      assert.equal("DEADLINE_EXCEEDED", select(3, watch:receive { timeout = 0.05 }))
      server:signal "TERM"
      local state, _, code
      repeat state, _, code = watch:receive() until state == nil or state == "NOT_SERVING"
      assert.is_true(state == "NOT_SERVING" or code == "UNAVAILABLE" or watch:ended())
      watch:close()
      assert(server:code(10))
      assert.equal("UNAVAILABLE", select(3, client:predict("double", { x = ONE })))
    end)

    it("connects anew when the server has gone and come back", function()
      local url, server = serve()
      local client = client_of(url, { retries = { attempts = 50, backoff = 0.05, max_backoff = 0.2 } })
      assert(client:predict("double", { x = ONE }))
      server:stop()
      process.write(directory .. "/serve.lua", SERVE:format(url:match "%d+$", "nil", ""))
      start(process.spawn_lua(directory .. "/serve.lua"))
      assert(client:predict("double", { x = ONE }))
    end)

    it("keeps deadlines, metadata and misuse apart", function()
      local client = client_of((serve()), { headers = { ["x-a"] = "b", ["x-b-bin"] = "\0\255" } })
      assert(client:predict("double", { x = ONE }, { headers = { authorization = "Bearer x" } }))
      assert.equal("DEADLINE_EXCEEDED", select(3, client:predict("double", { x = ONE }, { timeout = 1e-6 })))
      assert.same({ { 2, 4 } }, assert(client:predict("double", { x = ONE })).y:totable())
      for _, name in ipairs { "grpc-timeout", "te", "a b", "content-type" } do
        assert.has_error(function() client:live { headers = { [name] = "x" } } end)
      end
      assert.has_error(function() client:live { headers = { a = "\255" } } end)
      assert.has_error(function() client:predict("double", { x = ONE }, { binary = true }) end)
      assert.has_error(function() client:predict("double", { x = ONE }, { signature = "a" }) end)
      assert.has_error(function() mlserve.client({ url = client.options.url }):watch() end)
    end)

    it("takes no answer for what it is not", function()
      local server = start(process.spawn_lua "spec/support/rude_grpc.lua")
      local url = "http://127.0.0.1:" .. server:expect "port (%d+)\n"
      local function live(kind, given)
        local options = { timeout = 5, max_response = 100000, retries = { backoff = 0.001 } }
        for name, value in pairs(given or {}) do options[name] = value end
        local client = client_of(url .. "/" .. kind, options)
        local ok, message, code = client:live()
        local idle, busy = client.pool:count()
        assert.equal(0, busy, kind)
        client:close()
        return ok or code, message, idle
      end
      local function both(f)
        f()
        in_loop(f)
      end
      both(function()
        for _, kind in ipairs { "ok", "gzip" } do assert.same({ true, nil, 1 }, { live(kind) }, kind) end
        assert.same({ "FAILED_PRECONDITION", "caf\195\169 100% %zz", 1 }, { live "error" })
        for kind, code in pairs { unknown = "UNKNOWN", nostatus = "INTERNAL", html = "UNKNOWN", ["http/404"] = "UNIMPLEMENTED", ["http/503"] = "UNAVAILABLE",
          ["http/401"] = "UNAUTHENTICATED", ["http/418"] = "UNKNOWN", none = "INTERNAL", two = "INTERNAL", cut = "INTERNAL", flag = "INTERNAL", unnamed = "INTERNAL",
          broken = "INTERNAL", bomb = "RESOURCE_EXHAUSTED", large = "RESOURCE_EXHAUSTED", message = "DATA_LOSS", ["reset/2"] = "INTERNAL",
          ["reset/8"] = "CANCELLED", ["reset/11"] = "RESOURCE_EXHAUSTED", ["reset/12"] = "PERMISSION_DENIED", fields = "RESOURCE_EXHAUSTED",
          hangup = "UNAVAILABLE", midway = "UNAVAILABLE" } do
          assert.equal(code, (live(kind)), kind)
        end
        for _, kind in ipairs { "silent", "half" } do
          local code, message = live(kind, { timeout = 0.1 })
          assert.same({ "DEADLINE_EXCEEDED", "no answer within 0.1 s" }, { code, message }, kind)
        end
      end)
      local function count(kind)
        local _, message = live("asked/" .. kind)
        return message
      end
      assert.same({ true, "4" }, { (live("refused/3", { retries = { attempts = 5, backoff = 0.001 } })), count "refused" }) -- none of them was looked at
      assert.same({ true, "3" }, { (live "busy/2"), count "busy" })
      assert.same({ "UNAVAILABLE", "busy", 1 }, { live "busy/99" })
      assert.equal("6", count "busy")
      assert.equal("2", count "hangup") -- once from each side of both: it may be the request that ends it
      local client = client_of(url .. "/leave", { retries = false })
      local before = tonumber((select(2, live "connections")))
      for _ = 1, 3 do assert.is_true(client:live()) end
      assert.equal(before + 4, tonumber((select(2, live "connections")))) -- a new one each time, and the one that asks
      client = client_of(url .. "/second", { retries = { backoff = 0.001 } })
      for _ = 1, 4 do assert.is_true(client:live()) end -- a connection that was used before may die: asked again on a new one
      local done, _, code = client:load "m"
      assert.is_true(done == nil and code == "UNAVAILABLE" or done) -- never asked twice
      assert.is_nil(server:log():match "error[^\n]*")
    end)

    it("speaks TLS, and HTTP/2 only", function()
      directory = process.directory()
      local key, cert = directory .. "/key", directory .. "/cert"
      assert(os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext "
        .. "subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout %s -out %s 2>/dev/null"):format(key, cert)))
      process.write(directory .. "/serve.lua", SERVE:gsub("rest = {", ('tls = { cert = %q, key = %q }, rest = {'):format(cert, key)):format("0", "nil", ""))
      local server = start(process.spawn_lua(directory .. "/serve.lua"))
      local url = "https://127.0.0.1:" .. server:expect "listening on https?://127%.0%.0%.1:(%d+)\n"
      local client = client_of(url, { tls = { ca = cert } })
      local x = core.random_uniform({ 100000, 2 }, -1, 1)
      assert(client:predict("double", x))
      in_loop(function()
        local loop = cqueues.running()
        for i = 1, 20 do
          loop:wrap(function() assert.equal(2 * i, assert(client:predict("double", core.tensor { { i, 0 } })):get(1, 1)) end)
        end
      end)
      assert.equal("UNAVAILABLE", select(3, client_of(url, { retries = false }):live()))
      local rude_url = rude(cert, key):gsub("http:", "https:")
      local _, message, code = client_of(rude_url, { tls = { ca = cert }, retries = false }):live()
      assert.same({ "UNAVAILABLE", true }, { code, message:find("HTTP/2", 1, true) ~= nil })
      local rest = assert(mlserve.client { url = url, tls = { ca = cert } })
      assert(rest:predict("double", { { 1, 2 } }))
    end)

    it("says what answers that are no gRPC are", function()
      local url = rude()
      local port = tonumber(url:match "%d+$")
      assert.equal("UNAVAILABLE", select(3, client_of(url, { retries = false }):live())) -- HTTP/1.1
      assert.equal("UNAVAILABLE", select(3, client_of("http://127.0.0.1:" .. nginx.free_port(), { retries = { attempts = 2, backoff = 0.01 } }):live()))
      assert.is_number(port)
      local rest = serve()
      local client = client_of(rest .. "/v1/models") -- a prefix that leads to REST: HTTP, but no gRPC
      local live, message, code = client:live()
      assert.is_false(live)
      assert.is_string(message)
      assert.is_truthy(code == "INTERNAL" or code == "UNIMPLEMENTED" or code == "UNKNOWN")
    end)
  end)

  describe("refuses misuse", function()
    local function misuse(pattern, f, ...)
      local ok, message = pcall(f, ...)
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find(pattern), message)
      assert.is_truthy(tostring(message):find "client_spec.lua:%d+:", message)
    end

    it("when it is made", function()
      misuse("option 'url' %(string%) is missing", function() mlserve.client {} end)
      for _, url in ipairs { "localhost:8501", "ftp://a", "http://", "http://a:0", "http://a:99999", "http://u@a", "http://a?b", "http://a/\1", "unix:a" } do
        misuse("option 'url'", function() mlserve.client { url = url } end)
      end
      misuse("unknown option 'protocl'; known: binary, compression, headers, max_response, pool, protocol, retries, timeout, tls, url",
        function() mlserve.client { url = "http://a", protocl = "x" } end)
      misuse("one of tfserving, kserve", function() mlserve.client { url = "http://a", protocol = "rest" } end)
      misuse("timeout: unknown option 'conect'", function() mlserve.client { url = "http://a", timeout = { conect = 1 } } end)
      misuse("timeout: option 'request'", function() mlserve.client { url = "http://a", timeout = { request = 0 } } end)
      misuse("retries: unknown option", function() mlserve.client { url = "http://a", retries = { times = 1 } } end)
      misuse("pool: option 'size'", function() mlserve.client { url = "http://a", pool = { size = 0 } } end)
      misuse("headers: invalid name 'a b'", function() mlserve.client { url = "http://a", headers = { ["a b"] = "c" } } end)
      misuse("headers: 'a'", function() mlserve.client { url = "http://a", headers = { a = "b\r\nc: d" } } end)
      misuse("'Content%-Length' is set by the client", function() mlserve.client { url = "http://a", headers = { ["Content-Length"] = "1" } } end)
    end)

    it("when it is called", function()
      local client = assert(mlserve.client { url = "http://127.0.0.1:1" })
      local kserve = assert(mlserve.client { url = "http://127.0.0.1:1", protocol = "kserve" })
      misuse("name of a model expected, got nil", function() client:predict() end)
      misuse("inputs expected, got nil", function() client:predict "m" end)
      misuse("unknown option 'verson'", function() client:predict("m", { 1 }, { verson = 1 }) end)
      misuse("either version or label", function() client:predict("m", { 1 }, { version = 1, label = "a" }) end)
      misuse("option 'id' is not part of protocol 'tfserving'", function() client:predict("m", { 1 }, { id = "a" }) end)
      misuse("option 'signature' is not part of protocol 'kserve'", function() kserve:predict("m", { 1 }, { signature = "a" }) end)
      misuse("input 'x': a value of type function", function() client:predict("m", { x = print }) end)
      misuse("'a' has 2 rows, 'b' has 1", function() client:predict("m", { a = { 1, 2 }, b = { 1 } }, { format = "row" }) end)
      misuse("example 1, feature 'a': .*got function", function() client:classify("m", { { a = print } }) end)
      misuse("example 1: a table of features", function() client:regress("m", { 1 }) end)
      misuse("outputs: names expected", function() kserve:predict("m", { x = core.tensor { 1 } }, { outputs = { 1 } }) end)
      misuse("headers", function() client:live { headers = { ["a:"] = "b" } } end)
    end)
  end)

  it("reads Retry-After and computes pauses", function()
    assert.equal(120, http.retry_after "120")
    assert.equal(37, http.retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111740)) -- 784111777, as RFC 9110's date is
    assert.equal(0, http.retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111800))
    assert.equal(951827696 - 951782400, http.retry_after("Tue, 29 Feb 2000 12:34:56 GMT", 951782400)) -- date -u -d
    for _, field in ipairs { "", "soon", "-1", "1.5", "Sun, 06 Xyz 1994 08:49:37 GMT" } do assert.is_nil(http.retry_after(field)) end
    local retries = { backoff = 0.1, max_backoff = 1, jitter = true }
    assert.equal(0.05, http.backoff(retries, 1, 0.5))
    assert.equal(0.2, http.backoff(retries, 3, 0.5))
    assert.equal(1, http.backoff(retries, 99, 1))
    assert.equal(0.4, http.backoff({ backoff = 0.1, max_backoff = 1, jitter = false }, 3, 0))
  end)

  it("is there when it is asked for", function()
    assert.equal(require "mlserve.client", mlserve.client)
    local client = assert(mlserve.client { "http://127.0.0.1:8501" })
    assert.is_true(mlserve.client.is(client))
    assert.is_false(mlserve.client.is {})
    assert.equal("client of http://127.0.0.1:8501 (tfserving)", tostring(client))
  end)
end)
