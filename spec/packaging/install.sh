#!/usr/bin/env bash
# make install and uninstall: into a prefix of one's own, and staged with DESTDIR as packagers do.
. "$(dirname "$0")/../support/checks.sh"

prefix=$scratch/opt
elsewhere() { (cd "$scratch" && "$@"); }
nothing_left() { [ -z "$(find "$1" -type f)" ]; }
is_executable() { [ -x "$1" ]; }

check "make install" make -s install PREFIX="$prefix"
check "mlserve --help" elsewhere "$prefix/bin/mlserve" --help
check "mlserve proto" elsewhere sh -c "'$prefix/bin/mlserve' proto grpc.health.v1.Health | cmp - '$root/lua/mlserve/proto/grpc/health/v1/health.proto'"
check "mlserve predicts" elsewhere sh -c "'$prefix/bin/mlserve' inspect '$root/spec/golden/onnx/network/model.onnx'"
for lua in lua5.4 luajit; do
  version=5.4
  [ $lua = luajit ] && version=5.1
  check "$lua: require 'mlserve'" elsewhere env "LUA_PATH=$prefix/share/lua/$version/?.lua;$prefix/share/lua/$version/?/init.lua;;" \
    "LUA_CPATH=$prefix/lib/lua/$version/?.so" $lua -e 'assert(require("mlserve")._VERSION)'
done
decoder() { # VERSION: beside the installed core the decoders are found
  env "LUA_CPATH=$prefix/lib/lua/$1/?.so" "$2" -e 'local core = require "mlserve.core" local graph = core.graph("g")
    graph:output(graph:node("ImageDecoder", { graph:input("b", "uint8", { -1 }) }), "image")
    assert(core.program(graph):run({ core.tensor({ ("P2 1 1 9 9"):byte(1, -1) }, "uint8") })[1]:totable()[1][1][3] == 255)'
}
check "lua5.4: an image is decoded" elsewhere decoder 5.4 lua5.4
check "luajit: an image is decoded" elsewhere decoder 5.1 luajit
check "installing over it" make -s install PREFIX="$prefix"
check "make uninstall" make -s uninstall PREFIX="$prefix"
check "uninstall leaves no file" nothing_left "$prefix"

check "make install DESTDIR" make -s install DESTDIR="$scratch/stage" PREFIX=/usr
check "the staged program" is_executable "$scratch/stage/usr/bin/mlserve"
check "the staged program does not name the stage" sh -c "! grep -q '$scratch' '$scratch/stage/usr/bin/mlserve'"
check "make uninstall DESTDIR" make -s uninstall DESTDIR="$scratch/stage" PREFIX=/usr
check "uninstall empties the stage" nothing_left "$scratch/stage"
finish
