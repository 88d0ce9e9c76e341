-- The same command line and the same requests through every transport: spec/serve/protocol_cases.lua.

local cases = require "spec.serve.protocol_cases"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"

local quote = process.quote

for _, transport in ipairs { "http", "nginx" } do
  describe("mlserve serve --transport " .. transport, function()
    local server, models

    after_each(function()
      if server then server:stop() end
      os.execute("rm -rf " .. quote(models))
      server = nil
    end)

    it("answers the cases", function()
      models = process.directory()
      os.execute(("mkdir -p %s/3; cp %s/model.onnx %s/3/; chmod -R a+rX %s"):format(models, cases.model, models, models))
      server = process.spawn(("env LUA_PATH=%s LUA_CPATH=%s %s bin/mlserve serve --transport %s --rest-port 0 --model penguins=%s"):format(
        quote(package.path), quote(package.cpath), process.lua, transport, quote(models)))
      local connection = raw_http.connect(tonumber((server:expect("listening on http://127%.0%.0%.1:(%d+)", 20))))
      assert.is_true(cases.run(connection) >= 20)
      connection:close()
      server:signal "TERM"
      assert.are.equal(0, server:code(15))
    end)
  end)
end
