#!/usr/bin/env bash
#SBATCH --job-name=perceiver
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Trains on the GPUs of one or more SLURM nodes: one process per node, which has all of its GPUs.
#
#   sbatch --nodes=2 experiments/launch/slurm.sh --config=configs/imagenet.py:fourier \
#       --workdir=/shared/runs/fourier
#
# Submit it at the repository's root. Three minutes before its time is over the job is asked to
# stop; it saves, and is put back into the queue, where the same command goes on. So it is after a
# preemption or the loss of a node.
set -euo pipefail

if [ $# -eq 0 ]; then
    sed -n '/^# Trains/,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 2
fi

. experiments/launch/flags.sh # SLURM runs a copy of this script elsewhere
gpu_flags
# Left alone, JAX gives a SLURM task the one GPU with its number.
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))
export JAX_LOCAL_DEVICE_IDS

code=0
srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" -m experiments.run "$@" || code=$?
case $code in
69 | 75 | 134)
    echo "exit code $code: saved, back into the queue" >&2
    scontrol requeue "$SLURM_JOB_ID"
    ;;
*) exit "$code" ;;
esac
