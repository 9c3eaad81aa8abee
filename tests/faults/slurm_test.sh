#!/usr/bin/env bash
# Runs that Slurm stops, and scripts/slurm.sbatch brings back: their weights, moments and metrics must have
# the bits of a run that nobody touched. A Slurm of one node, of this test's own, in a folder that goes away.
#
#   slurm_test.sh QSTEP SLURM_SBATCH
#
# Ends with 77 (skipped) where it cannot run: it has to be root, and Slurm and munge be installed.
set -euo pipefail

readonly qstep=$1 sbatch_script=$2 ranks=2 steps=100
readonly same_keys='step|loss|lr|grad_norm|tokens|tokens_total|skipped|non_finite_input'
PATH=$PATH:/usr/sbin

skip() { echo "slurm_test: skipped: $*"; exit 77; }
fail() {
  echo "slurm_test: $*" >&2
  tail -n 40 ./*.log >&2
  exit 1
}

[ "$(id -u)" = 0 ] || skip "the daemons of Slurm start jobs as root only"
for program in munged slurmctld slurmd sbatch; do
  command -v $program >/dev/null || skip "no $program here; Debian has it in the packages slurm-wlm and munge"
done

# --- The cluster ---

folder=$(mktemp -d "${TMPDIR:-/tmp}/qstep-slurm-XXXXXX")
export SLURM_CONF=$folder/slurm.conf
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1  # where sbatch falls back to mpirun
cd "$folder"
daemons=()

# Ours are the daemons, and all whose environment names the folder: what the daemons started.
end_all() {
  local pid
  scancel --user=root 2>/dev/null || true
  for ((i = 0; i < 50; i++)); do
    [ -n "$(squeue --noheader 2>/dev/null)" ] || break
    sleep 0.1
  done
  for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null || true; done
  grep -lzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3 |
    while read -r pid; do kill -KILL "$pid" 2>/dev/null; done || true
  rm -rf "$folder"
}
trap 'trap "" INT TERM; end_all' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}

start_daemon() {
  "$@" >>"daemon-$1.log" 2>&1 </dev/null &
  daemons+=($!)
}

start_cluster() {
  local port name
  port=$(free_port 26817)
  name=$(hostname -s)
  head -c 1024 /dev/urandom >munge.key
  chmod 600 munge.key
  mkdir state spool tmp
  # cred_expire: a requeued job waits this long and a second; no less is allowed. config_overrides: more CPUs than there are,
  # so that the jobs run side by side.
  cat >slurm.conf <<END
ClusterName=qstep
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$(free_port $((port + 1)))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=60
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
TmpFS=$folder/tmp
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmdParameters=config_overrides
NodeName=$name NodeAddr=127.0.0.1 CPUs=32 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
  start_daemon munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
  wait_for 20 "munged" test -S munge.socket
  start_daemon slurmctld -D -f "$SLURM_CONF"
  start_daemon slurmd -D -f "$SLURM_CONF"
  wait_for 30 "an idle node" node_is_idle
}
node_is_idle() { sinfo --noheader --format=%t 2>/dev/null | grep -qx idle; }

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds.
wait_for() {
  local seconds=$1 what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@"; do
    [ $SECONDS -lt $end ] || fail "no $what after $seconds s"
    sleep 0.05
  done
}

# --- The runs ---

make_config() {
  local i
  for ((i = 0; i < 3000; i++)); do echo "the gradient of step $((i * 7919 % 1000)) is a sum of tokens"; done >corpus.txt
  "$qstep" data prepare corpus.txt -o corpus.h5 --tokenizer bytes >prepare.log 2>&1 || fail "no corpus"
  cat >config.toml <<END
[model]
n_layers = 2
width = 128
n_heads = 2
n_kv_heads = 2
ffn_width = 256
[data]
train = "corpus.h5"
[train]
steps = $steps
global_batch = 8
micro_batch = 4
seq_len = 256
eval_every = 0
[run]
save_every = 10
threads = 1
END
}

# submit NAME ARGUMENT...: a job, whose number it prints; run folder and log have its name.
submit() {
  local name=$1
  shift
  QSTEP=$qstep sbatch --parsable --job-name="$name" --output="$name.log" --time=10 \
    --ntasks-per-node=$ranks --cpus-per-task=1 "$sbatch_script" config.toml run.dir="$name" "$@"
}
has_step() { grep -qs "^{\"type\":\"step\",\"step\":$2," "$1/metrics.jsonl"; }
at_step() { wait_for 200 "step $2 of $1" has_step "$1" "$2"; }

field() { scontrol show job --oneliner "$1" | grep -o " $2=[^ ]*" | cut -d = -f 2; }
has_ended() { [[ $(field "$1" JobState) =~ ^(COMPLETED|FAILED|TIMEOUT|CANCELLED|NODE_FAIL)$ ]]; }
# expect_end JOB NAME CODE RESTARTS
expect_end() {
  wait_for 200 "end of $2" has_ended "$1"
  [ "$(field "$1" ExitCode)" = "$3:0" ] || fail "$2 ended with $(field "$1" ExitCode), not $3:0"
  [ "$(field "$1" Restarts)" = "$4" ] || fail "$2 had $(field "$1" Restarts) restarts, not $4"
}
expect_log() { grep -q -- "$2" "$1.log" || fail "the log of $1 lacks: $2"; }

metrics() { grep '"type":"step"' "$1/metrics.jsonl" | grep -oE "\"($same_keys)\":[^,}]*"; }
# expect_same_bits NAME: as the untouched run.
expect_same_bits() {
  local rank file last
  last=$(printf 'checkpoints/step-%08d' $steps)
  for ((rank = 0; rank < ranks; rank++)); do
    file=$last/$(printf 'rank%05d.h5' $rank)
    cmp "untouched/$file" "$1/$file" || fail "$1/$file differs from the run that nobody touched"
  done
  diff <(metrics untouched) <(metrics "$1") >&2 || fail "the metrics of $1 differ"
}

start_cluster
make_config

untouched=$(submit untouched)
warned=$(submit warned)
preempted=$(submit preempted)
killed=$(submit killed)
stuck=$(SLURM_JOB_END_TIME=$(date +%s) submit stuck)
broken=$(submit broken data.train=missing.h5)

at_step warned 20  # as --signal=B:USR1@120 does, two minutes before the end
scancel --batch --signal=USR1 "$warned"
at_step preempted 20  # as PreemptMode=REQUEUE does
scontrol requeue "$preempted"
at_step killed 25
kill -KILL "$(scontrol listpids "$killed.0" | awk '$5 == 1 { print $1 }')"

expect_end "$untouched" untouched 0 0
[ "$(metrics untouched | grep -c '"step":')" = $steps ] || fail "not one row for each step"

expect_end "$warned" warned 0 1
expect_log warned 'passing SIGUSR1 on'
expect_log warned 'ended with code 10: requeueing'
expect_same_bits warned

expect_end "$preempted" preempted 0 1
expect_same_bits preempted

expect_end "$killed" killed 0 1
expect_log killed '^resumed '
expect_same_bits killed

expect_end "$broken" broken 21 0

expect_end "$stuck" stuck 1 3
expect_log stuck 'gives up: ended with code 11'

echo "slurm_test: passed in $SECONDS s"
