"""Freed memory is kept, which the kernel would have to clear again for each chunk."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, threading
if "kept" in sys.argv:
    import perceiver_jax

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        scratch = [b"x" * (size * 2**20) for size in (3, 3, 80)]
        del scratch
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def measure():  # in a thread, as XLA's programs
    faults(2)
    print(faults(10))

thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_scratch_is_not_faulted_in_again_and_again():
    def run(*arguments):
        command = [sys.executable, "-c", SCRIPT, *arguments]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    pages = 10 * 86 * 2**20 // 4096
    assert run() > pages / 2
    assert run("kept") < pages / 20
