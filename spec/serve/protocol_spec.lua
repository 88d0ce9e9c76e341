-- The same command line and the same requests through every transport: spec/serve/protocol_cases.lua.

local cases = require "spec.serve.protocol_cases"
local grpc_curl = require "spec.support.grpc_curl"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"

local quote = process.quote

for _, transport in ipairs { "http", "nginx" } do
  describe("mlserve serve --transport " .. transport, function()
    local server, models

    local function start(more)
      server = process.spawn(("env LUA_PATH=%s LUA_CPATH=%s %s bin/mlserve serve --transport %s --rest-port 0 --grpc-port 0 --model penguins=%s %s"):format(
        quote(package.path), quote(package.cpath), process.lua, transport, quote(models), more or ""))
      return server:expect("listening on (https?://127%.0%.0%.1:%d+)", 20), server:expect("listening on %S+, (https?://127%.0%.0%.1:%d+)", 20)
    end

    setup(function()
      models = process.directory()
      os.execute(("mkdir -p %s/3; cp %s/model.onnx %s/3/; chmod -R a+rX %s"):format(models, cases.model, models, models))
    end)
    teardown(function() os.execute("rm -rf " .. quote(models)) end)

    after_each(function()
      if server then server:stop() end
      server = nil
    end)

    it("answers the cases", function()
      local connection = raw_http.connect(tonumber((start():match "%d+$")))
      assert.is_true(cases.run(connection) >= 20)
      connection:close()
      server:signal "TERM"
      assert.are.equal(0, server:code(15))
    end)

    it("answers those of gRPC and gRPC-Web", function()
      local rest_url, grpc_url = start()
      assert.is_true(cases.run_grpc(grpc_url) >= 35)
      cases.run_streams(grpc_url)
      assert.is_true(cases.run_web(rest_url, 1) >= 10)
      assert.is_true(cases.run_web(grpc_url, 2) >= 10)
      server:signal "TERM"
      assert.are.equal(0, server:code(15))
    end)

    if transport == "nginx" then
      it("has a status of gRPC for bodies that nginx refuses", function()
        local rest_url, grpc_url = start "--max-body 100000"
        local input = models .. "/large"
        process.write(input, "\0\0\1\134\160" .. ("x"):rep(100000))
        for _, length in ipairs { "", "--no-content-length" } do
          local pipe = io.popen(("nghttp -v %s -H 'content-type: application/grpc' -d %s %s/grpc.health.v1.Health/Check"):format(length, quote(input), grpc_url))
          local text = pipe:read "*a"
          pipe:close()
          assert.truthy(text:find("grpc-status: 8", 1, true), text)
          assert.truthy(text:find("grpc-message: Received message larger than max (100000)", 1, true), text)
        end
        local response = grpc_curl.request(rest_url .. "/v1/models/penguins:predict", { body = ("x"):rep(100001), version = 1, type = "application/json" })
        assert.are.same({ 413, '{"error": "the body is over the limit of 100000 bytes"}' }, { response.status, response.body })
      end)
    end

    it("speaks TLS, both versions of HTTP on both ports", function()
      local key, cert = models .. "/key.pem", models .. "/cert.pem"
      assert(os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout %s -out %s 2>/dev/null"):format(
        quote(key), quote(cert))))
      local config = models .. "/ssl.cfg" -- TensorFlow Serving's, with the texts in it
      process.write(config, ('server_key: "%s" server_cert: "%s" client_verify: false'):format((process.slurp(key):gsub("\n", "\\n")),
        (process.slurp(cert):gsub("\n", "\\n"))))
      for _, flags in ipairs { ("--tls-cert %s --tls-key %s"):format(quote(cert), quote(key)), "--ssl_config_file " .. quote(config) } do
        for _, url in ipairs { start(flags) } do
          assert.are.equal("https", url:match "^%w+")
          for version = 1, 2 do
            local response = grpc_curl.request(url .. "/v1/models/penguins", { method = "GET", version = version, type = "text/plain" })
            assert.are.same({ 200, tostring(version) }, { response.status, response.version:sub(1, 1) })
            assert.truthy(response.body:find('"state": "AVAILABLE"', 1, true))
          end
          local response = grpc_curl.request(url .. "/grpc.health.v1.Health/Check", { body = "\0\0\0\0\0" })
          assert.are.same({ "0", "\0\0\0\0\2\8\1" }, { response.fields["grpc-status"], response.body })
          cases.run_streams(url)
        end
        server:stop()
      end
      server = process.spawn(("env LUA_PATH=%s LUA_CPATH=%s %s bin/mlserve serve --transport %s --rest-port 0 --model penguins=%s --tls-cert %s --tls-key %s"):format(
        quote(package.path), quote(package.cpath), process.lua, transport, quote(models), quote(key), quote(cert)))
      assert.are_not.equal(0, server:code(10))
      assert.truthy(server:log():find("no certificate in PEM form", 1, true), server:log())
    end)
  end)
end
