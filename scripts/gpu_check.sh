#!/usr/bin/env bash
# Builds qstep for the GPU of this machine, runs every GPU test, lets compute-sanitizer watch the small ones, measures
# kernels and training steps, and prints a short table last, for tests/gpu/RESULTS.md: in one call, of less than ten
# minutes on 16 cores. A build from nothing takes 1400 seconds of a processor core (GCC 12, nvcc 13.0, a shared EPYC; one
# file takes 45 of them): about two minutes.
#
#   scripts/gpu_check.sh [--seconds N]    N: when it ends at the latest (570); what is left out is said
#   scripts/gpu_check.sh --carry          beforehand, where the packages of scripts/install_deps.sh are installed: packs
#                                         them into .carry/, to be taken with the sources to a GPU machine that has
#                                         neither packages nor a network
#
# Needs nvcc 12.8 or later, g++, cmake and ninja. cuBLAS, cuDNN and NCCL are taken from the toolkit or from Python's
# packages. Logs and the table (results.txt) go to the folder $OUT, or to build/gpu_check/logs. Ends with
#   0   the tests passed, everything was measured
#   1   the build, a test or a benchmark failed or was stopped by the time, or compute-sanitizer found something
#   50  no GPU here: it was built, and tests that need a GPU were skipped
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly build=build/gpu_check packages=.carry/packages.tar.gz
# Of the training steps that are measured.
readonly model=llama-1b tokens=16384 recipes=bf16,fp8-current,mxfp8,nvfp4

seconds=570
case "${1-}" in
  "") ;;
  --carry) exec scripts/carry_deps.sh pack $packages ;;
  --seconds)
    seconds=${2-}
    if ! [[ $seconds =~ ^[1-9][0-9]{0,4}$ ]]; then
      echo "gpu_check: --seconds wants a number from 1, found '$seconds'" >&2
      exit 2
    fi
    ;;
  *)
    sed -n '2,18s/^# \?//p' scripts/gpu_check.sh
    [[ $1 = --help || $1 = -h ]] || exit 2
    exit
    ;;
esac

SECONDS=0
readonly logs=${OUT:-$build/logs}
mkdir -p $build "$logs"
rm -f "$logs"/{build,tests,sanitizer,kernels,steps}.log "$logs/results.txt"
problems=()
stage() { printf '==== %s [%d s]\n' "$*" "$SECONDS"; }
# until PERCENT COMMAND...: the command, stopped when so much of the time has gone
until_percent() {
  local left=$((seconds * $1 / 100 - SECONDS))
  shift
  timeout -k 5 $((left > 1 ? left : 1)) "$@"
}
# problem CODE WHAT: a command ended with a code that is not 0
problem() {
  case $1 in
    124 | 137) problems+=("$2 was stopped after $SECONDS s") ;;
    *) problems+=("$2 ended with $1") ;;
  esac
}
# finish CODE: what went wrong, then the table
finish() {
  if [ ${#problems[@]} -gt 0 ]; then printf 'FAILED: %s\n' "${problems[@]}" >>"$logs/results.txt"; fi
  printf '\n==== gpu_check: %d s, logs in %s\n' "$SECONDS" "$logs"
  cat "$logs/results.txt"
  exit "$1"
}

stage "GPU, compiler, libraries"
if ! command -v nvcc >/dev/null; then PATH=$PATH:/usr/local/cuda/bin; fi
for tool in nvcc g++ cmake ninja; do
  command -v $tool >/dev/null || {
    echo "gpu_check: no $tool here" >&2
    exit 1
  }
done
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
readonly toolkit
if gpu=$(nvidia-smi --query-gpu=compute_cap,name,driver_version --format=csv,noheader 2>&1); then
  architecture=$(sed -n '1s/^\([0-9]*\)\.\([0-9]\),.*/\1\2/p' <<<"$gpu")
  [ "${architecture:-0}" -lt 90 ] || architecture+=a
  gpu=$(sed -n '1s/[^,]*, *//p' <<<"$gpu" | sed 's/,/, driver/')
else
  gpu= architecture=90a
fi
{
  echo "GPU       ${gpu:-none: nvidia-smi finds no NVIDIA GPU}"
  echo "built     $(git describe --always --dirty 2>/dev/null || echo 'not from git') for sm_$architecture," \
    "nvcc $(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'), g++ $(g++ -dumpfullversion)"
  echo "date      $(date -u '+%Y-%m-%d %H:%M UTC')"
} | tee "$logs/results.txt"

settings=(-DCMAKE_BUILD_TYPE=Release -DQSTEP_CUDA=ON -DQSTEP_WERROR=OFF "-DCMAKE_CUDA_ARCHITECTURES=$architecture-real")
headers= libraries=
if [ -e $packages ]; then
  if ! [ $build/carry/pkg-config -nt $packages ]; then
    rm -rf $build/carry
    scripts/carry_deps.sh unpack $packages $build/carry || exit 1
  fi
  carry=$PWD/$build/carry
  carried=$(echo "$carry"/usr/lib/*-linux-gnu)
  headers=:$carry/usr/include
  # DT_RPATH, unlike DT_RUNPATH, also serves what libraries load.
  settings+=("-DCMAKE_PREFIX_PATH=$carry/usr" "-DHDF5_ROOT=$carried/hdf5/serial" "-DPKG_CONFIG_EXECUTABLE=$carry/pkg-config"
    "-DCMAKE_BUILD_RPATH=$carried" -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags)
fi
# What the toolkit does not have and NVIDIA's Python packages do.
site_packages=$(for python in python3 /opt/torch/.venv/bin/python3; do
  $python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null
done)
folder_of() { find $(sed 's/$/\/nvidia/' <<<"$site_packages") -name "$1" -printf '%h\n' 2>/dev/null | head -n 1; }
for file in cublasLt.h cudnn_graph.h nccl.h; do
  [ -e "$toolkit/include/$file" ] || headers+=:$(folder_of $file)
done
for file in libcublasLt.so.13 libcudnn.so.9 libnccl.so.2; do
  [ -e "$toolkit/lib64/$file" ] || libraries+=:$(folder_of $file)
done
export LD_LIBRARY_PATH=$toolkit/lib64$libraries:${LD_LIBRARY_PATH-}
headers=$(sed 's/::*/:/g; s/^://; s/:$//' <<<"$headers") # an empty entry would be the current folder
[ -z "$headers" ] || export C_INCLUDE_PATH=$headers CPLUS_INCLUDE_PATH=$headers CMAKE_INCLUDE_PATH=$headers

stage "build for sm_$architecture"
{
  until_percent 55 cmake -Wno-dev -S . -B $build -G Ninja "${settings[@]}" &&
    until_percent 55 cmake --build $build --target gpu_check
} >"$logs/build.log" 2>&1
code=$?
if [ $code != 0 ]; then
  grep -E 'error|Error|FAILED' "$logs/build.log" | head -n 20
  problem $code "the build (build.log)"
  finish 1
fi

stage "tests"
# Side by side, so that one that hangs costs the others nothing.
programs=("$build"/tests/gpu/gpu*_test)
for program in "${programs[@]}"; do
  {
    OMP_NUM_THREADS=$(($(nproc) / 4 + 1)) until_percent 68 "$program" 2>&1
    echo "[ PROGRAM  ] ${program##*/} $?"
  } >"$program.log" &
done
wait
for program in "${programs[@]}"; do cat "$program.log"; done >"$logs/tests.log"
# count TEXT: lines of the tests' logs that begin with it, one of each test
count() { grep -c "^\[$1\] .*ms)$" "$logs/tests.log"; }
failed=$(count '  FAILED  ')
echo "tests     $(count '       OK ') passed, $failed failed, $(count '  SKIPPED ') skipped" >>"$logs/results.txt"
while read -r name; do
  problems+=("$name (tests.log)")
done < <(sed -n 's/^\[  FAILED  \] \(.*\) ([0-9]* ms)$/\1/p' "$logs/tests.log")
# 1 is what a program ends with after a failed test, which was named.
while read -r program code; do
  if [ "$code" != 0 ] && ! [[ $code = 1 && $failed != 0 ]]; then problem "$code" "$program (tests.log)"; fi
done < <(sed -n 's/^\[ PROGRAM  \] //p' "$logs/tests.log")

if [ -z "$gpu" ]; then
  echo "Nothing was measured: there is no GPU here." >>"$logs/results.txt"
  [ ${#problems[@]} = 0 ] || finish 1
  finish 50
fi

# What compute-sanitizer watches: a tool, a program, its tests. They run side by side, on small sizes; the products of
# libraries, which take it long, are left to a few tests. initcheck knows nothing of what libraries write.
readonly checks="\
memcheck gpu_memory_ops_test RowOps*:StateOps*
memcheck gpu_quantize_test Quantize*:CodesOnGpu.AreThoseOfTheHost
memcheck gpu_product_test Attention*:*FactorsOfQuantizedOperands*
memcheck gpu_attention_test *
memcheck gpu_training_test OnGpu/TwoBackends.LossesFollowTheCpus/bf16:OnGpu/TwoBackends.LossesFollowTheCpus/nvfp4
racecheck gpu_memory_ops_test RowOps*:StateOps*
racecheck gpu_quantize_test Quantize*:CodesOnGpu.AreThoseOfTheHost
racecheck gpu_product_test Attention*
synccheck gpu_memory_ops_test RowOps*:StateOps*
synccheck gpu_product_test Attention*
initcheck gpu_memory_ops_test RowOps*:StateOps*
initcheck gpu_quantize_test Quantize*"
readonly found_something=99
# watched TOOL PROGRAM TESTS LOG: the code of what it runs, found_something, 124 after its time
watched() {
  local seconds_left=$((seconds * 78 / 100 - SECONDS))
  [ $seconds_left -lt 90 ] || seconds_left=90
  # Calls that libraries try and do without are no errors; those of qstep throw.
  QSTEP_SMALL_SIZES=1 OMP_NUM_THREADS=1 timeout -k 5 $((seconds_left > 1 ? seconds_left : 1)) "$sanitizer" \
    --tool "$1" --error-exitcode $found_something --require-cuda-init no --report-api-errors no \
    "$build/tests/gpu/$2" --gtest_filter="$3" >"$4" 2>&1
}
sanitizer=$(command -v compute-sanitizer ||
  ls "$toolkit"/{bin,compute-sanitizer,extras/compute-sanitizer}/compute-sanitizer 2>/dev/null | head -n 1)
readonly sanitizer
if [ -z "$sanitizer" ]; then
  echo "sanitizer no compute-sanitizer here" >>"$logs/results.txt"
else
  stage "compute-sanitizer"
  while read -r tool program tests; do
    if [ ! -e "$build/tests/gpu/$program" ]; then continue; fi
    log=$build/tests/gpu/$program.$tool.log
    {
      watched "$tool" "$program" "$tests" "$log"
      echo "[ PROGRAM  ] $tool $program $?" >>"$log"
    } &
  done <<<"$checks"
  wait
  cat "$build"/tests/gpu/*.*check.log >"$logs/sanitizer.log"
  rm "$build"/tests/gpu/*.*check.log
  clean=0
  if grep -q 'Device not supported' "$logs/sanitizer.log"; then
    echo "sanitizer compute-sanitizer does not support this device" >>"$logs/results.txt"
    : >"$logs/sanitizer.log"
  fi
  while read -r tool program code; do
    case $code in
      0) clean=$((clean + 1)) ;;
      "$found_something") problems+=("$tool of $program found something (sanitizer.log)") ;;
      124 | 137) echo "sanitizer $tool of $program did not end in its time" >>"$logs/results.txt" ;;
      *) problem "$code" "$tool of $program (sanitizer.log)" ;;
    esac
  done < <(sed -n 's/^\[ PROGRAM  \] //p' "$logs/sanitizer.log")
  [ ! -s "$logs/sanitizer.log" ] || echo "sanitizer $clean of $(grep -c '^\[ PROGRAM' "$logs/sanitizer.log") checks passed on small sizes:" \
    "memcheck, racecheck, synccheck, initcheck" >>"$logs/results.txt"
fi

# measure PERCENT LOG COMMAND...: what it prints goes into the table, too
measure() {
  until_percent "$1" "${@:3}" 2>&1 | tee -a "$logs/$2" >>"$logs/results.txt"
  local code=${PIPESTATUS[0]}
  [ "$code" = 0 ] || problem "$code" "${*:3}"
}
stage "kernels"
measure 86 kernels.log $build/tests/gpu/qstep_bench_gpu

stage "training steps"
for part in 93:2048 98:8192; do
  measure "${part%:*}" steps.log $build/qstep bench step --model $model --batch $((tokens / ${part#*:})) --seq "${part#*:}" \
    --precision $recipes --warmup 3 --steps 6 run.device=cuda
done
echo "The first of them call by call, without CUDA graphs:" >>"$logs/results.txt"
measure 99 steps.log $build/qstep bench step --model $model --batch $((tokens / 2048)) --seq 2048 --precision bf16,fp8-current --warmup 3 --steps 6 \
  run.device=cuda run.cuda_graphs=false

[ ${#problems[@]} = 0 ] || finish 1
finish 0
