-- A model server whose memory can be made to fail, for specs: lua test_faults.lua BASE; serves the model "m" of the directory BASE, always batched
-- as "batched" too. POST /fail/N: the N-th allocation of the core from the end of this request on fails, once; 0: none does.

local core = require "mlserve.core"

local server = assert(require("mlserve.serve.server") { rest = { port = 0 }, retries = 100, retry_interval = 0.1,
  batching = { models = { batched = { mode = "always" }, m = { mode = "never" } } } })

assert(server:add_directory("m", arg[1]))
assert(server:add_directory("batched", arg[1]))
server.app:route("POST", "^/fail/(%d+)$", function(_, n)
  core.alloc_fail_at(tonumber(n))
  return { status = 200, body = "" }
end)
io.stdout:setvbuf "line"
os.exit(server:run() and 0 or 1)
