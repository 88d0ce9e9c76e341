--- TLS for the stand-alone server: OpenSSL contexts from files.
--
--   local context, message = tls.context { cert = "server.pem", key = "server.key", client_ca = "clients.pem" }
--   local context, message = tls.context { config = "ssl.cfg" }     -- TensorFlow Serving's --ssl_config_file
--
-- TLS 1.2 and 1.3, with ciphers that HTTP/2 allows; ALPN offers h2 and http/1.1. With client_ca a client must show a certificate that
-- one of those has signed. Whatever is wrong with a file is said with its name.

local textproto = require "mlserve.serve.textproto"

local concat, find, format, gmatch = table.concat, string.find, string.format, string.gmatch
local ipairs, pcall, require, tostring = ipairs, pcall, require, tostring

local M = {}

M.CIPHERS = concat({
  "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
}, ":")

local OPTIONS = {
  "OP_NO_SSLv2", "OP_NO_SSLv3", "OP_NO_TLSv1", "OP_NO_TLSv1_1", "OP_NO_COMPRESSION", "OP_NO_RENEGOTIATION", "OP_NO_TICKET",
}

-- tensorflow_serving/config/ssl_config.proto
local SSL_CONFIG = {
  server_key = { type = "string" }, server_cert = { type = "string" }, custom_ca = { type = "string" }, client_verify = { type = "bool" },
}

local function slurp(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text = file:read "*a"
  file:close()
  if not text then return nil, path .. ": cannot be read" end
  return text
end

-- What OpenSSL says has its own addresses in front.
local function reason(problem) return (tostring(problem):gsub("^.-error:%x+:", ""):gsub("^.*: ", "")) end

--- The PEM texts.
---@param given table of `context`
---@return table|nil found cert, key, client_ca; names: what they are called in messages
---@return string|nil message
function M.texts(given)
  local found, message = { names = {} }
  if given.config then
    local text, config
    text, message = slurp(given.config)
    if not text then return nil, message end
    config, message = textproto.parse(text, SSL_CONFIG, given.config)
    if not config then return nil, message end
    if not config.server_key or not config.server_cert then return nil, given.config .. ": server_key and server_cert expected" end
    if config.client_verify and not config.custom_ca then return nil, given.config .. ": client_verify needs custom_ca" end
    found.key, found.cert, found.client_ca = config.server_key, config.server_cert, config.client_verify and config.custom_ca or nil
    found.names = { key = given.config .. ": server_key", cert = given.config .. ": server_cert", client_ca = given.config .. ": custom_ca" }
    return found
  end
  for _, name in ipairs { "cert", "key", "client_ca" } do
    if given[name] then
      found[name], message = slurp(given[name])
      if not found[name] then return nil, message end
      found.names[name] = given[name]
    end
  end
  return found
end

-- All certificates of a PEM text, at least one.
local function certificates(text, name)
  local x509 = require "openssl.x509"
  local list = {}
  for block in gmatch(text, "%-%-%-%-%-BEGIN CERTIFICATE%-%-%-%-%-.-%-%-%-%-%-END CERTIFICATE%-%-%-%-%-") do
    local ok, certificate = pcall(x509.new, block, "PEM")
    if not ok then return nil, format("%s: certificate %d: %s", name, #list + 1, reason(certificate)) end
    list[#list + 1] = certificate
  end
  if #list == 0 then return nil, name .. ": no certificate in PEM form" end
  return list
end

local function private_key(text, name)
  if find(text, "ENCRYPTED", 1, true) then return nil, name .. ": the private key is encrypted, which a server cannot use" end
  if not find(text, "PRIVATE KEY-----", 1, true) then return nil, name .. ": no private key in PEM form" end
  local ok, key = pcall(require("openssl.pkey").new, text, "PEM")
  if not ok then return nil, name .. ": " .. reason(key) end
  return key
end

local function select_protocol(_, offered)
  local http1
  for _, protocol in ipairs(offered) do
    if protocol == "h2" then return "h2" end
    http1 = http1 or protocol == "http/1.1"
  end
  return http1 and "http/1.1" or nil
end

--- Makes a context for servers.
---@param given table cert, key (files in PEM form; the certificate's chain behind it) and client_ca; or config
---@return userdata|nil context
---@return string|nil message
function M.context(given)
  local found, list, key, message, ok, problem
  local available, contexts = pcall(require, "openssl.ssl.context")
  if not available then return nil, "TLS needs luaossl: " .. tostring(contexts) end
  if not given.config and not (given.cert and given.key) then return nil, "TLS needs a certificate and a key" end
  found, message = M.texts(given)
  if not found then return nil, message end
  list, message = certificates(found.cert, found.names.cert)
  if not list then return nil, message end
  key, message = private_key(found.key, found.names.key)
  if not key then return nil, message end
  local context = contexts.new("TLS", true)
  local flags = contexts.OP_CIPHER_SERVER_PREFERENCE or 0
  for _, name in ipairs(OPTIONS) do flags = flags + (contexts[name] or 0) end
  context:setOptions(flags)
  context:setCipherList(M.CIPHERS)
  context:setAlpnSelect(select_protocol)
  context:setCertificate(list[1])
  ok, problem = pcall(function()
    context:setPrivateKey(key)
  end)
  if not ok then return nil, format("%s does not belong to %s: %s", found.names.key, found.names.cert, reason(problem)) end
  if #list > 1 then
    local chain = require("openssl.x509.chain").new()
    for i = 2, #list do chain:add(list[i]) end
    context:setCertificateChain(chain)
  end
  if found.client_ca then
    list, message = certificates(found.client_ca, found.names.client_ca)
    if not list then return nil, message end
    local store = require("openssl.x509.store").new()
    for i = 1, #list do store:add(list[i]) end
    context:setStore(store)
    context:setVerify(contexts.VERIFY_PEER + contexts.VERIFY_FAIL_IF_NO_PEER_CERT)
  end
  return context
end

return M
