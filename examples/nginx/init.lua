-- Runs once in nginx's master process.
local prefix = ngx.config.prefix()

require("mlserve.nginx").init { models = { cancer = prefix .. "models/cancer" } }
