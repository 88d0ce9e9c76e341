#!/usr/bin/env bash
# LuaRocks: the rockspecs, and `luarocks make` for Lua 5.4 and 5.1 (LuaJIT) in a home of its own. Dependencies are declared as provided by the
# system, so nothing is fetched.
. "$(dirname "$0")/../support/checks.sh"

export HOME=$scratch/home
mkdir -p "$HOME/.luarocks"
for version in 5.4 5.1; do
  cat > "$HOME/.luarocks/config-$version.lua" <<LUA
rocks_provided = { argparse = "0.7.1-1", ["lua-cjson"] = "2.1.0.10-1", cqueues = "20200726.54-0", http = "0.4-1" }
LUA
done

elsewhere() { (cd "$scratch" && "$@"); }
run_with() { # VERSION COMMAND…: with the paths LuaRocks gives
  local version=$1
  shift
  (cd "$scratch" && eval "$(luarocks --lua-version="$version" path)" && "$@")
}
same_version() { [ "$(run_with "$1" "$2" -e 'io.write(require("mlserve")._VERSION)')" = "$(sed -n 's/.*MLSERVE_VERSION "\(.*\)"/\1/p' csrc/mlserve_version.h)" ]; }
program='local core = require "mlserve.core" local t = core.tensor { { 1, 2 }, { 3, 4 } } assert(t:count() == 4)'

for rockspec in rockspec/*.rockspec; do check "luarocks lint $rockspec" luarocks lint "$rockspec"; done
for version in 5.4 5.1; do
  lua=lua5.4
  [ $version = 5.1 ] && lua=luajit
  check "luarocks make for $version" luarocks --lua-version=$version --local make rockspec/mlserve-scm-1.rockspec
  check "$lua: require 'mlserve'" run_with $version $lua -e 'require "mlserve"'
  check "$lua: its version" same_version $version $lua
  check "$lua: a tensor" run_with $version $lua -e "$program"
  [ $version = 5.4 ] && check "mlserve --help" elsewhere "$HOME/.luarocks/bin/mlserve" --help
  check "luarocks remove for $version" luarocks --lua-version=$version --local remove mlserve
done
finish
