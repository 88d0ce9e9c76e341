-- busted in this very interpreter, with .busted's settings: its own start script picks whichever Lua is the system's default.
require "busted.runner" { standalone = false }
