#!/usr/bin/env bash
# Ray on one node of a job, for as long as its standard input is open; slurm/ray.sh starts it on all.
#
#   bash slurm/node.sh ADDRESS PORT FOLDER SECONDS MIB
#
# ADDRESS and PORT are those of the job's first node, which is Ray's head; the others wait SECONDS
# for it. FOLDER is made, and removed at the end. MIB is the job's memory on this node, or 0. The
# first line of the input is the token of the cluster: it must not be in an argument or in the
# environment.
set -euo pipefail

# shellcheck source=slurm/site.sh
source slurm/site.sh
address=$1 port=$2 folder=$3 patience=$4 megabytes=$5

# Ray gives up a process that needs more than 15 seconds to import its modules, as one may on a node
# whose file system is busy or has not read them yet. The next try finds them in memory. So what ends
# late is tried again for as long as nodes are waited for; what ends at once, as often as `tries` says.
tries=3 late=10
ray=

ended() {
  trap '' TERM
  if [[ -n $ray ]]; then
    kill "$ray" 2>/dev/null || true
    wait "$ray" || true
  fi
  # Workers that have just lost their Ray may still write something.
  for _ in {1..50}; do
    rm -rf "$folder" 2>/dev/null && return
    sleep 0.1
  done
  echo "error: $(hostname): $folder cannot be removed; remove it by hand" >&2
}

# A requeued job may find what was left when its node crashed. A folder without the mark is not ours.
mark=$folder/.job-$SLURM_JOB_ID
if [[ -e $folder && ! -f $mark ]]; then
  echo "error: $(hostname): $folder exists and is not of this job; move it, or set scratch in" \
    "slurm/site.sh to another folder" >&2
  exit 2
fi
rm -rf "$folder"
mkdir -m 700 "$folder"
touch "$mark"
# What libraries leave there goes with the folder.
export TMPDIR=$folder/tmp
mkdir "$TMPDIR"
# Only this shell removes the folder: a child that is stopped right after the fork has these traps too.
trap '[[ $BASHPID != "$$" ]] || ended' EXIT
trap 'exit 143' TERM
read -r token
(umask 077 && printf '%s\n' "$token" >"$folder/token")

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token
# The driver ends before Ray does, so Ray has nothing to move to other nodes.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
# Ray would watch the memory of the whole node, and end our workers when other jobs fill it. Slurm
# itself holds the job to its own memory.
export RAY_memory_monitor_refresh_ms=0
[[ -z $interface ]] || export NCCL_SOCKET_IFNAME=$interface
unset RAY_ADDRESS token

# What Slurm gave to the job on this node, not what the node has.
gpus=${SLURM_GPUS_ON_NODE:-}
if [[ -z $gpus ]]; then
  IFS=, read -ra visible <<<"${CUDA_VISIBLE_DEVICES:-}"
  gpus=${#visible[@]}
fi

# Of the job's memory, not of the node's, as Ray would take it. The largest object is the weights of
# a base, 100 MB.
store=500
((megabytes == 0 || megabytes >= 5000)) || store=$((megabytes > 2000 ? megabytes / 10 : 200))

start=(
  "${python[@]}" -m ray.scripts.scripts start --block --disable-usage-stats
  --object-store-memory "$((store * 1000000))"
  --num-cpus "$SLURM_CPUS_ON_NODE" --num-gpus "$gpus" --temp-dir "$folder"
  --dashboard-agent-listen-port 0
)
((megabytes == 0)) || start+=(--memory "$((megabytes * 1048576))")
if ((SLURM_NODEID == 0)); then
  start+=(
    --head --node-ip-address "$address" --port "$port"
    --ray-client-server-port "$((port + 1))" --include-dashboard false
  )
else
  start+=(--address "$address:$port")
fi

said=$folder/start.out
while :; do
  until ((SLURM_NODEID == 0)) || (: >"/dev/tcp/$address/$port") 2>/dev/null; do
    ((SECONDS < patience)) || exit 1
    sleep 0.2
  done
  began=$SECONDS
  "${start[@]}" </dev/null >"$said" 2>&1 &
  ray=$!
  # The batch script closes its end, or is gone.
  { read -r || kill "$ray"; } <&0 &
  input=$!
  wait "$ray" || true
  kill "$input" 2>/dev/null || exit 0
  why="$(grep -v '^$' "$said" | tail -n 1)"
  ((SECONDS - began >= late)) || tries=$((tries - 1))
  if ((tries == 0 || SECONDS >= patience)) || grep -q "Ray runtime started" "$said"; then
    echo "error: $(hostname): Ray has ended: $why" >&2
    exit 1
  fi
  echo "$(hostname): Ray did not start and is started again: $why" >&2
done
