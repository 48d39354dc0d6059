"""The launch scripts, run with stand-ins for `gcloud`, `xpk` and `srun` that record their calls."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

LAUNCH = pathlib.Path(__file__).parents[1] / "experiments" / "launch"
RUN = ["--config=configs/imagenet.py:fourier", "--workdir=gs://a bucket/run", "--config.steps=2"]

# Writes its arguments as a line; then prints, and ends with, what the file `answers` says for the
# first word of them that it has an answer for: one [text, code] for each call, the last for all.
STUB = f"""#!{sys.executable}
import json, os, pathlib, sys
here = pathlib.Path(os.environ["STUBS"])
name = pathlib.Path(sys.argv[0]).name
with open(here / "calls", "a") as file:
    kept = {{k: v for k, v in os.environ.items() if k.startswith("JAX_LOCAL")}}
    file.write(json.dumps([name, *sys.argv[1:]] + ([kept] if kept else [])) + "\\n")
answers = json.loads((here / "answers").read_text())
for word in [name, *sys.argv[1:]]:
    if word in answers:
        text, code = answers[word][0]
        answers[word] = answers[word][1:] or answers[word]
        (here / "answers").write_text(json.dumps(answers))
        print(text)
        sys.exit(code)
"""

WAITS = """#!/bin/bash
trap "exit 75" TERM
echo up >> "$STUBS/calls"
sleep 60 &
wait
"""


@pytest.fixture
def launch(tmp_path):
    """`launch(script, arguments, answers, **environment)` -> (exit code, stderr, calls)."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name in ("gcloud", "xpk", "srun", "scontrol", "fake_python"):
        (stubs / name).write_text(STUB)
        (stubs / name).chmod(0o755)

    def start(script, arguments, answers=None, **environment):
        (tmp_path / "answers").write_text(json.dumps(answers or {}))
        (tmp_path / "calls").write_text("")
        environment = {
            "PATH": f"{stubs}:{os.environ['PATH']}", "STUBS": str(tmp_path), "WAIT": "0",
            "PYTHON": "fake_python", **environment,
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", LAUNCH / script, *arguments],
            env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(*arguments, **options):
        process = start(*arguments, **options)
        _, stderr = process.communicate(timeout=60)
        calls = (tmp_path / "calls").read_text().splitlines()
        return process.returncode, stderr, [json.loads(line) for line in calls]

    run.start, run.folder = start, tmp_path
    return run


def arguments_of(command, tmp_path):
    """What a command line on a remote machine gives to `experiments.run`, as its shell reads it."""
    script = re.sub(r".*(?=\bexec \S*python)", "", command, flags=re.S)
    script = re.sub(r"exec \S*python", "fake_python", script)
    (tmp_path / "calls").write_text("")
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "STUBS": str(tmp_path)}
    subprocess.run(["bash", "-c", script], env=environment, check=True)
    return json.loads((tmp_path / "calls").read_text())[1:]


TPU = {"NAME": "slice", "ZONE": "us-west4-a", "TYPE": "v5litepod-64"}
GCLOUD = ["gcloud", "compute", "tpus", "tpu-vm"]


SCRIPTS = sorted({path.name for path in LAUNCH.glob("*.sh")} - {"flags.sh"})  # read by them


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_read_by_bash_and_say_how_they_are_used(script, launch):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)
    code, stderr, calls = launch(script, [])
    assert code == 2 and not calls
    assert f"experiments/launch/{script}" in stderr and "set -euo" not in stderr


def test_a_slice_is_rented_set_up_and_given_back(launch):
    code, _, calls = launch("tpu_vm.sh", ["create"], SPOT="1", PROJECT="mine", **TPU)
    assert code == 0
    assert calls == [
        [*GCLOUD, "create", "slice", "--zone=us-west4-a", "--project=mine",
         "--accelerator-type=v5litepod-64", "--version=v2-alpha-tpuv5-lite", "--spot"]
    ]  # fmt: skip
    settings = {**TPU, "REPO": "https://host/perceiver jax.git", "COMMIT": "abc123"}
    code, _, ((*call, command),) = launch("tpu_vm.sh", ["setup"], **settings)
    assert code == 0
    assert call == [*GCLOUD, "ssh", "slice", "--zone=us-west4-a", "--worker=all"]
    assert r"git clone -q https://host/perceiver\ jax.git perceiver_jax" in command
    assert "git checkout -q abc123" in command and "pip install -q -e '.[tpu,gcs]'" in command
    code, _, calls = launch("tpu_vm.sh", ["delete"], **TPU)
    assert calls == [[*GCLOUD, "delete", "slice", "--zone=us-west4-a", "--quiet"]]
    code, stderr, calls = launch("tpu_vm.sh", ["run", *RUN], NAME="slice")
    assert code != 0 and "set ZONE" in stderr and not calls


# Stands in for `gcloud ... ssh --worker=all --command=...`: runs the command in a folder for each
# of two workers, one after another.
WORKERS = """#!/bin/bash
case $4 in
describe) echo READY && exit ;;
ssh) ;;
*) exit 1 ;;
esac
failed=0
for worker in 0 1; do
    cd "$STUBS/worker$worker" || exit 1
    WORKER=$worker bash -c "${!##--command=}" || failed=$?
done
exit $failed
"""

# The Python of a worker: notes its arguments; ends as the worker's file `codes` says, a line for
# each start, or waits for a signal.
WORKER_PYTHON = """#!/bin/bash
trap "exit 75" TERM
echo "$*" >>calls
echo "$LIBTPU_INIT_ARGS" >flags
code=$(head -n 1 codes)
sed -i 1d codes
[ "$code" = wait ] || exit "$code"
sleep 60 &
wait
"""


@pytest.fixture
def workers(launch):
    """`start(codes of worker 0, of worker 1)` sets up two workers; their folders are returned."""
    (launch.folder / "bin" / "gcloud").write_text(WORKERS)

    def start(*codes):
        folders = [launch.folder / f"worker{n}" / "perceiver_jax" for n in (0, 1)]
        for folder, each in zip(folders, codes, strict=True):
            (folder / ".venv/bin").mkdir(parents=True)
            (folder / ".venv/bin/python").write_text(WORKER_PYTHON)
            (folder / ".venv/bin/python").chmod(0o755)
            (folder / "codes").write_text("".join(f"{code}\n" for code in each))
            shutil.copytree(LAUNCH, folder / "experiments/launch")
        return folders

    return start


def starts(folder):
    return (folder / "calls").read_text().splitlines()


FAST = {**TPU, "WAIT": "0.2"}


def test_every_worker_runs_the_command(launch, workers):
    folders = workers([0], [0])
    code, _, _ = launch("tpu_vm.sh", ["run", *RUN], **FAST)
    assert code == 0
    expected = " ".join(["-m experiments.run --distributed", *RUN])
    assert [starts(folder) for folder in folders] == [[expected]] * 2
    given = [(folder / "flags").read_text().split() for folder in folders]
    assert given == [flags("V5E_FLAGS").split()] * 2


def test_a_saved_run_goes_on_and_an_error_ends_it(launch, workers):
    folders = workers([75, 69, 0], [75, 134, 0])
    code, stderr, _ = launch("tpu_vm.sh", ["run", *RUN], **FAST)
    assert code == 0 and [len(starts(folder)) for folder in folders] == [3, 3]
    assert "exit code 75: saved, running again" in stderr
    for folder, each in zip(folders, ([69], [70]), strict=True):  # the second one is the reason
        (folder / "codes").write_text(f"{each[0]}\n")
    code, stderr, _ = launch("tpu_vm.sh", ["run", *RUN], **FAST)
    assert code == 70 and [len(starts(folder)) for folder in folders] == [4, 4]


def test_a_run_does_not_depend_on_the_connection_and_is_stopped_by_a_verb(launch, workers):
    folders = workers(["wait"], ["wait"])
    first = launch.start("tpu_vm.sh", ["run", *RUN], **FAST)
    deadline = time.monotonic() + 30
    while not all((folder / "calls").exists() for folder in folders):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.kill()
    first.wait()
    again = launch.start("tpu_vm.sh", ["run", *RUN], **FAST)  # follows; does not start another
    time.sleep(1)
    assert again.poll() is None
    assert launch("tpu_vm.sh", ["stop"], **FAST)[0] == 0
    assert again.wait(timeout=30) == 75
    assert [len(starts(folder)) for folder in folders] == [1, 1]
    assert [(folder / "run.code").read_text() for folder in folders] == ["75\n"] * 2


def test_a_rebooted_worker_is_started_again(launch, workers):
    folders = workers(["wait", 0], [69, 0])
    process = launch.start("tpu_vm.sh", ["run", *RUN], **FAST)
    deadline = time.monotonic() + 30
    while not (folders[1] / "run.code").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for name in ("run.shell", "run.pid"):  # what a reboot ends, it ends without a code
        os.kill(int((folders[0] / name).read_text()), signal.SIGKILL)
    assert process.wait(timeout=30) == 0
    assert [len(starts(folder)) for folder in folders] == [2, 2]


def test_a_slice_without_setup_ends_the_launcher(launch, workers):
    for folder in workers([], []):
        subprocess.run(["rm", "-r", folder], check=True)
    assert launch("tpu_vm.sh", ["run", *RUN], **FAST)[0] == 2


def verbs(calls):
    return [call[4] for call in calls]


def test_a_preempted_slice_is_replaced(launch):
    answers = {
        "ssh": [["", 0], ["", 255], ["", 0], ["", 0], ["state=running", 0], ["state=0", 0]],
        "describe": [["PREEMPTED", 0]],
        "create": [["no capacity", 1], ["", 0]],
    }
    settings = {**TPU, "REPO": "https://host/r.git", "COMMIT": "abc123"}
    code, stderr, calls = launch("tpu_vm.sh", ["run", *RUN], answers, **settings)
    assert code == 0 and "the slice is PREEMPTED: renting another" in stderr
    begin, poll = ["ssh"], ["ssh"]
    renewed = ["describe", "delete", "create", "create", "ssh"]
    assert verbs(calls) == [*begin, *poll, *renewed, *begin, *poll, *poll]
    assert "git checkout" in calls[6][-1] and calls[7] == calls[0]


def test_a_workload_is_submitted_to_a_cluster(launch):
    settings = {"CLUSTER": "pods", "ZONE": "us-west4-a", "NAME": "fourier", "TYPE": "v5litepod-64"}
    code, _, ((*call, command),) = launch("xpk.sh", RUN, **settings)
    assert code == 0
    assert call == [
        "xpk", "workload", "create", "--cluster=pods", "--zone=us-west4-a", "--workload=fourier",
        "--tpu-type=v5litepod-64", "--num-slices=1", "--base-docker-image=python:3.12",
        "--script-dir=.", "--max-restarts=20", "--restart-on-exit-codes=69,75",
        "--termination-grace-period-seconds=180",
    ]  # fmt: skip
    expected = ["-m", "experiments.run", "--distributed", *RUN]
    assert arguments_of(command, launch.folder) == expected


def test_the_image_of_a_workload_leaves_out_what_a_run_does_not_need():
    ignored = (LAUNCH.parents[1] / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "runs", "**/__pycache__"} <= set(ignored)
    needed = {"perceiver_jax", "configs", "experiments", "pyproject.toml", "setup.py"}
    assert not needed & set(ignored)


def test_gpu_hosts(launch):
    python = ["fake_python", "-m", "experiments.run"]
    answers = {"fake_python": [["", 134], ["", 75], ["", 0]]}
    code, stderr, calls = launch("gpu.sh", RUN, answers)
    assert (code, calls) == (0, [[*python, *RUN]] * 3)
    assert "exit code 134: saved, running again" in stderr
    many = {"COORDINATOR": "host0:1234", "HOSTS": "2", "HOST": "1"}
    code, _, calls = launch("gpu.sh", RUN, {"fake_python": [["", 70]]}, **many)
    flags = ["--coordinator=host0:1234", "--num_processes=2", "--process_id=1"]
    assert (code, calls) == (70, [[*python, *flags, *RUN]])
    code, stderr, calls = launch("gpu.sh", RUN, HOSTS="2", COORDINATOR="host0:1234")
    assert code != 0 and "set HOST" in stderr and not calls


@pytest.mark.parametrize("pause", [0, 0.3])
def test_a_stopped_gpu_run_is_not_started_again(launch, pause):
    """Nor is its exit code lost where it ends before the launcher looks for it."""
    (launch.folder / "bin" / "fake_python").write_text(WAITS)
    slow = launch.folder / "slow"
    slow.write_text(f'kill() {{ builtin kill "$@"; code=$?; sleep {pause}; return $code; }}\n')
    process = launch.start("gpu.sh", RUN, BASH_ENV=str(slow))
    calls = launch.folder / "calls"
    deadline = time.monotonic() + 30
    while not calls.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75
    assert calls.read_text() == "up\n"


def test_slurm_nodes(launch):
    job = {"SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "12"}
    code, _, calls = launch("slurm.sh", RUN, {"srun": [["", 75]]}, **job)
    step = ["srun", "--kill-on-bad-exit=1", "fake_python", "-m", "experiments.run", *RUN]
    devices = {"JAX_LOCAL_DEVICE_IDS": "0,1,2,3"}
    assert (code, calls[0]) == (0, [*step, devices])
    assert calls[1][:3] == ["scontrol", "requeue", "12"]
    code, _, calls = launch("slurm.sh", RUN, {"srun": [["", 70]]}, **job)
    assert (code, len(calls)) == (70, 1)


def flags(name):
    """What `flags.sh` holds."""
    script = f'. {LAUNCH}/flags.sh; echo "${name}"'
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout


def test_gpu_hosts_get_flags_and_keep_those_of_the_user(launch):
    says = '#!/bin/sh\necho "$XLA_FLAGS|$XLA_CLIENT_MEM_FRACTION" >> "$STUBS/said"\n'
    (launch.folder / "bin" / "fake_python").write_text(says)
    launch("gpu.sh", RUN)
    launch("gpu.sh", RUN, XLA_FLAGS="--mine", XLA_CLIENT_MEM_FRACTION="0.5")
    launch("gpu.sh", RUN, XLA_PYTHON_CLIENT_MEM_FRACTION="0.5")
    ours, fraction = flags("GPU_FLAGS").strip(), flags("GPU_MEMORY").strip()
    said = (launch.folder / "said").read_text().splitlines()
    assert said == [f"{ours} |{fraction}", f"{ours} --mine|0.5", f"{ours} |"]


def test_xla_knows_the_flags():
    """It ends the process of whoever gives it another one."""
    for given, known in ((flags("GPU_FLAGS"), True), ("--xla_gpu_no_such_flag=true", False)):
        start = [sys.executable, "-c", "import jaxlib.xla_client as x; x.make_cpu_client()"]
        environment = {**os.environ, "XLA_FLAGS": given}
        done = subprocess.run(start, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == known, done.stderr


@pytest.mark.tpu
def test_the_compiler_for_tpus_knows_the_flags():
    text = "from experiments.plan import chips; import jax, sys; d = chips.slice_devices('v5e:1x1')"
    text += "; s = jax.sharding.SingleDeviceSharding(d[0])"
    text += "; x = jax.ShapeDtypeStruct((8, 128), 'float32', sharding=s)"
    text += "; jax.jit(lambda x: x + 1).lower(x).compile()"
    for given, known in ((flags("V5E_FLAGS"), True), ("--xla_tpu_no_such_flag=true", False)):
        environment = {**os.environ, "LIBTPU_INIT_ARGS": given.strip(), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", text], env=environment, cwd=LAUNCH.parents[1],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "NoCompiler" in done.stderr:
            pytest.skip("libtpu is not installed")
        assert (done.returncode == 0) == known, done.stderr


def test_the_flags_are_those_of_experiments_run():
    """The real command line takes what the scripts give, and refuses a host that is none."""
    done = subprocess.run(
        ["bash", LAUNCH / "gpu.sh", "--config=configs/digits.py:tiny", "--workdir=nowhere"],
        env={**os.environ, "PYTHON": sys.executable, "COORDINATOR": "localhost:1", "HOSTS": "2",
             "HOST": "2"},
        cwd=LAUNCH.parents[1], capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "process_id=2 is not one of num_processes=2" in done.stderr
