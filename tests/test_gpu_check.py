"""The one command for a GPU machine runs without a GPU too, and says what it left out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from words import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import bench_attack
import gpu_check

pytestmark = [pytest.mark.slow, pytest.mark.whole]  # builds the library once more, and runs all of it


def run_gpu_check(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "bench" / "gpu_check.py", "--quick", *options]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


@pytest.fixture(scope="module")
def quick_gpu_check(
    without_nvcc: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """``bench/gpu_check.py --quick`` on a machine without nvcc: the run, and the folder of its results.

    It builds the whole library, so what a build without nvcc does is seen there. The scratch folder is kept:
    the next run compiles only what changed.
    """
    results = tmp_path_factory.mktemp("results")
    command = [sys.executable, str(ROOT / "bench" / "gpu_check.py"), "--quick", "--results", str(results)]
    # All bindings in one unit: torch's headers are most of what each takes to compile, -O3 is the rest.
    unity = "-DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=0 -DBAT_FAST_OPTIMIZATION=-O1"
    env = without_nvcc | {"BAT_FAST_CUDA": "auto", "CMAKE_ARGS": unity}
    return subprocess.run(command, capture_output=True, text=True, env=env), results


def test_without_nvcc_the_cpu_kernels_are_built_and_one_warning_says_so(quick_gpu_check, tmp_path):
    run, _ = quick_gpu_check
    assert run.returncode == 0, run.stdout + run.stderr
    scratch = ROOT / "build" / "gpu_check"
    log = " ".join((scratch / "logs" / "build.log").read_text().split())
    assert log.count("no nvcc, so only the CPU kernels are built") == 1
    library = scratch / "package" / "bat_fast" / "lib" / "libbat_fast.so"
    program = (
        f"import torch; torch.ops.load_library({str(library)!r}); "
        "has = torch._C._dispatch_has_kernel_for_dispatch_key; "
        "torch.library.define('bat_fast::linf_step_', '(Tensor(a!) adv, Tensor grad, Tensor clean, float s, "
        "float eps, float lo, float hi) -> ()'); x = torch.full((3,), .5); a = x.clone(); "
        "torch.ops.bat_fast.linf_step_(a, torch.ones(3), x, .25, .5, 0., 1.); "
        "print(a.tolist(), has('bat_fast::linf_step_', 'CUDA'))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert answer.stdout.split("\n")[0] == "[0.75, 0.75, 0.75] False", answer.stderr


def test_the_quick_form_builds_and_tests_and_names_what_was_skipped(quick_gpu_check):
    run, results = quick_gpu_check
    assert run.returncode == 0, run.stdout + run.stderr
    (file,) = results.glob("gpu_*.json")
    found = json.loads(file.read_text())
    assert found["failed"] == []
    parts = found["parts"]
    assert parts["build"]["ok"]
    assert parts["tests"]["ok"]
    assert parts["tests"]["counts"]["passed"] > 50
    assert parts["small_calls_cpu"]["ok"]
    attack, step, bench, trained, largest = (
        parts[part]["result"] for part in ("attack_mlp", "step", "bench_16", "bench_run", "largest_batch")
    )
    assert attack["rows"][0]["times"]["frozen fp32"]["median"] > 0
    assert step["rows"][0]["step"]["hand"]["median"] > 0
    assert bench["rows"][0]["step_gaps"] is None
    assert trained["judged_images"] == 359
    assert largest["largest"] > 0
    assert "a step of the attack" in parts["profile_small_cnn"]["result"]
    assert parts["build"]["date"] > "2026"
    left_out = ("cpu_equals_gpu", "memcheck", "racecheck", "synccheck", "epoch_fast")
    for part in (*left_out, "operators", "attack_resnet18_512", "attack_compiled", "data"):
        assert parts[part]["ok"] is None
        assert "no CUDA device" in parts[part]["note"]


def recorded(monkeypatch, tmp_path, ok=True, output="", limit=480):
    """What a GPU would be asked, and the record of it."""
    check, asked = gpu_check.Check(tmp_path, gpu=True, quick=False, limit=limit), {}

    def run(part, command, limit, **_):
        asked[part] = ([str(word) for word in command], limit)
        return check.record(part, {"ok": ok, "text": output})

    monkeypatch.setattr(check, "run", run)
    return check, asked


def test_on_a_gpu_every_shape_and_side_of_the_targets_is_measured(monkeypatch, tmp_path):
    check, asked = recorded(monkeypatch, tmp_path, output='a warning\n{\n "rows": [{}]\n}\nanother\n')
    for part in (*gpu_check.GROUPS["fast"], *gpu_check.GROUPS["long"], "correct", "profile"):
        getattr(check, part)()
    for size in ("128", "512"):
        words = " ".join(asked[f"attack_resnet18_{size}"][0])
        assert f"--device cuda --json {tmp_path}/attack_resnet18_{size}.json" in words
        assert f"--shapes resnet18_{size}" in words
        assert "--compile" not in words  # slow to start, so a part of its own
        words = " ".join(asked[f"bench_{size}"][0])
        assert f"--batch_size {size} --seconds 5 --engines eager frozen graph --json" in words
    assert "--shapes resnet18_128 --compile" in " ".join(asked["attack_compiled"][0])
    assert " -m cuda" in " ".join(asked["tests"][0])
    assert "--speed fast --data.name synthetic" in " ".join(asked["epoch_fast"][0])
    assert "--precisions bf16 --seconds 10" in " ".join(asked["update"][0])
    assert "--resnet --batch_sizes 128" in " ".join(asked["step"][0])
    assert "--largest_batch --json" in " ".join(asked["largest_batch"][0])
    assert "--engines eager frozen graph --json" in " ".join(asked["bench_run"][0])
    assert check.parts["bench_128"]["result"] == {"rows": [{}]}
    shared = (ROOT / "bench" / "options.py").read_text()
    for words, _ in asked.values():
        if words[1] != "-m" and "sanitizer" not in words[0]:
            known = Path(words[1]).read_text() + shared
            assert all(f'"{word}"' in known for word in words if word.startswith("--"))


def test_the_parts_share_one_limit_and_a_late_one_is_skipped(tmp_path):
    check = gpu_check.Check(tmp_path, gpu=False, quick=True, limit=2.5)
    check.run("long", [sys.executable, "-c", "print('begun', flush=True); import time; time.sleep(60)"], 60)
    check.run("late", [sys.executable, "-c", "pass"], 60)
    assert check.parts["long"]["ok"] is False
    assert check.parts["long"]["tail"] == ["begun"]
    assert check.parts["late"] == {"ok": None, "note": "no time left"}


def test_what_was_measured_before_the_time_ran_out_is_kept(monkeypatch, tmp_path):
    check, _ = recorded(monkeypatch, tmp_path, ok=False)
    run = check.run

    def slow(part, *rest, **more):
        (tmp_path / f"{part}.json").write_text('{"rows": [1]}')
        return run(part, *rest, **more)

    monkeypatch.setattr(check, "run", slow)
    check.step()
    assert check.parts["step"] == {"ok": False, "result": {"rows": [1]}}


def test_the_attack_is_measured_where_compilation_by_others_fails(monkeypatch):
    asked = {}

    def compile(model, **how):
        asked.update(how)
        return model

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: 1 / 0)
    row = bench_attack.compare("mlp", "cpu", 0, True)
    assert asked == {"mode": "reduce-overhead"}
    assert list(row["failed"]) == ["hand fp32 compiled"]
    assert "ZeroDivisionError" in row["failed"]["hand fp32 compiled"]
    assert {"hand fp32", "eager fp32", "frozen fp32"} < row["times"].keys()


def test_a_part_alone_is_added_to_the_file(tmp_path):
    for part in ("data", "operators"):
        assert run_gpu_check("--parts", part, "--results", tmp_path).returncode == 0
    (file,) = tmp_path.glob("gpu_*.json")
    assert list(json.loads(file.read_text())["parts"]) == ["data", "operators"]


def test_an_unknown_part_is_refused():
    run = run_gpu_check("--parts", "warp")
    assert run.returncode == 2
    assert "invalid choice: 'warp'" in run.stderr


def test_a_part_that_fails_stops_no_other_and_fails_the_run(tmp_path):
    check = gpu_check.Check(tmp_path, gpu=False, quick=True)
    check.run("broken", [sys.executable, "-c", "print('why'); raise SystemExit(3)"], 20)
    check.run("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    check.run("fine", [sys.executable, "-c", "print('well')"], 20)
    assert [record["ok"] for record in check.parts.values()] == [False, False, True]
    assert check.parts["broken"]["status"] == 3
    assert check.parts["broken"]["tail"] == ["why"]
    assert "timed out" in check.parts["slow"]["status"]
