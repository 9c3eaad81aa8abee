#!/usr/bin/env bash
# Installs what is missing, builds everything and runs every test.
#
#   scripts/test.sh [PRESET] [CTEST OPTION...]    PRESET: cpu (the default), cuda, asan or tsan
#
# The default leaves CUDA out where there is no nvcc; cuda insists on it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=cpu
settings=(-DQSTEP_CUDA=AUTO)
case "${1-}" in
  -h | --help)
    sed -n '2,6s/^# \?//p' scripts/test.sh
    exit
    ;;
  [!-]*)
    preset=$1
    settings=()
    shift
    ;;
esac

SECONDS=0
scripts/install_deps.sh
cmake --preset "$preset" "${settings[@]}" >/dev/null
cmake --build --preset "$preset"
echo "Built in $SECONDS s."
if ctest --preset "$preset" --parallel "$(nproc)" "$@"; then
  echo "scripts/test.sh: all tests passed, preset $preset, $SECONDS s from start to end."
else
  echo "scripts/test.sh: tests failed, preset $preset; see above." >&2
  exit 1
fi
