#!/bin/sh
# Builds the core with sanitizers beside the normal build and runs tests/ops and the fuzzer against it:
#
#     csrc/sanitize.sh                       address and undefined behaviour
#     csrc/sanitize.sh thread                data races
#     csrc/sanitize.sh address,undefined -k large_k    further arguments go to pytest
set -eu
kind=${1:-address,undefined}
[ $# -eq 0 ] || shift
root=$(cd "$(dirname "$0")/.." && pwd)
target=$root/build/sanitized-$(echo "$kind" | tr , -)
python -m pip install "$root" --quiet --no-build-isolation --no-deps --upgrade --target "$target" \
  -C build-dir="$target-objects" -C cmake.define.RSIR_SANITIZE="$kind"
# Left out: interpreted kernels, which never enter the core, and the test of peak memory, which sanitizers raise.
left_out="not triton and not no_matrix"
case $kind in
  thread)
    runtime=libtsan.so
    # torch's gloo, built without the sanitizer, looks like races; and it does not go along with threads after a fork
    left_out="$left_out and not two_processes and not forked"
    ;;
  *) runtime=libasan.so ;;
esac
compiler=${CXX:-g++}
# libstdc++ as well: the runtime has to find __cxa_throw at start
preload="$("$compiler" -print-file-name=$runtime) $("$compiler" -print-file-name=libstdc++.so.6)"
packages=$(python -c 'import sys; print(":".join(path for path in sys.path if path.endswith("-packages")))')
# The built package first and without site (-S), so that neither the checkout nor an editable install is tested instead.
cd "$target"
export PYTHONPATH="$target:$packages:$root" LD_PRELOAD="$preload" ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1
python -S -c 'import sys, rsir._core as c; print(c.__file__); sys.exit(not c.__file__.startswith(sys.argv[1]))' "$target"
python -S "$root/tests/harness/fuzz_bindings.py" --iterations 3000
exec python -S -m pytest "$root/tests/ops" -c "$root/pyproject.toml" -o pythonpath="$target $root" -q -p no:cacheprovider \
  -k "$left_out" "$@"
