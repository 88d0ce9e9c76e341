-- Lua that both 5.4 and LuaJIT run: only what the two share, no globals. Line length is build-aux/lint.lua's.
std = "min"
max_line_length = false
files["spec"] = { std = "max+busted" }
files["bench"] = { std = "max" }
files["examples/nginx"] = { std = "ngx_lua" }
files["rockspec"] = { std = "rockspec" }
