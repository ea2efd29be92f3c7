# shellcheck shell=bash disable=SC2034 # what it sets is read by the scripts that source it
# The one place for what your site needs. Every node of a job sources it, from the checkout, before
# it runs Python. As it stands, it takes the environment that `make env` makes.

# Modules and conda read variables that are not set.
set +u

# Modules, conda or another environment go here, instead of the line after them:
#   module load python/3.11 cuda
#   source "$HOME/miniforge3/bin/activate" tlcluster
PATH=$PWD/.venv/bin:$PATH

# How Python is called. Apptainer, with an image of k8s/Dockerfile:
#   python=(apptainer exec --nv --bind /shared /shared/tlcluster.sif python)
python=(python)

# The checkout is what runs, whatever version that environment may have.
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

# A folder on each node's own disk. Ray has its sockets there, whose paths end at 107 bytes.
scratch=/tmp

# The first node's IPv4 address in the network that training should use, if it is not Slurm's own:
#   address=$(ip -4 -o address show ib0 | awk '{sub("/.*", "", $4); print $4}')
address=

set -u
