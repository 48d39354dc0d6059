#!/usr/bin/env bash
# Trains on a Cloud TPU slice: each of its machines ("workers") runs the same command.
#
#   export NAME=perceiver ZONE=us-west4-a TYPE=v5litepod-64 SPOT=1
#   experiments/launch/tpu_vm.sh create        # rents the slice
#   experiments/launch/tpu_vm.sh setup         # this commit, on every worker
#   experiments/launch/tpu_vm.sh run --config=configs/imagenet.py:fourier \
#       --workdir=gs://BUCKET/fourier --config.data.data_dir=gs://BUCKET/tfds
#   experiments/launch/tpu_vm.sh delete        # stops the bill
#
# `run` goes on until the run is finished: what the slice loses (maintenance, preemption) is saved
# in the workdir, and the same command continues it, on a new slice where this one is gone.
#
# Settings: VERSION (of the machines' software; by default what TYPE needs), REPO and COMMIT (by
# default those checked out here; workers clone, so the commit must be pushed), PROJECT.
set -euo pipefail

usage() {
    sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 2
}

[ $# -ge 1 ] || usage
: "${NAME:?set NAME, the name of the slice}" "${ZONE:?set ZONE, for example us-west4-a}"

tpu() { # a gcloud command about the slice
    local verb=$1
    shift
    gcloud compute tpus tpu-vm "$verb" "$NAME" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} "$@"
}

everywhere() { # runs a command line on every worker; its exit code is that of one that failed
    tpu ssh --worker=all --command="$1"
}

create() {
    : "${TYPE:?set TYPE, for example v5litepod-64}"
    local version=${VERSION:-}
    if [ -z "$version" ]; then
        case $TYPE in
        v5litepod-*) version=v2-alpha-tpuv5-lite ;;
        v5p-*) version=v2-alpha-tpuv5 ;;
        v6e-*) version=v2-alpha-tpuv6e ;;
        *) version=tpu-ubuntu2204-base ;;
        esac
    fi
    tpu create --accelerator-type="$TYPE" --version="$version" ${SPOT:+--spot}
}

setup() {
    local repo=${REPO:-$(git remote get-url origin)} commit=${COMMIT:-$(git rev-parse HEAD)}
    # The machines' own Python may be older than 3.11.
    everywhere "set -e
rm -rf perceiver_jax
git clone -q $(printf %q "$repo") perceiver_jax
cd perceiver_jax
git checkout -q $(printf %q "$commit")
python3 -m pip install -q --user uv
python3 -m uv venv -q --python 3.12 .venv
python3 -m uv pip install -q -e '.[tpu,gcs]'"
}

run() {
    local command code state
    command="cd perceiver_jax && exec .venv/bin/python -m experiments.run --distributed"
    command+=$(printf ' %q' "$@")
    while true; do
        code=0
        everywhere "$command" || code=$?
        [ "$code" -ne 0 ] || return 0
        state=$(tpu describe --format='value(state)' || true)
        if [ "$state" = READY ]; then
            case $code in
            69 | 75 | 134) echo "exit code $code: saved, running again" >&2 ;;
            *) return "$code" ;; # running again would repeat it
            esac
        else
            echo "the slice is ${state:-gone}: renting another" >&2
            tpu delete --quiet || true
            until create; do sleep "${WAIT:-60}"; done
            setup
        fi
    done
}

case $1 in
create | setup) "$1" ;;
delete) tpu delete --quiet ;;
run)
    shift
    run "$@"
    ;;
*) usage ;;
esac
