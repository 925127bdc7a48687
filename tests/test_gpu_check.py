"""The one command for a GPU machine runs without a GPU too, and says what it left out."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def gpu_check(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "bench" / "gpu_check.py", "--quick", *options]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def test_the_quick_form_builds_and_tests_and_names_what_was_skipped(tmp_path):
    # The default scratch folder is kept, so that the next run compiles only what changed.
    run = gpu_check("--results", tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    (file,) = tmp_path.glob("gpu_*.json")
    found = json.loads(file.read_text())
    assert found["failed"] == []
    parts = found["parts"]
    assert parts["build"]["ok"]
    assert parts["tests"]["ok"]
    assert parts["tests"]["counts"]["passed"] > 50
    assert parts["small_calls_cpu"]["ok"]
    for part in ("cpu_equals_gpu", "memcheck", "racecheck", "loaders", "operators", "step", "data", "attack"):
        assert parts[part]["ok"] is None
        assert "no CUDA device" in parts[part]["note"]


def test_a_part_that_fails_stops_no_other_and_fails_the_run(tmp_path):
    sys.path.insert(0, str(ROOT / "bench"))
    from gpu_check import Check

    check = Check(tmp_path, gpu=False, quick=True)
    check.run("broken", [sys.executable, "-c", "print('why'); raise SystemExit(3)"], 20)
    check.run("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    check.run("fine", [sys.executable, "-c", "print('well')"], 20)
    assert [record["ok"] for record in check.parts.values()] == [False, False, True]
    assert check.parts["broken"]["status"] == 3
    assert check.parts["broken"]["tail"] == ["why"]
    assert "timed out" in check.parts["slow"]["status"]
