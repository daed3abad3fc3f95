#!/bin/sh
# Builds the core without Python and checks every op against plain loops (csrc/selfcheck.cpp):
#
#     csrc/selfcheck.sh                   this machine, each instruction set it has
#     csrc/selfcheck.sh aarch64           cross-compiled for 64-bit Arm and run by qemu; on Debian and Ubuntu
#                                         apt-get install g++-aarch64-linux-gnu qemu-user
#     csrc/selfcheck.sh native thread     with sanitizers: thread, or address,undefined
set -eu
machine=${1:-native}
sanitize=${2:-}
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/selfcheck-$machine${sanitize:+-$(echo "$sanitize" | tr , -)}
case $machine in
  native)
    runner=
    set -- ;;
  aarch64)
    runner="qemu-aarch64 -L /usr/aarch64-linux-gnu"
    set -- -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ ;;
  *)
    echo "selfcheck.sh: expected native or aarch64, got $machine" >&2
    exit 2 ;;
esac
cmake -S "$root" -B "$build" -DRSIR_SELFCHECK=ON -DRSIR_WERROR=ON -DRSIR_SANITIZE="$sanitize" "$@" >/dev/null
cmake --build "$build"
exec $runner "$build/selfcheck"
