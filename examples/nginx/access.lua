-- Scores the request before anything else sees it. Features come from the header x-features ("1.5,2,3") or from a JSON body
-- ({"features": [1.5, 2, 3]}). Without a score the request passes: the gateway must not fail because the model does.
local cjson = require "cjson.safe"
local mlserve = require "mlserve.nginx"

local REFUSE_ABOVE = 0.9

local features = ngx.var.http_x_features
if not features then
  local document = cjson.decode(mlserve.body() or "")
  features = type(document) == "table" and document.features or nil
end

local score, message = mlserve.score { model = "cancer", features = features, variable = "risk" }

if type(score) ~= "number" then
  ngx.log(ngx.NOTICE, "not scored: ", message)
elseif score > REFUSE_ABOVE then
  return ngx.exit(ngx.HTTP_FORBIDDEN)
end
