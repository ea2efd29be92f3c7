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
address=
caught=
current=
nodes=
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM INT

# Run `python JOB ARGUMENTS…` in a Ray cluster of all nodes; ends the script with its status.
# Without --run-name the run is called after the job. Without --workers an experiment has as many
# workers as there are nodes, or with GPUs as many as find a GPU of their own, but at least one.
# Without --cache, copies of shards are in the job's folder on each node's own disk.
with_ray() {
  local job=$1 name workers=$SLURM_JOB_NUM_NODES status=0
  shift
  name=$(run_name "$@")
  if ((${SLURM_GPUS_ON_NODE:-0})); then
    workers=1:$((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE))
  fi
  echo "run $name, job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, each with $SLURM_CPUS_ON_NODE CPUs" \
    "and ${SLURM_GPUS_ON_NODE:-0} GPUs"
  trap end_nodes EXIT
  start_nodes
  attend "${python[@]}" slurm/wait_for_nodes.py \
    "$address:$port" "$SLURM_JOB_NUM_NODES" "$patience" || status=1
  if [[ -n $caught ]]; then
    status=143
  elif ((status == 0)); then
    attend env RAY_ADDRESS="$address:$port" "${python[@]}" "$job" \
      --workers "$workers" --cache "$folder/cache" "$@" --run-name "$name" || status=$?
  fi
  end_nodes
  # With less than 128 the run had finished before the signal.
  if [[ $caught == USR1 ]] && ((status > 128)); then
    again
  fi
  exit "$status"
}

# Start Ray on all nodes, with its head on this one. It ends when descriptor 9 is closed, which
# even `kill -9` of this script does.
start_nodes() {
  local fifo
  # Ray adds 64 bytes to the path of a socket, which may have 107.
  if ((${#folder} > 43)); then
    echo "error: $folder: longer than 43 bytes, too long for the paths of Ray's sockets; set" \
      "scratch in slurm/site.sh to a shorter path" >&2
    exit 2
  fi
  address=$(own_address)
  # Two free ports below those that the kernel gives out. Each job starts looking at another number.
  port=$((20000 + SLURM_JOB_ID * 2 % 10000))
  while taken "$port" || taken "$((port + 1))"; do
    port=$((20000 + (port + 2) % 10000))
  done
  fifo=$(mktemp -u "$scratch/tlcluster-XXXXXXXX")
  mkfifo -m 600 "$fifo"
  srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    --ntasks-per-node=1 --mem=0 --cpu-bind=none --export=ALL --wait=0 --kill-on-bad-exit=0 \
    "${srun_flags[@]}" \
    bash slurm/node.sh "$address" "$port" "$folder" "$patience" "$(megabytes)" <"$fifo" &
  nodes=$!
  exec 9>"$fifo"
  rm "$fifo"
  head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >&9
  echo >&9
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token TMPDIR=$folder/tmp
}

# The IPv4 address of this node in the network that training uses.
own_address() {
  local known found
  if [[ -n $interface ]]; then
    found=$(ip -4 -oneline address show "$interface" 2>/dev/null |
      awk '{ sub("/.*", "", $4); if (!n++) print $4 }') || true
    if [[ -z $found ]]; then
      echo "error: $(hostname): $interface has no IPv4 address; set interface in slurm/site.sh to" \
        "one that \`ip -4 -brief address\` shows on every node, or leave it empty" >&2
      exit 2
    fi
    echo "$found"
    return
  fi
  # With PrivateData=nodes, Slurm does not say how it reaches a node; most often by its name.
  known=$(scontrol --oneliner show node "$SLURMD_NODENAME" 2>/dev/null) || known=
  known=${known##* NodeAddr=}
  known=${known%% *}
  # /etc/hosts may give a loopback for the node's own name, as Debian's does.
  found=$(getent ahostsv4 "${known:-$SLURMD_NODENAME}" | awk '!/^127\./ && !n++ { print $1 }') || true
  echo "${found:-$(hostname -I | awk '{ print $1 }')}"
}

# The memory of this job on each node in MiB; 0 if Slurm does not say, or gave whole nodes.
megabytes() {
  local found=${SLURM_MEM_PER_NODE:-0}
  ((found)) || found=$((${SLURM_MEM_PER_CPU:-0} * SLURM_CPUS_ON_NODE))
  ((found)) || found=$((${SLURM_MEM_PER_GPU:-0} * ${SLURM_GPUS_ON_NODE:-0}))
  echo "$found"
}

taken() {
  (: >"/dev/tcp/$address/$1") 2>/dev/null
}

# Stop all nodes; give up after a minute on one that hangs.
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

# Run a command in the background, so that signals to this script can be passed on; returns its
# status.
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

# Put this job back into the queue. Slurm then ends it and starts it again later.
again() {
  local before=${SLURM_RESTART_COUNT:-0}
  if ((before >= requeues)); then
    echo "not requeued: interrupted after $before requeues, TLCLUSTER_REQUEUES=$requeues" >&2
  elif scontrol requeue "$SLURM_JOB_ID"; then
    echo "requeued, $((before + 1)) of $requeues"
  fi
}

# The run's name: from the arguments, or else from the job's id, which stays when it is requeued.
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
