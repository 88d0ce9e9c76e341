-- The plugins of examples/kong and examples/apisix against stand-ins of what their hosts document, with a real model: y = x + x of three
-- columns, summed.

local cjson = require "cjson"
local core = require "mlserve.core"
local process = require "spec.support.process"

local function doubled()
  local graph = core.graph "double"
  local x = graph:input("x", "float32", { -1, 3 })
  local y = graph:node("Add", { x, x })
  graph:output(graph:node("ReduceSum", { y }, { keepdims = 1 }, { "y" }))
  return core.servable(core.program(graph))
end

-- the parts of ngx that mlserve.nginx asks for outside of a running nginx
local function fake_ngx()
  return {
    ERR = "error", WARN = "warn", NOTICE = "notice", log = function() end, now = core.clock, get_phase = function() return "access" end,
    worker = { id = function() return 0 end }, timer = { at = function() return true end }, var = {},
  }
end

local FEATURES = { { header = "x-a" }, { arg = "b", default = 0.5 }, { json = "user.score" } }

describe("the gateway plugins", function()
  local kept

  before_each(function()
    kept = { ngx = rawget(_G, "ngx"), kong = rawget(_G, "kong") }
    for name in pairs(package.loaded) do
      if name:find "^mlserve%.nginx" or name:find "^mlserve%.serve" then package.loaded[name] = nil end
    end
    rawset(_G, "ngx", fake_ngx())
  end)

  after_each(function()
    rawset(_G, "ngx", kept.ngx)
    rawset(_G, "kong", kept.kong)
    for name in pairs(package.loaded) do
      if name:find "^mlserve%.nginx" or name:find "^mlserve%.serve" or name:find "^apisix" then package.loaded[name] = nil end
    end
  end)

  -- each case: request, more configuration -> what has happened
  local function cases(run)
    local function answer(a, user, more) return run({ headers = { ["x-a"] = a }, args = {}, body = { user = user } }, more) end
    assert.are.same({ header = 6 }, answer("1.5", { score = 1 }))
    assert.are.same({ header = 8 }, run({ headers = { ["x-a"] = "1" }, args = { b = "2" }, body = { user = { score = true } } }))
    assert.are.same({ status = 451, message = "refused" }, answer("10", { score = 1 }, { deny_above = 20, deny_status = 451 }))
    assert.are.same({ header = 6 }, answer("1.5", { score = 1 }, { deny_above = 20 }))
    assert.are.same({}, answer("many", { score = 1 }, { deny_above = 20 })) -- no score: passes
    assert.are.same({}, answer("1", nil))
    assert.are.same({ header = 0.25 }, answer(nil, nil, { fallback = 0.25, deny_above = 0.5 }))
    assert.are.same({ status = 403, message = "refused" }, answer(nil, nil, { fallback = 1, deny_above = 0.5 }))
    assert.are.same({}, answer("1", { score = 1 }, { model = "none" }))
  end

  it("Kong's: schema and handler", function()
    local request, result
    rawset(_G, "kong", {
      request = {
        get_header = function(name) return request.headers[name] end,
        get_query_arg = function(name) return request.args[name] end,
        get_body = function(kind)
          assert.are.equal("application/json", kind)
          return request.body
        end,
      },
      service = { request = {
        clear_header = function() result.header = nil end,
        set_header = function(name, value)
          assert.are.equal("X-Score", name)
          result.header = tonumber(value)
        end,
      } },
      response = { exit = function(status, body) result = { status = status, message = body.message } return "exit" end },
      log = { notice = function() end },
    })
    package.loaded["kong.db.schema.typedefs"] = { protocols_http = { type = "set" } }
    local schema = dofile "examples/kong/kong/plugins/mlserve-score/schema.lua"
    package.loaded["kong.db.schema.typedefs"] = nil
    local declared, defaults = {}, {}
    for _, field in ipairs(schema.fields[2].config.fields) do
      local name, rule = next(field)
      declared[name], defaults[name] = rule, rule.default
    end
    local plugin = dofile "examples/kong/kong/plugins/mlserve-score/handler.lua"
    assert.are.equal("mlserve-score", schema.name)
    assert.is_true(plugin.PRIORITY > 0 and plugin.VERSION:find "^%d+%.%d+%.%d+$" ~= nil)
    plugin:init_worker()
    require("mlserve.nginx").repository():add_model("m", doubled())
    cases(function(given, more)
      local config = setmetatable({}, { __index = function(_, name) -- the handler may read what the schema declares, and nothing else
        assert(declared[name], name)
        return defaults[name]
      end })
      config.model, config.features = "m", FEATURES
      for name, value in pairs(more or {}) do config[name] = value end
      config.budget = 10000000
      request, result = given, { header = "forged" }
      plugin:access(config)
      return result
    end)
  end)

  it("APISIX's: schema, attributes and phases", function()
    local directory = process.directory()
    local request, result
    package.loaded["apisix.core"] = {
      schema = { check = function(schema, conf) return conf[schema.required[1]] ~= nil and conf[schema.required[2]] ~= nil end },
      json = { decode = function(text) return text ~= "" and cjson.decode(text) or nil end },
      log = { notice = function() end },
      request = {
        header = function(_, name) return request.headers[name] end,
        get_uri_args = function() return request.args end,
        get_body = function() return cjson.encode(request.body) end,
        set_header = function(_, name, value)
          assert.are.equal("X-Score", name)
          result.header = tonumber(value)
        end,
      },
    }
    package.loaded["apisix.plugin"] = { plugin_attr = function(name)
      assert.are.equal("mlserve-score", name)
      return { models = { golden = directory } }
    end }
    os.execute("mkdir -p " .. directory .. "/1; cp spec/golden/pipeline/model.onnx " .. directory .. "/1/")
    local plugin = dofile "examples/apisix/apisix/plugins/mlserve-score.lua"
    assert.is_false(plugin.check_schema { model = "m" })
    assert.is_true(plugin.check_schema { model = "m", features = FEATURES })
    plugin.init()
    local models = require("mlserve.nginx").repository()
    assert.are.equal("1", models:get("golden").version)
    models:add_model("m", doubled())
    cases(function(given, more)
      local conf = { model = "m", features = FEATURES, budget = 10000000 }
      for name, rule in pairs(plugin.schema.properties) do
        if conf[name] == nil then conf[name] = rule.default end
      end
      for name, value in pairs(more or {}) do conf[name] = value end
      request, result = given, { header = "forged" }
      local status, body = plugin.access(conf, { var = {} })
      if status then return { status = status, message = body.message } end
      return result
    end)
    os.execute("rm -rf " .. process.quote(directory))
  end)
end)
