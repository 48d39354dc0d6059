#!/usr/bin/env bash
# Trains on a Cloud TPU slice: each of its machines ("workers") runs the same command.
#
#   export NAME=perceiver ZONE=us-west4-a TYPE=v5litepod-64 SPOT=1
#   experiments/launch/tpu_vm.sh create        # rents the slice
#   experiments/launch/tpu_vm.sh setup         # installs this commit on every worker
#   experiments/launch/tpu_vm.sh run --config=configs/imagenet.py:fourier \
#       --workdir=gs://BUCKET/fourier --config.data.data_dir=gs://BUCKET/tfds \
#       --config.model.dtype=bfloat16 --config.model.encoder.remat=full
#   experiments/launch/tpu_vm.sh log           # prints the end of the first worker's log
#   experiments/launch/tpu_vm.sh stop          # saves and ends the run
#   experiments/launch/tpu_vm.sh delete        # stops the bill
#
# `run` starts the training on the workers, where it does not depend on this connection, and asks
# every WAIT seconds (30) how it is. Interrupting `run` leaves the training alone, and calling it
# again follows it. After maintenance or preemption `run` starts the same command again, on a new
# slice if this one is gone, and the training resumes from its workdir.
#
# Settings: VERSION (of the machines' software; by default what TYPE needs), REPO and COMMIT (by
# default those checked out here; workers clone, so the commit must be pushed), PROJECT.
# This is for TPUs up to v6e; later generations are rented through GKE (xpk.sh) or Compute Engine.
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

# On a worker, in the clone: `run.shell` waits for Python, `run.pid`, and writes `run.code`.
# Its working directory tells the shell from a process that has its number after a reboot.
alive='{ [ ! -e run.code ] && [ "/proc/$(cat run.shell 2>/dev/null)/cwd" -ef . ]; }'
poll="cd perceiver_jax; $alive || [ -e run.code ] || echo 69 >run.code # the worker was rebooted
if [ ! -e run.code ]; then echo state=running
elif [ -e run.stop ]; then echo state=stopped
else echo state=\$(cat run.code); fi"

follow() { # waits until every worker has ended; sets `code`
    local states each
    while true; do
        sleep "${WAIT:-30}"
        states=$(everywhere "$poll") || { code=255 && return; }
        states=$(grep -o 'state=[a-z0-9]*' <<<"$states" || true)
        case $states in
        *running*) continue ;;
        *stopped*) code=stopped && return ;;
        '') code=255 && return ;;
        esac
        code=0
        for each in ${states//state=/}; do
            case $each in
            0) ;;
            69 | 75 | 134) [ "$code" -ne 0 ] || code=$each ;;
            *) code=$each && return ;; # the reason: the other workers only lost this one
            esac
        done
        return
    done
}

run() {
    local train begin state code
    train=". experiments/launch/flags.sh; tpu_flags $(printf %q "${TYPE:-}")"$'\n'
    train+=".venv/bin/python -m experiments.run --distributed$(printf ' %q' "$@") &"
    train+=$'\n''echo $! >run.pid; wait $!; echo $? >run.code'
    begin="cd perceiver_jax || exit 2 # there was no setup
$alive && exit; rm -f run.code run.stop
nohup bash -c $(printf %q "$train") >>run.log 2>&1 </dev/null &
echo \$! >run.shell"
    while true; do
        code=0
        everywhere "$begin" || code=$?
        case $code in
        0) follow ;;
        2) ;;
        *) code=255 ;;
        esac
        case $code in
        0) return 0 ;;
        stopped) return 75 ;;
        esac
        state=$(tpu describe --format='value(state)' || true)
        if [ "$state" = READY ]; then
            case $code in
            69 | 75 | 134) echo "exit code $code: saved, running again" >&2 ;;
            255) echo "a worker does not answer: trying again" >&2 && sleep "${WAIT:-30}" ;;
            *) # running again would repeat it
                everywhere "tail -n 5 perceiver_jax/run.log" >&2 || true
                return "$code"
                ;;
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
log) tpu ssh --worker=0 --command="tail -n 50 perceiver_jax/run.log" ;;
stop) everywhere 'cd perceiver_jax; touch run.stop; kill -TERM "$(cat run.pid)" || true' ;;
run)
    shift
    run "$@"
    ;;
*) usage ;;
esac
