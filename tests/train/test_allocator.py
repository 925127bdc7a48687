"""Memory that is freed stays with the process."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
    import resource, sys, torch
    from bat_fast.train.allocator import keep_freed_memory

    print(keep_freed_memory())
    torch.rand(5 << 20)  # 20 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(5 << 20), torch.ones(1 << 20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> tuple[str, int]:
    import os

    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    done, count = run.stdout.split()
    return done, int(count)


def test_pages_are_fetched_once():
    done, few = faults()
    switched_off, many = faults(BAT_FAST_KEEP_MEMORY="0")
    assert switched_off == "False"
    if done == "True":  # glibc
        assert few < 2 * 6144  # pages of one pair of blocks
        assert few <= many
