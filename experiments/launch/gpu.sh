#!/usr/bin/env bash
# Trains on the GPUs of one host, or of several: one process per host, which has all of its GPUs.
#
#   experiments/launch/gpu.sh --config=configs/imagenet.py:fourier --workdir=runs/fourier
#
# On several hosts, the same on each, with its own HOST (0, 1, ...); PORT is any free one of host 0,
# and the workdir a folder or bucket that all of them see:
#
#   COORDINATOR=HOST0:PORT HOSTS=2 HOST=0 experiments/launch/gpu.sh --config=... --workdir=...
#
# A run that was interrupted and saved is run again, RESTARTS times (100) at most. To stop it for
# good, Ctrl-C or SIGTERM to this script: it saves, and ends with 75.
set -euo pipefail

if [ $# -eq 0 ]; then
    sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 2
fi
. "$(dirname "${BASH_SOURCE[0]}")/flags.sh"
gpu_flags
many=()
if [ -n "${HOSTS:-}" ]; then
    : "${COORDINATOR:?set COORDINATOR, HOST0:PORT}" "${HOST:?set HOST, the number of this host}"
    many=(--coordinator="$COORDINATOR" --num_processes="$HOSTS" --process_id="$HOST")
fi

stopped=
child=
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT

for ((try = 0; try <= ${RESTARTS:-100}; try++)); do
    "${PYTHON:-.venv/bin/python}" -m experiments.run "${many[@]}" "$@" &
    child=$!
    [ -z "$stopped" ] || kill -TERM "$child" 2>/dev/null || true # it came in between
    while kill -0 "$child" 2>/dev/null; do # a signal ends `wait`, not the child
        wait "$child" || true
    done
    code=0
    wait "$child" || code=$? # its own code, where the signal's was told before
    case $code in
    69 | 75 | 134) [ -z "$stopped" ] || exit "$code" ;;
    *) exit "$code" ;;
    esac
    echo "exit code $code: saved, running again" >&2
    sleep "${WAIT:-5}"
done
exit "$code"
