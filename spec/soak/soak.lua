--- A soak (make soak): servers under mixed load while models are swapped, broken and taken away, workers are killed and configurations read
-- again, all the time. Every answer is checked; then what the server has counted, its memory, descriptors and processes.
--
--   lua5.4 spec/soak/soak.lua SECONDS [WORKERS …]      in the root; default: half of the time each with one process and with two workers

local cqueues = require "cqueues"
local clients = require "spec.soak.clients"
local models = require "spec.soak.models"
local net = require "mlserve.net"
local process = require "spec.support.process"
local prometheus = require "spec.support.prometheus"
local raw_http = require "spec.support.raw_http"

local format, random, sort = string.format, math.random, table.sort

local WARM = 3            -- seconds of everything before the start is measured: pools and caches fill
local HEADROOM_KIB = 24576 -- what a process may have more in the end: the heap of Lua comes and goes
local HEADROOM = 1.25
local ROLL = 8            -- seconds in which workers are replaced after a SIGHUP

local function monotime() return cqueues.monotime() end

---------------------------------------------------------------------------------------------------------------------------
-- looking at processes

local function children(pid)
  local list = {}
  for child in (process.slurp(format("/proc/%d/task/%d/children", pid, pid)) or ""):gmatch "%d+" do list[#list + 1] = tonumber(child) end
  return list
end

local function state(pid) return (process.slurp(format("/proc/%d/stat", pid)) or ""):match "%) (%a)" end

local function resident(pid) return tonumber((process.slurp(format("/proc/%d/status", pid)) or ""):match "VmRSS:%s*(%d+)") or 0 end

local function descriptors(pid)
  local pipe = assert(io.popen(format("ls /proc/%d/fd 2>/dev/null | wc -l", pid)))
  local count = pipe:read "n"
  pipe:close()
  return count
end

-- The processes that serve: the largest one's memory and descriptors, and how many there are.
local function look(server, workers)
  local list = workers > 1 and children(server.pid) or { server.pid }
  local found = { kib = 0, descriptors = 0, zombies = 0, processes = 0 }
  for _, pid in ipairs(list) do
    if state(pid) == "Z" then found.zombies = found.zombies + 1 end
    found.kib, found.descriptors = math.max(found.kib, resident(pid)), math.max(found.descriptors, descriptors(pid))
    found.processes = found.processes + 1
  end
  found.parent_kib, found.parent_descriptors = resident(server.pid), descriptors(server.pid)
  return found
end

---------------------------------------------------------------------------------------------------------------------------
-- faults

local function every(run, low, high, action)
  return function()
    local begin = monotime()
    while not run.stop do
      local pause = low + random() * (high - low)
      while not run.stop and monotime() - begin < pause do cqueues.sleep(math.min(0.05, pause)) end
      begin = monotime()
      if not run.stop then action() end
    end
  end
end

local function start_faults(loop, run, store, server, workers, seconds)
  local function stopped() return run.stop end
  loop:wrap(function()
    while not run.stop do
      if random(20) == 1 then store:corrupt() else store:swap() end
      cqueues.sleep(0.05 + random() * 0.05)
    end
  end)
  loop:wrap(every(run, 3, 6, function() store:vanish(0.2 + random(), stopped) end))
  if workers > 1 then
    loop:wrap(every(run, seconds / 6, seconds / 4, function()
      local list = children(server.pid)
      local victim = list[random(#list)]
      run.killed_at, run.kills = monotime(), run.kills + 1
      net.kill(victim, 9)
      run.killed_at = monotime()
    end))
  end
  loop:wrap(every(run, seconds / 4, seconds / 3, function()
    if workers > 1 then run.replaced_at = monotime() + ROLL end
    run.reloads = run.reloads + 1
    server:signal "HUP"
  end))
end

---------------------------------------------------------------------------------------------------------------------------
-- one server

local function serve(store, workers)
  return process.spawn_lua("bin/mlserve", "serve", "--models", store.root, "--rest-port", "0", "--workers", workers, "--head-timeout", "2",
    "--body-timeout", "2", "--write-timeout", "2", "--max-body", "1048576", "--max-connections", "256", "--drain-timeout", "5",
    "--load_retry_interval_micros", "1000000")
end

local function run_for(run, seconds, prepare)
  local loop = cqueues.new()
  run.stop = false
  clients.start(loop, run)
  if prepare then prepare(loop) end
  loop:wrap(function()
    local finish = monotime() + seconds
    while monotime() < finish do
      cqueues.sleep(0.05)
      if run.phase == "normal" and monotime() > run.swaps_at then
        run.phase = "swaps"
        run.begin_faults(loop)
      end
    end
    run.stop = true
  end)
  for err in loop:errors() do error(err, 0) end
end

local function sum(samples, pattern)
  local total = 0
  for name, value in pairs(samples) do
    if name:find(pattern) then total = total + value end
  end
  return total
end

-- What the server has counted, against what the clients know.
local function compare(run, problem)
  local response = raw_http.request(run.port, "GET", "/metrics")
  local samples = prometheus.parse(response.body)
  local slack = run.lost + run.unread + run.others + run.maybe_good + 8 * run.asked_again
  for key, count in pairs(run.good) do
    local model, verb = key:match "^(%S+) (%S+)$"
    local counted = sum(samples, format('^mlserve_requests_total{model="%s",.*verb="%s",code="200"}$', model, verb))
    if counted < count or counted > count + slack then
      problem("metrics", "%s: %.0f counted, %d answered (and at most %d more)", key, counted, count, slack)
    end
  end
  for status, count in pairs(run.by_status) do
    local counted = sum(samples, format('^mlserve_requests_total{.*code="%d"}$', status))
    if counted < count then problem("metrics", "status %d: %.0f counted, %d answered", status, counted, count) end
  end
  local all = sum(samples, "^mlserve_requests_total{")
  if all > run.sent + run.unread + run.others * 3 then
    problem("metrics", "%.0f requests counted, %d were sent and at most %d more", all, run.sent, run.unread + run.others * 3)
  end
  if sum(samples, '^mlserve_batch_size_sum{model="batched"') < (run.rows.batched or 0) then problem("metrics", "fewer rows than were answered") end
  return all
end

-- Everything comes to rest: the newest version answers in every process, and what is no longer needed has been given back.
local function settle(run, server, workers, before, problem)
  local now
  if not process.wait(20, function()
    for _ = 1, 4 * workers do
      local response = raw_http.request(run.port, "POST", "/v1/models/swapped:predict", '{"instances":[[0]]}')
      if tonumber(response.body:match "%[%[(%d+)") ~= run.models.versions[#run.models.versions] then return false end
    end
    return true
  end) then problem("models", "the newest version does not answer everywhere") end
  process.wait(8, function()
    now = look(server, workers)
    return now.kib <= before.kib * 1.05 and now.descriptors <= before.descriptors and now.processes == before.processes
  end)
  for _, each in ipairs { { "kib", "" }, { "parent_kib", "of the parent: " } } do
    local was, is = before[each[1]], now[each[1]]
    if is > was * HEADROOM + HEADROOM_KIB then problem("memory", "%s%d KiB before, %d KiB after", each[2], was, is) end
  end
  if now.descriptors > before.descriptors + 1 then problem("descriptors", "%d before, %d after", before.descriptors, now.descriptors) end
  if now.parent_descriptors > before.parent_descriptors then
    problem("descriptors", "of the parent: %d before, %d after", before.parent_descriptors, now.parent_descriptors)
  end
  if now.zombies > 0 then problem("processes", "%d zombies", now.zombies) end
  if now.processes ~= before.processes then problem("processes", "%d before, %d after", before.processes, now.processes) end
  return now
end

local function percentile(list, p)
  if #list == 0 then return 0 / 0 end
  sort(list)
  return list[math.max(1, math.ceil(#list * p))] * 1000
end

local function soak(workers, seconds)
  local root = process.directory()
  local store = models.new(root)
  local server = serve(store, workers)
  local run = clients.new(tonumber(server:expect("listening on http://127%.0%.0%.1:(%d+)", 20)), store)
  local before, after, counted, code
  local function problem(kind, ...)
    run.errors[kind] = (run.errors[kind] or 0) + 1
    run.complaints[#run.complaints + 1] = kind .. ": " .. format(...)
  end
  run.kills, run.reloads = 0, 0
  run_for(run, WARM, function(loop) start_faults(loop, run, store, server, 1, 1e9) end)
  process.wait(1.5, function() end)
  before = look(server, workers)
  run.phase, run.swaps_at = "normal", monotime() + seconds / 4
  run.begin_faults = function(loop) start_faults(loop, run, store, server, workers, seconds * 3 / 4) end
  run_for(run, seconds)
  if workers > 1 then -- the last SIGHUP comes to its end
    process.wait(ROLL + 5, function() return select(2, server:log():gsub("every worker is new", "")) >= run.reloads end)
    if not server:log():find("every worker is new", 1, true) then problem("reload", "no worker was replaced") end
  end
  after = settle(run, server, workers, before, problem)
  counted = compare(run, problem)
  for _, sign in ipairs { "event loop:", "traceback", "attempt to", "internal error", "AddressSanitizer", "runtime error" } do
    if server:log():find(sign, 1, true) then problem("log", "%s", server:log():match("[^\n]*" .. sign:gsub("%p", "%%%0") .. "[^\n]*")) end
  end
  local log = server:log()
  code = server:stop()
  if code ~= 0 then problem("exit", "code %s", tostring(code)) end
  os.execute("rm -rf " .. process.quote(root))
  return { run = run, store = store, before = before, after = after, counted = counted, workers = workers, log = log }
end

---------------------------------------------------------------------------------------------------------------------------

local function statuses(run)
  local list, out = {}, {}
  for status in pairs(run.by_status) do list[#list + 1] = status end
  sort(list)
  for i, status in ipairs(list) do out[i] = format("%d: %d", status, run.by_status[status]) end
  return table.concat(out, "  ")
end

local function tell(result)
  local run, store, failed = result.run, result.store, 0
  local function row(what, ...) print(format("  %-34s ", what) .. format(...)) end
  print(result.workers == 1 and "one process" or result.workers .. " workers")
  row("requests with an answer", "%d of %d", run.answers, run.sent)
  row("answers by status", "%s", statuses(run))
  row("lost with killed workers", "%d in %d kills", run.lost, run.kills)
  row("asked again after a reload", "%d in %d reloads", run.asked_again, run.reloads)
  row("connections that misbehaved", "%d", run.others)
  row("counted by the server", "%.0f", result.counted)
  row("swaps", "%d (%d broken versions, %d vanished directories)", store.swaps, store.corruption, store.vanished)
  row("memory of a process", "%.1f MiB before, %.1f MiB after", result.before.kib / 1024, result.after.kib / 1024)
  row("descriptors of a process", "%d before, %d after", result.before.descriptors, result.after.descriptors)
  for _, p in ipairs { 0.5, 0.99 } do
    row(format("p%g, all clients in one process", p * 100), "%.2f ms normal, %.2f ms during swaps and faults", percentile(run.latencies.normal, p),
      percentile(run.latencies.swaps, p))
  end
  for kind, count in pairs(run.errors) do
    row("WRONG " .. kind, "%d", count)
    failed = failed + count
  end
  for _, complaint in ipairs(run.complaints) do print("    " .. complaint) end
  if failed > 0 then print("  the end of the server's log:\n" .. result.log:sub(-4000)) end
  return failed
end

local seconds = tonumber(arg[1]) or 60
local forms, failed = {}, 0
local seed = tonumber(os.getenv "SOAK_SEED") or os.time()

for i = 2, #arg do forms[#forms + 1] = assert(tonumber(arg[i]), "WORKERS: a number expected") end
if #forms == 0 then forms = { 1, 2 } end
math.randomseed(seed)
io.stdout:setvbuf "line"
print(format("soak of %g s, SOAK_SEED=%d", seconds, seed))
for _, workers in ipairs(forms) do failed = failed + tell(soak(workers, seconds / #forms)) end
print(failed == 0 and "nothing was wrong" or format("%d things were wrong", failed))
os.exit(failed == 0 and 0 or 1)
