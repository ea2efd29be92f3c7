# shellcheck shell=bash disable=SC2034 # what it sets is read by the scripts that source it
# The one place for what your site needs. The batch scripts and every node of a job source it, from
# the checkout, before they run Python. As shipped, it takes the environment that `make env` makes.

# Modules and conda read variables that are not set.
set +u

# Modules, conda or another environment go here, instead of the line after them:
#   module load python/3.11 cuda
#   source "$HOME/miniforge3/bin/activate" tlcluster
PATH=$PWD/.venv/bin:$PATH

# How Python is called. Apptainer, with an image of k8s/Dockerfile:
#   python=(apptainer exec --nv --bind /shared /shared/tlcluster.sif python)
python=(python)

# The code of the checkout runs, whatever version is installed in that environment.
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

# A folder on each node's own disk. Each job has a folder in it, for Ray's sockets (whose paths have
# at most 107 bytes) and for copies of shards, and removes it at its end. On a node without a disk
# it takes memory from the job: give a smaller --cache-gib there.
scratch=/tmp

# The network between nodes that training should use, if it is not the one of their host names: its
# interface, as `ip -4 -brief address` shows it. Ray, TensorFlow and NCCL then use that one.
#   interface=ib0
interface=

# More flags for the `srun` that starts Ray on the nodes:
#   srun_flags=(--mpi=none)                 # if the site's MPI plugin delays or ends steps
#   srun_flags=(--container-image=/shared/tlcluster.sqsh --container-mounts=/shared,/tmp --container-workdir="$PWD")
#                                           # Pyxis. The driver runs outside of the container, so
#                                           # .venv needs the versions that are in the image.
srun_flags=()

set -u
