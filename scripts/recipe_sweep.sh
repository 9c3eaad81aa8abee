#!/usr/bin/env bash
# What each precision recipe costs in loss: trains one small transformer under every recipe with the
# same initialisation and the same batches, over several seeds, and prints a Markdown table of the
# gaps to BF16.
#
#   scripts/recipe_sweep.sh [options]
#     --recipes A,B,...  names or files; bf16, the baseline, is always among them (default: all shipped)
#     --seeds A,B,...    initialisation and data order (default: 1,2,3)
#     --steps N          optimizer steps of a run (default: 640, about 100 s on two cores)
#     --out FOLDER       runs and report.md (default: runs/recipe_sweep)
#     --corpus FILE      token store (default: FOLDER/corpus.h5, made of this machine's headers)
#     --set KEY=VALUE    another value of an option of qstep train; repeatable
#     --qstep FILE       the program (default: build/cpu/qstep)
#     --keep             keep the weights of finished runs (75 MB each)
#     --report           only print the table of what is there
#
# Ctrl-C or SIGTERM saves the run in progress; the same command goes on. Seeds are the outer loop: a
# sweep that was stopped has all recipes with the first seeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# 6 million parameters. Widths are multiples of 128, as every block and Hadamard size needs; one of
# the six blocks is what the recipes' "last 15 %" keep in BF16. 1024 tokens a step; the learning rate
# decays to nothing, so that the loss has flattened at the end.
readonly setting=(
  model.n_layers=6 model.width=256 model.n_heads=4 model.n_kv_heads=2 model.ffn_width=640
  train.global_batch=4 train.micro_batch=4 train.seq_len=256 train.eval_every=0
  optimizer.lr=2e-3 optimizer.min_lr=0 optimizer.schedule=cosine
)
readonly preempted=10 non_finite=30  # exit codes of qstep train

usage() { sed -n '2,19s/^# \?//p' scripts/recipe_sweep.sh; }
fail() {
  echo "recipe_sweep: $1" >&2
  exit "${2-2}"
}

recipes='' seeds=1,2,3 steps=640 out=runs/recipe_sweep corpus='' qstep=build/cpu/qstep keep='' report=''
overrides=()
while [ $# != 0 ]; do
  case $1 in
    -h | --help) usage; exit ;;
    --keep) keep=1; shift; continue ;;
    --report) report=1; shift; continue ;;
  esac
  case $1 in
    --recipes | --seeds | --steps | --out | --corpus | --set | --qstep) ;;
    *) fail "there is no option $1; --help lists them" ;;
  esac
  [ $# -ge 2 ] || fail "$1 wants a value"
  case $1 in
    --recipes) recipes=$2 ;;
    --seeds) seeds=$2 ;;
    --steps) steps=$2 ;;
    --out) out=$2 ;;
    --corpus) corpus=$2 ;;
    --set) overrides+=("$2") ;;
    --qstep) qstep=$2 ;;
  esac
  shift 2
done
[[ $steps =~ ^[1-9][0-9]{0,8}$ ]] || fail "--steps wants a number from 1, found '$steps'"
[[ $seeds =~ ^[0-9]+(,[0-9]+)*$ ]] || fail "--seeds wants numbers with commas, found '$seeds'"
corpus=${corpus:-$out/corpus.h5}

# numbers KEY: the value of "KEY": 1.5 in the JSON on standard input, of every line that has it
numbers() { sed -n "s/.*\"$1\": *\([-+.0-9eE]*\).*/\1/p"; }
number() { numbers "$1" | tail -n 1; }  # of the last
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'; }
step_rows() { grep '"type":"step"' "$1/metrics.jsonl"; }
finished() { [ -e "$1/eval_bf16.json" ] || [ -e "$1/not_finite" ]; }
# A recipe's name; of a file: without folder and .toml
name_of() { basename "$1" .toml; }
# What of a recipe decides the run: not its comments and descriptions
recipe_numbers() { sed -E '/^(#|$)/d; /^(title|paper|good_for|measured) *=/d'; }

# recipe, seed, loss in the recipe's precision, loss in BF16, median step in ms, whether emulated: a
# line per run
results() {
  local run at emulated
  for run in "$out"/runs/*; do
    finished "$run" || continue
    at=${run##*/}
    if [ -e "$run/not_finite" ]; then
      echo "${at%-s*} ${at##*-s} - - - -"
    else
      emulated=native
      if grep -q '"emulated":true' "$run/metrics.jsonl"; then emulated=emulated; fi
      echo "${at%-s*} ${at##*-s} $(number loss <"$run/eval.json") $(number loss <"$run/eval_bf16.json")" \
        "$(step_rows "$run" | numbers step_ms | median) $emulated"
    fi
  done
}
# The baseline's training loss in tenths of the run: whether it has flattened.
flattening() {
  local run=$out/runs/bf16-s${seeds%%,*}
  [ -e "$run/eval.json" ] || return 0
  step_rows "$run" | numbers loss | awk '
    { loss[NR] = $1 }
    END {
      for (part = 0; part < 10 && NR >= 10; ++part) {
        sum = 0; n = 0
        for (i = int(part * NR / 10) + 1; i <= int((part + 1) * NR / 10); ++i) { sum += loss[i]; ++n }
        text = text sprintf(" %.3f", sum / n)
      }
      if (text != "") printf "Training loss of bf16 in tenths of the run:%s.\n\n", text
    }'
}

table() {
  echo "| recipe | validation loss | gap to bf16 | gap, evaluated in bf16 | step time / bf16 | seeds |"
  echo "|---|---|---|---|---|---|"
  results | awk '
    function gap_text(n, sum, squares,    variance) {
      if (n == 0) return "-"
      if (n == 1) return sprintf("%+.4f", sum)
      variance = (squares - sum * sum / n) / (n - 1)
      return sprintf("%+.4f ± %.4f", sum / n, sqrt((variance > 0 ? variance : 0) / n))
    }
    { own[$1, $2] = $3; plain[$1, $2] = $4; ms[$1, $2] = $5; seeds[$2]
      if (!($1 in kind) || $6 != "-") kind[$1] = $6 }
    END {
      for (r in kind) {
        n = pairs = sum = squares = plain_sum = plain_squares = loss = ratio = bad = 0
        for (s in seeds) {
          if (!((r, s) in own)) continue
          if (own[r, s] == "-") { ++bad; continue }
          ++n; loss += own[r, s]
          if (!(("bf16", s) in own) || own["bf16", s] == "-") continue
          ++pairs
          gap = own[r, s] - own["bf16", s]; sum += gap; squares += gap * gap
          gap = plain[r, s] - plain["bf16", s]; plain_sum += gap; plain_squares += gap * gap
          ratio += ms[r, s] / ms["bf16", s]
        }
        baseline = r == "bf16"
        printf "%s\t| `%s` | %s | %s | %s | %s | %s |\n", n && pairs ? sum / pairs : 1e9, r,
          n ? sprintf("%.4f", loss / n) : "not finite",
          baseline ? "0" : gap_text(pairs, sum, squares),
          baseline ? "0" : gap_text(pairs, plain_sum, plain_squares),
          pairs ? sprintf("%.2f", ratio / pairs) (kind[r] == "emulated" ? " emulated" : "") : "-", bad ? n " (" bad " not finite)" : n
      }
    }' | sort -g | cut -f 2
}

write_report() {
  local first
  for first in "$out"/runs/bf16-s*/eval_bf16.json; do break; done
  if [ ! -e "$first" ]; then
    echo "No run of bf16 has finished yet."
    return
  fi
  {
    cat "$out/settings"
    echo
    echo "Losses in nats, of $(number tokens <"$first") validation tokens, the same for all. Gaps are paired by seed; ± is their"
    echo "standard error over the seeds. Step times are medians of the runs, as a mean over the seeds of the ratio to"
    echo "the run of bf16; emulated: they say nothing of hardware that has the format."
    echo
    flattening
    table
  } >"$out/report.md.part"
  mv "$out/report.md.part" "$out/report.md"
  cat "$out/report.md"
}

if [ -n "$report" ]; then
  [ -e "$out/settings" ] || fail "$out holds no sweep"
  write_report
  exit
fi

[ -x "$qstep" ] || fail "there is no program $qstep: cmake --preset cpu && cmake --build --preset cpu --target qstep"
if [ -z "$recipes" ]; then
  recipes=$("$qstep" recipe list --json | sed -n 's/.*"name": "\(.*\)".*/\1/p' | paste -sd,)
fi
case ",$recipes," in
  *,bf16,*) ;;
  *) recipes=bf16,$recipes ;;
esac
IFS=, read -ra recipe_list <<<"$recipes"
IFS=, read -ra seed_list <<<"$seeds"

# Runs go by the recipe's name and are not made twice: one name, one recipe.
declare -A recipe_named=()
for recipe in "${recipe_list[@]}"; do
  name=$(name_of "$recipe")
  if [ -n "${recipe_named[$name]-}" ]; then
    fail "--recipes has the name $name twice (${recipe_named[$name]}, $recipe): give the file another name"
  fi
  recipe_named[$name]=$recipe
  wanted=$("$qstep" recipe show "$recipe" | recipe_numbers) || exit 20  # qstep has said why
  for run in "$out/runs/$name"-s*; do
    [[ ${run#"$out/runs/$name"-s} =~ ^[0-9]+$ && -e $run/recipe.toml ]] || continue
    if [ "$(recipe_numbers <"$run/recipe.toml")" != "$wanted" ]; then
      fail "$run was made with another recipe (its recipe.toml) than $recipe: remove it, or take another name or --out"
    fi
  done
done

mkdir -p "$out/runs"
settings="$steps steps; ${setting[*]}${overrides[*]:+ ${overrides[*]}}; corpus $corpus"
if [ -e "$out/settings" ] && [ "$(cat "$out/settings")" != "$settings" ]; then
  fail "$out holds a sweep of other settings ($(cat "$out/settings")): take another --out, or remove it"
fi
echo "$settings" >"$out/settings"
scripts/header_corpus.sh "$qstep" "$corpus"

# The signal is handed to the program, which saves. In a terminal the program hears of Ctrl-C itself
# only if it is in the foreground's process group, and a second signal would end it without a save:
# setsid keeps it out.
child='' stopped=''
stop() {
  stopped=1
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true
}
trap stop INT TERM
# in_background LOG COMMAND...: its exit code
in_background() {
  local log=$1 code=0
  shift
  setsid "$@" >"$log" 2>&1 &
  child=$!
  while :; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break  # else a signal ended the wait, not the program
  done
  child=''
  return "$code"
}
end_if_stopped() {
  [ -n "$stopped" ] || return 0
  echo "Stopped; the same command goes on from here."
  exit "$preempted"
}

one_run() {
  local recipe=$1 seed=$2 run=$3 code=0
  in_background "$run.log" "$qstep" train "${setting[@]}" "optimizer.warmup_steps=$((steps / 20))" \
    "train.steps=$steps" "train.seed=$seed" "precision.recipe=$recipe" "data.train=$corpus" \
    "run.dir=$run" "run.save_every=$((steps / 4 + 1))" run.keep_last=1 \
    ${overrides[@]+"${overrides[@]}"} || code=$?
  if [ "$code" = "$non_finite" ]; then
    : >"$run/not_finite"
    return
  fi
  end_if_stopped
  if [ "$code" != 0 ]; then
    tail -n 5 "$run.log" >&2
    fail "$recipe, seed $seed: qstep train ended with code $code" "$code"
  fi
  local precision name
  for precision in "" bf16; do
    name=eval${precision:+_$precision}.json
    in_background "$run/$name.part" "$qstep" eval --checkpoint "$run" --json \
      ${precision:+--precision "$precision"} || code=$?
    end_if_stopped
    if [ "$code" != 0 ]; then
      tail -n 5 "$run/$name.part" >&2
      fail "$recipe, seed $seed: qstep eval ended with code $code" "$code"
    fi
    mv "$run/$name.part" "$run/$name"
  done
  [ -n "$keep" ] || rm -r "$run/checkpoints"
}

total=$((${#recipe_list[@]} * ${#seed_list[@]})) index=0 done_here=0
left=0  # runs to do, this one included
for seed in "${seed_list[@]}"; do
  for recipe in "${recipe_list[@]}"; do
    finished "$out/runs/$(name_of "$recipe")-s$seed" || left=$((left + 1))
  done
done
SECONDS=0
for seed in "${seed_list[@]}"; do
  for recipe in "${recipe_list[@]}"; do
    index=$((index + 1))
    run=$out/runs/$(name_of "$recipe")-s$seed
    finished "$run" && continue
    end_if_stopped
    printf '[%d/%d] %s, seed %d' $index $total "$recipe" "$seed"
    if [ $done_here -gt 0 ]; then
      printf ' | about %d min left' $(((left * SECONDS / done_here + 59) / 60))
    fi
    echo
    one_run "$recipe" "$seed" "$run"
    if [ -e "$run/not_finite" ]; then
      echo "        not finite: see $run.log"
    else
      echo "        validation loss $(number loss <"$run/eval.json")"
    fi
    left=$((left - 1)) done_here=$((done_here + 1))
  done
done
echo
write_report
