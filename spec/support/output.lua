--- Output handler of busted: a line for every test that did not pass, with what was expected and where; nothing for the others.
-- The last line counts them: "N passed, N failed[, N skipped]". What cannot even be loaded counts as failed.
-- MLSERVE_VERBOSE=1 lists the tests that passed, too.

local verbose = (os.getenv "MLSERVE_VERBOSE" or "") ~= ""

return function()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()

  local function tell(word, name, detail)
    io.write(word, " ", name, "\n")
    if detail and detail ~= "" then io.write("    ", (tostring(detail):gsub("\n", "\n    ")), "\n") end
    io.flush()
  end

  -- What went wrong and where: assertions bring a message, raised tables may bring none.
  local function explain(message, trace)
    local text = type(message) == "string" and message or trace and trace.message
    if type(text) ~= "string" then text = tostring(message) end
    local at = trace and trace.short_src and trace.currentline and trace.short_src .. ":" .. trace.currentline
    if at and not text:find(at, 1, true) then text = at .. ": " .. text end
    return text
  end

  local subscriptions = {
    [{ "test", "end" }] = function(element, _, status)
      if status == "pending" then tell("SKIP", handler.getFullName(element))
      elseif verbose and status == "success" then tell("ok  ", handler.getFullName(element)) end
    end,
    [{ "failure" }] = function(element, _, message, trace) tell("FAIL", handler.getFullName(element), explain(message, trace)) end,
    [{ "error" }] = function(element, _, message, trace) tell("ERROR", handler.getFullName(element), explain(message, trace)) end,
    [{ "exit" }] = function()
      local skipped = handler.pendingsCount > 0 and (", %d skipped"):format(handler.pendingsCount) or ""
      io.write(("%d passed, %d failed%s\n"):format(handler.successesCount, handler.failuresCount + handler.errorsCount, skipped))
      io.flush()
    end,
  }
  for event, action in pairs(subscriptions) do
    busted.subscribe(event, function(...)
      action(...)
      return nil, true
    end)
  end
  return handler
end
