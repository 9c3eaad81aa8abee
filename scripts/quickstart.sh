#!/usr/bin/env bash
# From a fresh clone to a trained transformer, on one CPU: installs what is missing, builds qstep,
# prepares a corpus from the system's C and C++ headers, trains llama-15m on it twice, in BF16 and in
# NVFP4 (emulated), compares, and writes a report. What is there is not done again; a run that was stopped
# goes on.
#
#   scripts/quickstart.sh [--steps N]    N: optimizer steps; otherwise about two minutes' worth of each
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly qstep=build/cpu/qstep
readonly folder=runs/quickstart
readonly corpus=$folder/corpus.h5 config=$folder/quickstart.toml
readonly training_s=100                          # what training in BF16 is meant to take
readonly min_steps=50 max_steps=2000            # however slow or fast the machine is
readonly batch=4 seq_len=256                     # sequences per step, tokens per sequence

usage() { sed -n '2,7s/^# \?//p' scripts/quickstart.sh; }

steps=
case "${1-}" in
  "") ;;
  -h | --help)
    usage
    exit
    ;;
  --steps)
    steps=${2-}
    if ! [[ $steps =~ ^[1-9][0-9]{0,8}$ ]]; then
      echo "quickstart: --steps wants a number from 1, found '$steps'" >&2
      exit 2
    fi
    ;;
  *)
    echo "quickstart: unknown option $1" >&2
    usage >&2
    exit 2
    ;;
esac

stage() { printf '\n==== %s [%d s]\n' "$*" "$SECONDS"; }
# number KEY: the value of "KEY": 1.5 in the JSON on standard input, of its last line that has it
number() { sed -n "s/.*\"$1\": *\([-+.0-9eE]*\).*/\1/p" | tail -n 1; }

SECONDS=0
stage "1/5 install what is missing"
scripts/install_deps.sh

stage "2/5 build qstep"
cmake --preset cpu >/dev/null
cmake --build --preset cpu --target qstep

stage "3/5 prepare a corpus: the C and C++ headers of this machine"
mkdir -p $folder
scripts/header_corpus.sh $qstep $corpus

stage "4/5 train llama-15m in BF16 and in NVFP4 (emulated)"
if [ -z "$steps" ] && [ -e $config ]; then
  echo "$config is there already; --steps N rewrites it, and without $folder all begins anew."
else
  if [ -z "$steps" ]; then
    rate=$($qstep bench step --model llama-15m --batch $batch --seq $seq_len --steps 10 --json |
      number tokens_per_s)
    steps=$((${rate%.*} * training_s / (batch * seq_len)))
    steps=$((steps < min_steps ? min_steps : steps > max_steps ? max_steps : steps))
    echo "This machine trains ${rate%.*} tokens per second: $steps steps."
  fi
  cat >$config <<END
# Written by scripts/quickstart.sh. "qstep config list" explains every option.
[model]
preset = "llama-15m"
[data]
train = "$corpus"
[train]
steps = $steps
global_batch = $batch
micro_batch = $batch
seq_len = $seq_len
eval_every = 100
[optimizer]
lr = 2e-3
min_lr = 1e-4
warmup_steps = $((steps / 20))
[precision]
recipe = "bf16"
[run]
dir = "$folder/bf16"
log_every = 10
save_every = 200
END
fi
for recipe in bf16 nvfp4; do
  status=0
  $qstep train $config precision.recipe=$recipe run.dir=$folder/$recipe || status=$?
  if [ $status = 10 ]; then echo "Stopped; scripts/quickstart.sh goes on from here."; fi
  [ $status = 0 ] || exit $status
done

stage "5/5 what they learned"
steps_of() { grep '"type":"step"' "$folder/$1/metrics.jsonl"; }
printf '%-17s %11s %10s %16s %10s\n' recipe 'first loss' 'last loss' 'validation loss' bits/byte
for recipe in bf16 nvfp4; do
  label=$recipe
  if [ $recipe = nvfp4 ]; then label="nvfp4 (emulated)"; fi
  result=$($qstep eval --checkpoint $folder/$recipe --batches 32 --json)
  printf '%-17s %11.3f %10.3f %16.4f %10.4f\n' "$label" "$(steps_of $recipe | head -n 1 | number loss)" \
    "$(steps_of $recipe | number loss)" "$(number loss <<<"$result")" "$(number bits_per_byte <<<"$result")"
done
echo "Losses in nats per token; the validation text was in neither run."
printf '\nStep times, in turn:\n'
$qstep bench step --model llama-15m --precision bf16,nvfp4 --batch $batch --seq $seq_len --steps 10
readonly prompt='/* Returns the number of '
printf '\nA sample of the NVFP4 run, the beginning was given (%s):\n\n%s' "$prompt" "$prompt"
$qstep generate --checkpoint $folder/nvfp4 --prompt "$prompt" --tokens 120 --temperature 0.8 --top-k 40
printf '\nA page of both runs:\n'
$qstep report $folder/bf16 $folder/nvfp4 -o $folder/report

stage "done"
cat <<END
What to try next:
  more number formats     $qstep recipe list
  train in one of them    $qstep train $config precision.recipe=mxfp8 run.dir=$folder/mxfp8
  what NVFP4 rounded off  $qstep recipe ledger $folder/nvfp4 --sort snr
  another sample          $qstep generate --checkpoint $folder/bf16 --prompt '#include <'
  train twice as long     $qstep train $config train.steps=$(($(steps_of bf16 | wc -l) * 2))
  your own text           $qstep data prepare YOUR.txt -o yours.h5 && $qstep train $config data.train=yours.h5 run.dir=runs/yours
END
