-- Configuration of the plugin, as Kong's Admin API and declarative files take it.
local typedefs = require "kong.db.schema.typedefs"

return {
  name = "mlserve-score",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = {
      type = "record",
      fields = {
        { model = { type = "string", required = true } },
        { features = { type = "array", required = true, len_min = 1, elements = { -- in the order of the model's columns
          type = "record",
          fields = {
            { header = { type = "string" } },
            { arg = { type = "string" } },
            { json = { type = "string" } }, -- path into the body: user.age, items.1.price
            { value = { type = "number" } },
            { default = { type = "number" } },
          },
          entity_checks = { { only_one_of = { "header", "arg", "json", "value" } } },
        } } },
        { budget = { type = "integer", gt = 0, default = 2000 } }, -- microseconds
        { fallback = { type = "number" } }, -- the score when there is none in time; without it the request passes
        { deny_above = { type = "number" } },
        { deny_status = { type = "integer", between = { 400, 599 }, default = 403 } },
        { header = { type = "string", default = "X-Score" } }, -- for the service behind Kong
      },
    } },
  },
}
