#!/usr/bin/env bash
# Submits a training to a GKE cluster of TPUs, as an XPK workload: one pod for each machine.
#
#   CLUSTER=my-cluster ZONE=us-west4-a NAME=fourier TYPE=v5litepod-64 experiments/launch/xpk.sh \
#       --config=configs/imagenet.py:fourier --workdir=gs://BUCKET/fourier \
#       --config.data.data_dir=gs://BUCKET/tfds \
#       --config.model.dtype=bfloat16 --config.model.encoder.remat=full
#
# Run it at the repository's root: the working tree, without what .dockerignore lists, is copied
# into the pods' image. When a pod is preempted (exit code 75) or loses another one (69), all pods
# start again, RESTARTS times (20) at most, and the same command resumes the run. A pod that is
# asked to stop has GRACE seconds (180) to save.
set -euo pipefail

if [ $# -eq 0 ]; then
    sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 2
fi
: "${CLUSTER:?set CLUSTER}" "${ZONE:?set ZONE}" "${NAME:?set NAME, the name of the workload}"
: "${TYPE:?set TYPE, for example v5litepod-64}"

# `exec`: the signal that asks a pod to stop must reach Python.
command=". experiments/launch/flags.sh && tpu_flags $(printf %q "$TYPE") && "
command+="pip install -q -e '.[tpu,gcs]' && exec python -m experiments.run --distributed"
command+=$(printf ' %q' "$@")

# By itself XPK restarts only after the exit codes 42 and 127 to 255.
xpk workload create --cluster="$CLUSTER" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
    --workload="$NAME" --tpu-type="$TYPE" --num-slices=1 \
    --base-docker-image="${IMAGE:-python:3.12}" --script-dir=. \
    --max-restarts="${RESTARTS:-20}" --restart-on-exit-codes=69,75 \
    --termination-grace-period-seconds="${GRACE:-180}" --command="$command"
