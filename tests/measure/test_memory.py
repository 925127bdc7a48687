"""What is measured is what is taken, and what is free is what the tightest limit leaves."""

import pytest
import torch

from bat_fast.measure import memory
from bat_fast.measure.memory import free_mib, growth_mib, mib, peak_mib


def take(count):
    """Hold ``count`` MiB, every page of them, for the length of the call."""
    return lambda: torch.ones(count * 2**18).sum()


def test_growth_is_what_a_call_takes():
    for count in (64, 200):
        assert growth_mib(take(count), "cpu") == pytest.approx(count, abs=12)
    assert growth_mib(lambda: None, "cpu") < 12


@pytest.mark.slow
def test_the_peak_has_what_was_there_before_and_not_what_is_gone():
    take(400)()
    before = peak_mib(lambda: None, "cpu")
    held = torch.ones(100 * 2**18)
    assert peak_mib(take(150), "cpu") == pytest.approx(before + 250, abs=25)
    del held
    assert peak_mib(lambda: None, "cpu") == pytest.approx(before, abs=25)


def system(root, available, groups, membership):
    """A /proc and a /sys of which sizes are in MiB."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:  {available * 1024} kB\n")
    (root / "proc/self/cgroup").write_text(membership)
    for path, files in groups.items():
        (root / path).mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            text = value if isinstance(value, str) else str(value * 2**20)
            (root / path / name).write_text(text)


V2 = {"memory.max": 1000, "memory.current": 700, "memory.stat": f"file 5\ninactive_file {100 * 2**20}\n"}
V1 = {
    "memory.limit_in_bytes": 600,
    "memory.usage_in_bytes": 500,
    "memory.stat": f"inactive_file 7\ntotal_inactive_file {50 * 2**20}\n",
}


@pytest.mark.parametrize(
    ("groups", "membership", "expected"),
    [
        ({}, "0::/\n", 5000),
        ({"sys/fs/cgroup/a/b": {"memory.max": "max\n"}, "sys/fs/cgroup/a": V2}, "0::/a/b\n", 400),
        ({"sys/fs/cgroup": V2}, "0::/outside/this/container\n", 400),
        ({"sys/fs/cgroup/memory/job": V1}, "9:cpu:/\n4:memory:/job\n0::/\n", 150),
        ({"sys/fs/cgroup/memory": V1 | {"memory.limit_in_bytes": 10**6}}, "4:memory:/\n", 5000),
    ],
    ids=["machine", "group above", "container", "version 1", "wide"],
)
def test_free_memory_is_the_least_that_limits_leave(tmp_path, groups, membership, expected):
    system(tmp_path, 5000, groups, membership)
    held = memory._kib("VmRSS") / 1024
    assert free_mib("cpu", tmp_path) - held == pytest.approx(expected, abs=5)


def test_another_system_is_told(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="memory cannot be measured: a CPU needs the /proc of Linux"):
        free_mib("cpu", tmp_path)
    monkeypatch.setattr(memory, "_RESET", tmp_path / "nothing" / "clear_refs")
    with pytest.raises(OSError, match="memory cannot be measured"):
        peak_mib(take(1), "cpu")
    assert growth_mib(take(1), "cpu") is None


def test_free_memory_of_this_machine():
    assert free_mib("cpu") > memory._kib("VmRSS") / 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GiB", 8192), ("8gb", 8192), ("600 MiB", 600), ("1.5G", 1536), ("1048576", 1), ("2048K", 2)],
)
def test_sizes_as_people_write_them(text, expected):
    assert mib(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "8 bits"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match=r"^expected a size such as 8GiB or 600MiB"):
        mib(text)


def test_the_gpu_that_is_named_is_measured(monkeypatch):
    asked = []
    answers = {"memory_allocated": 3 << 20, "max_memory_allocated": 10 << 20}
    for name in ("synchronize", "reset_peak_memory_stats", *answers):
        monkeypatch.setattr(
            torch.cuda, name, lambda device, name=name: asked.append((name, device)) or answers.get(name)
        )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)  # of all devices
    assert growth_mib(lambda: asked.append("run"), "cuda:1") == 7
    assert peak_mib(lambda: asked.append("run"), "cuda:1") == 10
    reset = ("reset_peak_memory_stats", "cuda:1")
    before, after = ("memory_allocated", "cuda:1"), ("max_memory_allocated", "cuda:1")
    wait = ("synchronize", "cuda:1")
    assert asked == ["run", wait, reset, before, "run", wait, after, reset, "run", wait, after]
