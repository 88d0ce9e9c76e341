-- Where a server listens: Unix sockets, sockets passed by systemd, and what it tells systemd.

local cqueues_socket = require "cqueues.socket"
local net = require "mlserve.net"
local process = require "spec.support.process"
local raw_http = require "spec.support.raw_http"

local quote = process.quote

local function lua_words(...)
  local words = { "LUA_PATH=" .. quote(package.path), "LUA_CPATH=" .. quote(package.cpath), process.lua }
  for i = 1, select("#", ...) do words[#words + 1] = quote((select(i, ...))) end
  return table.concat(words, " ")
end

local function output(command)
  local pipe = io.popen(command)
  local text = pipe:read "*a"
  pipe:close()
  return (text:gsub("%s+$", ""))
end

describe("a Unix socket", function()
  local directory, path, server

  before_each(function()
    directory = process.directory()
    path = directory .. "/s.sock"
  end)

  after_each(function()
    if server then server:stop() end
    server = nil
    os.execute("rm -rf " .. quote(directory))
  end)

  local function start(rest)
    server = process.spawn_lua("spec/support/test_workers.lua", "{ rest = { unix_socket = " .. ("%q"):format(path) .. ", "
      .. rest .. " } }")
    return server:expect "listening on ([^\n]+)\n"
  end

  it("is served beside the port, with 0600 unless told otherwise, and goes with the server", function()
    for _, rest in ipairs { "port = 0", "port = 0, workers = 2" } do
      local port = tonumber(start(rest):match("^http://127%.0%.0%.1:(%d+), unix:" .. path:gsub("%p", "%%%0") .. "$"))
      local body = ("x"):rep(300000)
      assert.are.equal(body, raw_http.request(path, "POST", "/echo", body).body)
      assert.are.equal(body, raw_http.request(port, "POST", "/echo", body).body)
      assert.are.equal("600 socket", output("stat -c '%a %F' " .. quote(path)))
      assert.are.equal(0, server:stop())
      server = nil
      assert.are.equal("", output("ls " .. quote(directory)))
    end
  end)

  it("may be the only one and have other permissions; curl agrees and the printed command works", function()
    assert.are.equal("unix:" .. path, start 'port = false, unix_mode = "660"')
    assert.are.equal("660", output("stat -c %a " .. quote(path)))
    assert.are.equal(tostring(server.pid), output("curl -s --unix-socket " .. quote(path) .. " http://localhost/who"))
    assert.truthy(output(server:expect "(curl %-%-unix%-socket [^\n]+)\n" .. " -s"):find("predictions", 1, true))
  end)

  it("left by a server that was killed is replaced", function()
    start "port = 0"
    server:signal "KILL"
    assert.are.equal(137, server:code(5))
    server:stop()
    assert.are.equal("s.sock", output("ls " .. quote(directory)))
    start "port = 0"
    assert.are.equal(200, raw_http.request(path, "GET", "/who").status)
  end)

  it("of a running server is not taken away, nor is a file that is no socket", function()
    start "port = 0"
    local fd, message, code = net.listen_unix(path, 384)
    assert.are.same({ nil, "Unix socket '" .. path .. "': another server listens there", "ALREADY_EXISTS" }, { fd, message, code })
    local other = process.spawn_lua("spec/support/test_workers.lua", "{ rest = { port = 0, unix_socket = " .. ("%q"):format(path) .. " } }")
    assert.are.equal(1, other:code(10))
    assert.truthy(other:log():find("another server listens there", 1, true))
    other:stop()
    assert.are.equal(200, raw_http.request(path, "GET", "/who").status)
    process.write(directory .. "/file", "precious")
    fd, message = net.listen_unix(directory .. "/file", 384)
    assert.is_nil(fd)
    assert.truthy(message:find("is no socket", 1, true))
    assert.are.equal("precious", process.slurp(directory .. "/file"))
  end)

  it("is removed only while it is the one that was made", function()
    start "port = 0"
    os.remove(path)
    local fd, file = net.listen_unix(path, 384) -- somebody else's, at the same place
    assert.are.equal(0, server:stop())
    server = nil
    assert.are.equal("s.sock", output("ls " .. quote(directory)))
    net.remove_unix(path, file)
    net.close(fd)
    assert.are.equal("", output("ls " .. quote(directory)))
  end)

  it("explains what is wrong with a path", function()
    local _, message, code = net.listen_unix(directory .. "/none/s.sock", 384)
    assert.are.equal("NOT_FOUND", code)
    assert.truthy(message:find("bind: No such file or directory", 1, true))
    _, message, code = net.listen_unix(("x"):rep(200), 384)
    assert.are.equal("INVALID_ARGUMENT", code)
    assert.truthy(message:find("must have 1 to 107 bytes, not 200", 1, true))
    assert.has_error(function() net.listen_unix("a\0b", 384) end)
    assert.has_error(function() require("mlserve.serve.server") { rest = { port = true } } end)
    _, message = require("mlserve.serve.server")({ rest = { port = false } }):start()
    assert.are.equal("neither a port nor a Unix socket to listen at", message)
  end)
end)

describe("sockets passed by systemd", function()
  local directory, server

  before_each(function() directory = process.directory() end)

  after_each(function()
    if server then server:stop() end
    server = nil
    os.execute("rm -rf " .. quote(directory))
  end)

  local function start(rest, path, environment)
    server = process.spawn("env " .. (environment or "X=1") .. " perl spec/support/activate.pl " .. quote(path or "") .. " env "
      .. lua_words("spec/support/test_workers.lua", "{ rest = { port = 0, socket_activation = true" .. rest .. " } }"))
    return tonumber(server:expect "activated (%d+)\n"), server:expect "listening on ([^\n]+)\n"
  end

  it("are the ones that are served, by one process or several", function()
    for _, rest in ipairs { "", ", workers = 2" } do
      local path = directory .. "/a.sock"
      local port, where = start(rest, path)
      assert.are.equal("http://127.0.0.1:" .. port .. ", unix:" .. path, where)
      assert.are.equal(200, raw_http.request(port, "GET", "/who").status)
      assert.are.equal(200, raw_http.request(path, "GET", "/who").status)
      assert.are.equal(0, server:stop())
      server = nil
      assert.are.equal("a.sock", output("ls " .. quote(directory))) -- it belongs to systemd
      os.remove(path)
    end
  end)

  it("are left alone when they are for another process, or nobody asked", function()
    local port, where = start("", nil, "WRONG_PID=1")
    assert.are_not.equal("http://127.0.0.1:" .. port, where)
    server:stop()
    port, where = start(", socket_activation = false")
    assert.are_not.equal("http://127.0.0.1:" .. port, where)
  end)

  it("must be listening stream sockets", function()
    local _, message, code = net.adopt(0)
    assert.truthy(message)
    assert.are.equal("INVALID_ARGUMENT", code)
    local a, b = net.pair()
    _, message = net.adopt(a)
    assert.are.equal("descriptor " .. a .. ": not a listening stream socket", message)
    net.close(a)
    net.close(b)
  end)
end)

describe("systemd", function()
  it("is told when the server is ready, reloads and stops", function()
    for _, rest in ipairs { "port = 0", "port = 0, workers = 2" } do
      local directory = process.directory()
      local path = directory .. "/notify"
      local inbox = cqueues_socket.listen { path = path, type = cqueues_socket.SOCK_DGRAM }
      inbox:onerror(function(_, _, why) return why end)
      inbox:listen()
      local function told(what)
        return process.wait(10, function()
          local text = net.receive(inbox:pollfd(), 1000)
          return text and text:match("^" .. what) ~= nil
        end)
      end
      local server = process.spawn("env NOTIFY_SOCKET=" .. quote(path) .. " "
        .. lua_words("spec/support/test_workers.lua", "{ rest = { " .. rest .. " } }"))
      assert.is_true(told "READY=1\nSTATUS=")
      assert.are.equal(200, raw_http.request(tonumber(server:expect "listening on http://127%.0%.0%.1:(%d+)"), "GET", "/who").status)
      server:signal "HUP"
      assert.is_true(told "RELOADING=1\nMONOTONIC_USEC=%d+$")
      assert.is_true(told "READY=1")
      server:signal "TERM"
      assert.is_true(told "STOPPING=1")
      assert.are.equal(0, server:stop())
      inbox:close()
      os.execute("rm -rf " .. quote(directory))
    end
  end)

  it("need not be there", function()
    local ok, message = net.notify("/nowhere/notify", "READY=1")
    assert.is_nil(ok)
    assert.truthy(message:find("No such file or directory", 1, true))
    assert.is_nil((net.notify("relative", "READY=1")))
  end)
end)
