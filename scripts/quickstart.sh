#!/usr/bin/env bash
# From a fresh clone to a trained transformer, on one CPU: installs what is missing, builds qstep,
# prepares a corpus from the system's C and C++ headers, trains llama-15m on it in BF16 and shows what
# it learned. What is already there is not done again; a run that was stopped goes on.
#
#   scripts/quickstart.sh [--steps N]    N: optimizer steps; otherwise about four minutes' worth
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly qstep=build/cpu/qstep
readonly folder=runs/quickstart
readonly corpus=$folder/corpus.h5 config=$folder/quickstart.toml run=$folder/bf16
readonly training_s=220                          # what training is meant to take
readonly min_steps=100 max_steps=2000            # however slow or fast the machine is
readonly batch=4 seq_len=256                     # sequences per step, tokens per sequence

usage() { sed -n '2,6s/^# \?//p' scripts/quickstart.sh; }

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
if [ -e $corpus ]; then
  echo "$corpus is there already."
else
  $qstep data prepare /usr/include/c++ /usr/include/linux /usr/include/*-linux-gnu/{asm,bits,sys} \
    /usr/include/*.h --glob '*' --vocab-size 4096 -o $corpus
fi

stage "4/5 train llama-15m in BF16"
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
dir = "$run"
log_every = 10
save_every = 200
END
fi
status=0
$qstep train $config || status=$?
if [ $status = 10 ]; then echo "Stopped; scripts/quickstart.sh goes on from here."; fi
[ $status = 0 ] || exit $status

stage "5/5 what it learned"
steps_of() { grep '"type":"step"' $run/metrics.jsonl; }
first=$(grep -m 1 '"type":"step"' $run/metrics.jsonl | number loss)
last=$(steps_of | number loss)
printf 'Training loss: %.2f nats in the first step, %.2f in the last.\n' "$first" "$last"
echo 'On text that it has never seen:'
$qstep eval --checkpoint $run --batches 16
readonly prompt='/* Returns the number of '
printf '\nA sample, the beginning was given (%s):\n\n%s' "$prompt" "$prompt"
$qstep generate --checkpoint $run --prompt "$prompt" --tokens 120 --temperature 0.8 --top-k 40

stage "done"
cat <<END
What to try next:
  $qstep generate --checkpoint $run --prompt '#include <'          another sample
  $qstep train $config train.steps=$(($(steps_of | wc -l) * 2))    train twice as long
  $qstep data prepare YOUR.txt -o yours.h5 && $qstep train $config data.train=yours.h5 run.dir=runs/yours
END
