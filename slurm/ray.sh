# shellcheck shell=bash
# Ray on all nodes of a Slurm job, for as long as a driver runs in it; the batch scripts source it.
#
#   with_ray jobs/run_all.py ARGUMENTS…
#
# Every job has ports, a folder and a token of its own, so that jobs can share a node. When Slurm
# announces the end of the allocation with SIGUSR1, the driver writes checkpoints, and the job goes
# back into the queue. It keeps its id there, and with it the name of its run, which then goes on.

# How often a job goes back into the queue.
requeues=${TLCLUSTER_REQUEUES:-20}
# Seconds that its nodes may take to come together.
patience=${TLCLUSTER_PATIENCE:-300}

# shellcheck source=slurm/site.sh
source slurm/site.sh

folder=$scratch/tlcluster-$SLURM_JOB_ID
caught=
current=
nodes=
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM INT

# Run `python JOB ARGUMENTS…` in a Ray cluster of all nodes; ends the script with its status.
# Without --run-name the run is called after the job, without --workers each node has one.
with_ray() {
  local job=$1 name status=0
  shift
  name=$(run_name "$@")
  echo "run $name, job $SLURM_JOB_ID on $SLURM_JOB_NODELIST"
  trap end_nodes EXIT
  start_nodes
  attend "${python[@]}" slurm/wait_for_nodes.py \
    "$address:$port" "$SLURM_JOB_NUM_NODES" "$patience" || status=1
  if [[ -n $caught ]]; then
    status=143
  elif ((status == 0)); then
    attend env RAY_ADDRESS="$address:$port" "${python[@]}" "$job" \
      --workers "$SLURM_JOB_NUM_NODES" "$@" --run-name "$name" || status=$?
  fi
  end_nodes
  # Less than 128 is a run that was through when the signal came.
  if [[ $caught == USR1 ]] && ((status > 128)); then
    again
  fi
  exit "$status"
}

# Ray on all nodes, this one the head, until descriptor 9 is closed; even `kill -9` does that.
start_nodes() {
  local fifo known
  # Ray adds 64 bytes to the path of a socket, which may have 107.
  if ((${#folder} > 43)); then
    echo "error: $folder: longer than 43 bytes, Ray's sockets have no place in it; set scratch in" \
      "slurm/site.sh to a shorter path" >&2
    exit 2
  fi
  if [[ -z $address ]]; then
    # As Slurm knows this node, unless its own /etc/hosts, as Debian's does, makes that a loopback.
    known=$(scontrol --oneliner show node "$SLURMD_NODENAME")
    known=${known##* NodeAddr=}
    address=$(getent ahostsv4 "${known%% *}" | awk '!/^127\./ && !n++ { print $1 }')
    address=${address:-$(hostname -I | awk '{ print $1 }')}
  fi
  # Two free ports below those that the kernel gives out, where one job's number leads no other's.
  port=$((20000 + SLURM_JOB_ID * 2 % 10000))
  while taken "$port" || taken "$((port + 1))"; do
    port=$((20000 + (port + 2) % 10000))
  done
  fifo=$(mktemp -u "$scratch/tlcluster-XXXXXXXX")
  mkfifo -m 600 "$fifo"
  srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    --ntasks-per-node=1 --cpu-bind=none --export=ALL --wait=0 --kill-on-bad-exit=0 \
    bash slurm/node.sh "$address" "$port" "$folder" "$patience" <"$fifo" &
  nodes=$!
  exec 9>"$fifo"
  rm "$fifo"
  head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >&9
  echo >&9
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token TMPDIR=$folder/tmp
}

taken() {
  (: >"/dev/tcp/$address/$1") 2>/dev/null
}

# Let all nodes end, and wait for them, for a node that hangs not for ever.
end_nodes() {
  [[ -n $nodes ]] || return 0
  exec 9>&-
  for _ in {1..300}; do
    kill -0 "$nodes" 2>/dev/null || break
    sleep 0.2
  done
  kill "$nodes" 2>/dev/null || true
  nodes=
}

# Run a command in the background, where a signal to this script reaches it; returns its status.
attend() {
  "$@" 9>&- &
  current=$!
  # A signal ends `wait` before the command has ended.
  while kill -0 "$current" 2>/dev/null; do
    if kill -0 "$nodes" 2>/dev/null; then
      wait -n "$current" "$nodes" || true
    else
      # Without Ray there is nothing to wait for.
      kill "$current" 2>/dev/null || true
      wait "$current" || true
    fi
  done
  local status=0
  wait "$current" || status=$?
  current=
  return "$status"
}

pass_on() {
  caught=$1
  [[ -z $current ]] || kill -s "$caught" "$current" 2>/dev/null || true
}

# Back into the queue, where this job will be ended and begun again.
again() {
  local before=${SLURM_RESTART_COUNT:-0}
  if ((before >= requeues)); then
    echo "not requeued: interrupted after $before requeues, TLCLUSTER_REQUEUES=$requeues" >&2
  elif scontrol requeue "$SLURM_JOB_ID"; then
    echo "requeued, $((before + 1)) of $requeues"
  fi
}

# The run's name: that of the arguments, or else of the job, which a requeue keeps.
run_name() {
  local name=slurm-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
  while (($#)); do
    case $1 in
      --run-name) name=${2:-} ;;
      --run-name=*) name=${1#*=} ;;
    esac
    shift
  done
  echo "$name"
}
