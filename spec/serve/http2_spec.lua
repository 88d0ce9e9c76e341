-- HTTP/2 and TLS through programs that others wrote: curl, nghttp, h2load, openssl. What attackers do is in http2_hostile_spec.

local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"

local quote = process.quote

local function run(command)
  local pipe = io.popen("timeout 60 " .. command .. " 2>&1")
  local text = pipe:read "*a"
  pipe:close()
  return text
end

-- status line, header fields in order of name, body
local function parts(answer)
  local head, body = answer:match "^(.-\r\n)\r\n(.*)$"
  local fields = {}
  for name, value in head:gmatch "\n([^:\r\n]+): ([^\r\n]*)" do
    if name:lower() ~= "date" then fields[#fields + 1] = name:lower() .. ": " .. value end
  end
  table.sort(fields)
  return head:match "^HTTP/[%d.]+ (%d%d%d)", table.concat(fields, "\n"), body
end

describe("HTTP/2", function()
  local server, port, directory

  local function start(options)
    server = process.spawn_lua("spec/support/test_server.lua", options or "{}")
    port = tonumber(server:expect "port (%d+)\n")
  end

  setup(function() directory = process.directory() end)
  teardown(function() os.execute("rm -rf " .. quote(directory)) end)
  after_each(function()
    if server then server:stop() end
    server = nil
  end)

  it("answers as HTTP/1.1 does", function()
    start()
    process.write(directory .. "/large", ("0123456789"):rep(300000))
    for _, arguments in ipairs {
      "/count", "'/echo?a=%20b'", "-d hello /nowhere", "-X DELETE /v1/models/m", "/v1/models/m", "-d '{\"instances\": [1]}' /v1/models/m:predict",
      "-d nonsense /v1/models/m:predict", "/v1/models/absent", "/raise", "/nonsense", "/forge", "/nothing", "-I /count", "/sleep/20", "/big/3000000",
      "-H 'accept-encoding: gzip' /big/3000000", "-d '' /echo", "-H 'cookie: a' -H 'x: 1' -H 'x: 2' /echo", "-H 'content-encoding: gzip' -d x /echo",
      "-H expect: --data-binary @" .. directory .. "/large /echo",
    } do
      local options, path = arguments:match "^(.-)'?(/[^ ]*)$"
      path = path:gsub("'", "")
      local answers = {}
      for i, version in ipairs { "--http1.1", "--http2-prior-knowledge" } do
        answers[i] = { parts(run(("curl -sS -i %s %s -A agent %s"):format(version, options, quote("http://127.0.0.1:" .. port .. path)))) }
      end
      assert.truthy(tonumber(answers[1][1]), arguments)
      -- connection-specific fields are HTTP/1.1's alone
      answers[1][2] = answers[1][2]:gsub("^connection: [^\n]*\n?", ""):gsub("\nconnection: [^\n]*", "")
      assert.are.same(answers[1], answers[2], arguments)
    end
  end)

  it("serves a hundred streams of one connection, and many connections", function()
    start()
    for _, shape in ipairs { "-c 1 -m 100 -n 5000", "-c 50 -m 1 -n 5000", "-c 8 -m 4 -n 5000 -d spec/serve/http2_spec.lua" } do
      assert.truthy(run("h2load " .. shape .. " http://127.0.0.1:" .. port .. "/echo"):find("requests: 5000 total, 5000 started, 5000 done, 5000 succeeded, "
        .. "0 failed", 1, true), shape)
    end
    assert.are.equal("1", raw_http.request(port, "GET", "/count").body)
    assert.are.equal("0", raw_http.request(port, "GET", "/buffered").body)
  end)

  it("sends trailers, also behind streams", function()
    start()
    local text = run("nghttp -v -d spec/serve/http2_spec.lua http://127.0.0.1:" .. port .. "/stream/echo")
    assert.truthy(text:find("x%-kind: echo.*recv DATA.*pieces: %d+.*END_STREAM"))
    text = run("nghttp -nv http://127.0.0.1:" .. port .. "/stream/big")
    assert.truthy(text:find("written: 8000000", 1, true))
  end)

  it("lets streaming handlers answer HTTP/1 in chunks, and shows when one has failed", function()
    start()
    local answer = raw_http.request(port, "POST", "/stream/echo", "hello")
    assert.are.same({ 200, "chunked", "echo", "hello" },
      { answer.status, answer.headers["transfer-encoding"], answer.headers["x-kind"], answer.body })
    assert.are.equal(8000000, #raw_http.request(port, "GET", "/stream/big", nil, nil, 20).body)
    local connection = raw_http.connect(port)
    connection:send "POST /stream/echo HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc"
    local rest, closed = connection:rest()
    assert.is_true(closed)
    assert.truthy(rest:find("\r\n\r\nabc$"))
    connection:close()
    connection = raw_http.connect(port)
    connection:send "POST /stream/raise HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
    rest, closed = connection:rest()
    connection:close()
    assert.is_true(closed)
    assert.truthy(rest:find("\r\n\r\n1\r\na\r\n$")) -- no last chunk
    assert.are.equal("enough", raw_http.request(port, "POST", "/stream/early", "x").body)
  end)

  describe("over TLS", function()
    local function make(commands)
      for _, command in ipairs(commands) do
        assert(os.execute("cd " .. quote(directory) .. " && openssl " .. command .. " >/dev/null 2>&1"), command)
      end
    end

    local function certificate(name)
      make {
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout " .. name .. ".key -out " .. name .. ".csr -subj /CN=localhost "
          .. "-addext subjectAltName=DNS:localhost,IP:127.0.0.1",
        "x509 -req -in " .. name .. ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -copy_extensions copy -out " .. name .. ".pem",
      }
    end

    local function curl(arguments)
      return (run("curl -sS --cacert " .. directory .. "/ca.pem " .. arguments:gsub("URL", "https://localhost:" .. port)))
    end

    setup(function()
      make { "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=ca" }
      make { "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.pem -days 30 -subj /CN=other" }
      certificate "server"
      certificate "client"
      process.write(directory .. "/large", ("0123456789"):rep(300000))
    end)

    local function files(more)
      return ("{ cert = %q, key = %q %s }"):format(directory .. "/server.pem", directory .. "/server.key", more or "")
    end

    it("speaks both versions by ALPN, whatever the size", function()
      start("{ tls = " .. files() .. " }")
      for version, shown in pairs { ["--http1.1"] = "1.1", ["--http2"] = "2", ["--http1.0"] = "1.1" } do
        assert.are.equal("slept " .. shown, curl(version .. " -w ' %{http_version}' URL/sleep/10"))
        assert.truthy(curl(version .. " -H expect: --data-binary @" .. directory .. "/large URL/echo"):find("\n3000000\n", 1, true))
        assert.are.equal("20000000", (curl(version .. " URL/big/20000000 | wc -c"):gsub("%s", "")))
      end
      assert.truthy(run("h2load -c 8 -m 16 -n 4000 https://127.0.0.1:" .. port .. "/count"):find("4000 succeeded, 0 failed", 1, true))
      assert.truthy(curl("-d hello --http2 URL/stream/echo"):find("hello", 1, true))
    end)

    it("refuses old TLS, plain text and clients of no interest, and goes on", function()
      start("{ tls = " .. files() .. ", head_timeout = 1 }")
      assert.truthy(curl("--tls-max 1.1 URL/count"):find("curl: (35)", 1, true))
      assert.truthy(run("curl -sS http://127.0.0.1:" .. port .. "/count"):find("curl: (", 1, true))
      assert.truthy(run("curl -sS https://localhost:" .. port .. "/count"):find("curl: (60)", 1, true)) -- an authority it does not know
      local silent = raw_http.connect(port)
      assert.are.same({ "", true }, { silent:rest(4) })
      silent:close()
      local garbage = raw_http.connect(port)
      garbage:send(("\22\3\1"):rep(1000))
      assert.is_true((select(2, garbage:rest(4))))
      garbage:close()
      assert.are.equal("1", curl "URL/count")
    end)

    it("asks clients for a certificate", function()
      start(("{ tls = %s }"):format(files((", client_ca = %q"):format(directory .. "/ca.pem"))))
      local shown = "--cert " .. directory .. "/%s.pem --key " .. directory .. "/%s.key URL/count"
      assert.truthy(curl "URL/count":find("curl: (", 1, true))
      assert.truthy(curl(shown:gsub("%%s", "other")):find("curl: (", 1, true))
      for _ = 1, 2 do assert.are.equal("1", curl("--http2 " .. shown:gsub("%%s", "client"))) end
      assert.are.equal("1", curl("--http1.1 --tls-max 1.2 " .. shown:gsub("%%s", "client")))
    end)

    it("takes TensorFlow Serving's configuration", function()
      local function text(name) return (process.slurp(directory .. "/" .. name):gsub("\n", "\\n")) end
      process.write(directory .. "/ssl.cfg", ('server_key: "%s"\nserver_cert: "%s"\ncustom_ca: "%s"\nclient_verify: true\n')
        :format(text "server.key", text "server.pem", text "ca.pem"))
      start(("{ tls = { config = %q } }"):format(directory .. "/ssl.cfg"))
      assert.truthy(curl "URL/count":find("curl: (", 1, true))
      assert.are.equal("1", curl(("--cert %s/client.pem --key %s/client.key URL/count"):format(directory, directory)))
    end)

    it("names what is wrong with a file", function()
      local tls = require "mlserve.serve.transports.tls"
      local function problem(given) return (select(2, tls.context(given))) end
      local cert, key = directory .. "/server.pem", directory .. "/server.key"
      process.write(directory .. "/empty", "")
      process.write(directory .. "/broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
      make { "ec -in server.key -aes128 -passout pass:x -out locked.key" }
      assert.truthy(tls.context { cert = cert, key = key })
      assert.truthy(problem { cert = directory .. "/absent", key = key }:find("absent: No such file", 1, true))
      assert.truthy(problem { cert = directory .. "/empty", key = key }:find("empty: no certificate in PEM form", 1, true))
      assert.truthy(problem { cert = directory .. "/broken", key = key }:find("broken: certificate 1: ", 1, true))
      assert.truthy(problem { cert = cert, key = cert }:find("server.pem: no private key in PEM form", 1, true))
      assert.truthy(problem { cert = cert, key = directory .. "/locked.key" }:find("locked.key: the private key is encrypted", 1, true))
      assert.truthy(problem { cert = cert, key = directory .. "/client.key" }:find("client.key does not belong to .*server.pem"))
      assert.truthy(problem { cert = cert, key = key, client_ca = directory .. "/empty" }:find("empty: no certificate", 1, true))
      assert.truthy(problem { config = directory .. "/empty" }:find("empty: server_key and server_cert expected", 1, true))
      assert.truthy(problem { cert = cert }:find("a certificate and a key", 1, true))
    end)

    it("takes new certificates on SIGHUP, in one process and in several, beside a second port and a Unix socket", function()
      for _, workers in ipairs { 1, 2 } do
        certificate "server"
        server = process.spawn_lua("spec/support/test_workers.lua", ("{ rest = { port = 0, workers = %d, unix_socket = %q }, grpc = { port = 0 }, tls = %s }")
          :format(workers, directory .. "/socket", files()))
        local address, second = server:expect "listening on (%S+), ", server:expect "listening on %S+ (%S+),"
        port = tonumber(address:match ":(%d+)$")
        local grpc_port = tonumber(second:match "https://127.0.0.1:(%d+)")
        assert.truthy(address:find("^https://"))
        local function serial()
          return run(("sh -c 'echo | openssl s_client -connect 127.0.0.1:%d 2>/dev/null | openssl x509 -noout -serial'"):format(port)):match "serial=(%x+)"
        end
        assert.truthy(process.wait(5, function() return tonumber(curl "--http2 URL/who") end))
        assert.truthy(tonumber((curl("--http2 URL/who"):gsub("\n", ""))))
        assert.truthy(tonumber(run(("curl -sS --http2 --cacert %s/ca.pem https://localhost:%d/who"):format(directory, grpc_port))))
        assert.are.equal(200, raw_http.request(directory .. "/socket", "GET", "/who").status)
        assert.truthy(tonumber(run(("curl -sS --http2-prior-knowledge --unix-socket %s/socket http://localhost/who"):format(directory))))
        local first = serial()
        certificate "server"
        server:signal "HUP"
        assert.truthy(process.wait(10, function() return serial() ~= first end), "the old certificate is still shown")
        process.write(directory .. "/server.pem", "broken")
        server:signal "HUP"
        server:expect "reload: [^\n]*server.pem: no certificate"
        assert.truthy(tonumber(curl "--http2 URL/who"))
        assert.are.equal(0, server:stop())
        server = nil
      end
    end)
  end)

  it("is asked for on the command line", function()
    local command = process.lua .. " bin/mlserve serve --model m=" .. directory .. "/m --rest-port 0 "
    local environment = "env LUA_PATH=" .. quote(package.path) .. " LUA_CPATH=" .. quote(package.cpath) .. " "
    os.execute("mkdir -p " .. directory .. "/m/1 && cp $(find spec/golden -name model.onnx | LC_ALL=C sort | head -n 1) " .. directory .. "/m/1/model.onnx")
    assert.truthy(run(environment .. command .. "--tls-cert a"):find("--tls-cert and --tls-key belong together", 1, true))
    assert.truthy(run(environment .. command .. "--ssl_config_file a --tls-key b"):find("instead of", 1, true))
    assert.truthy(run(environment .. command .. "--tls-cert /absent --tls-key b"):find("/absent: No such file", 1, true))
    assert(os.execute("cd " .. quote(directory) .. " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem -out c.pem "
      .. "-days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost >/dev/null 2>&1"))
    server = process.spawn(environment .. command .. "--grpc-port 0 --tls-cert " .. directory .. "/c.pem --tls-key " .. directory .. "/k.pem")
    local first, second = server:expect("listening on ([^\n]*)"):match "https://127.0.0.1:(%d+), https://127.0.0.1:(%d+)"
    for _, each in ipairs { first, second } do
      assert.are.equal("200 2", run(("curl -sS --http2 --cacert %s/c.pem -o /dev/null -w '%%{http_code} %%{http_version}' https://localhost:%s/v1/models/m")
        :format(directory, each)))
    end
    assert.are.equal(0, server:stop())
    server = nil
  end)

  it("works with several workers and a second port", function()
    server = process.spawn_lua("spec/support/test_workers.lua", "{ rest = { port = 0, workers = 2 }, grpc = { port = 0 } }")
    local both = server:expect "listening on ([^\n]*)"
    local first, second = both:match "http://127.0.0.1:(%d+), http://127.0.0.1:(%d+)"
    for _, each in ipairs { first, second } do
      assert.truthy(process.wait(5, function() return tonumber(run("curl -sS --http2-prior-knowledge http://127.0.0.1:" .. each .. "/who")) end))
      assert.are.equal(200, raw_http.request(tonumber(each), "GET", "/who").status)
      assert.truthy(run("h2load -c 8 -m 8 -n 2000 http://127.0.0.1:" .. each .. "/who"):find("2000 succeeded, 0 failed", 1, true))
    end
    -- a drain answers what was begun
    local pipe = io.popen("curl -sS --http2-prior-knowledge http://127.0.0.1:" .. first .. "/sleep/700")
    process.wait(0.3, function() end)
    server:signal "TERM"
    assert.truthy(tonumber(pipe:read "*a"))
    pipe:close()
    assert.are.equal(0, server:code(10))
  end)
end)
