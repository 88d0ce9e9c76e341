#!/usr/bin/env bash
# The modules let out nothing but their entry, and are as small as promised.
. "$(dirname "$0")/../support/checks.sh"

only_entry() { # ENTRY FILE
  local names
  names=$(nm -D --defined-only "$2" | awk '{ print $3 }')
  echo "exported: $names"
  [ "$names" = "$1" ]
}
small() { # FILE BYTES
  strip --strip-unneeded -o "$scratch/stripped.so" "$1" || return 1
  local size
  size=$(stat -c %s "$scratch/stripped.so")
  echo "$size bytes"
  [ "$size" -le "$2" ]
}
needs_only() { # FILE LIBRARY…: shared libraries it may ask for
  local file=$1 library
  shift
  for library in $(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\.so.*\]/\1/p'); do
    case " $* " in *" $library "*) ;; *) echo "needs $library"; return 1 ;; esac
  done
}

for lua in lua5.4 luajit; do
  for module in core net; do
    file=$BUILD/$lua/mlserve/$module.so
    [ -f "$file" ] || continue
    check "$lua: $module.so exports only its entry" only_entry luaopen_mlserve_$module "$file"
    check "$lua: $module.so is at most 2 MB" small "$file" 2000000
  done
  check "$lua: core.so needs only libc, libm and OpenBLAS" needs_only "$BUILD/$lua/mlserve/core.so" libc libm libdl libpthread libopenblas ld-linux-x86-64
  check "$lua: net.so needs only libc, zlib and libnghttp2" needs_only "$BUILD/$lua/mlserve/net.so" libz libnghttp2 libc libm libdl libpthread ld-linux-x86-64
  check "$lua: image.so exports only its entry" only_entry ml_image_decoders_1 "$BUILD/$lua/mlserve/image.so"
  check "$lua: image.so needs only libc and libraries of image formats" needs_only "$BUILD/$lua/mlserve/image.so" libc libm libdl libpthread ld-linux-x86-64 \
    libjpeg libopenjp2 libpng16 libtiff libwebp
done
finish
