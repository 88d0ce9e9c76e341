#!/usr/bin/env bash
# install-c.sh LIBRARY ABI VERSION PREFIX DESTDIR: the library for C (stripped), its header and the file for pkg-config.
set -euo pipefail
library=$1 abi=$2 version=$3 prefix=$4 root=$5$4
install=${INSTALL:-install}
cd "$(dirname "$0")/.."
"$install" -D -m 755 "$library" "$root/lib/libmlserve.so.$abi"
"${STRIP:-strip}" --strip-unneeded "$root/lib/libmlserve.so.$abi"
ln -sf "libmlserve.so.$abi" "$root/lib/libmlserve.so"
images=("$(dirname "$library")"/*/mlserve/image.so)
"$install" -D -m 755 "${images[0]}" "$root/lib/mlserve/image.so" # decoders of images, loaded when a model needs them
"${STRIP:-strip}" --strip-unneeded "$root/lib/mlserve/image.so"
"$install" -D -m 644 csrc/mlserve.h "$root/include/mlserve.h"
"$install" -d "$root/lib/pkgconfig"
cat > "$root/lib/pkgconfig/mlserve.pc" <<PC
prefix=$prefix
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: mlserve
Description: Runs ONNX models in C and C++
Version: $version
Libs: -L\${libdir} -lmlserve
Cflags: -I\${includedir}
PC
