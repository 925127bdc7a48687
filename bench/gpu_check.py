"""All that needs a GPU, in one command of a few minutes: build, tests, sanitizers, benchmarks, one JSON file.

    python bench/gpu_check.py             writes bench/results/gpu_<date>_<device>.json
    python bench/gpu_check.py --parts sanitizers data            some of the parts, added to the file
    python bench/gpu_check.py --quick     a minute or two: for machines without a GPU, and for the tests

Each part is a program of its own with a time limit, and all share one (`--limit`, 8 minutes on a GPU): what
matters most comes first, and what finds no time left is skipped. A part that fails or takes too long is
recorded, with what it had measured by then, and stops no other; the exit status is 1 if any failed. Without
a GPU the parts that need one are skipped, and the file, which is written after every part, says so.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
SOURCES = ("bat_fast", "csrc", "CMakeLists.txt", "setup.py", "pyproject.toml", "README.md", "LICENSE")
NO_GPU = "no CUDA device"


class Check:
    """The parts, run one after the other, and what became of them."""

    def __init__(self, scratch: Path, gpu: bool, quick: bool, limit: float = float("inf")) -> None:
        self.scratch, self.gpu, self.quick = scratch, gpu, quick
        self.device = "cuda" if gpu else "cpu"
        self.end = time.perf_counter() + limit
        self.package, self.logs = scratch / "package", scratch / "logs"
        self.parts: dict[str, dict[str, Any]] = {}
        for folder in (self.package, self.logs):
            folder.mkdir(parents=True, exist_ok=True)

    def environment(self, **more: str) -> dict[str, str]:
        paths = [str(self.package), str(BENCH), os.environ.get("PYTHONPATH", "")]
        return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | more

    def run(self, part: str, command: list[object], limit: float, **environment: str) -> dict[str, Any]:
        """Run one program; its output goes to a log, and the end of it into the record."""
        log, begin = self.logs / f"{part}.log", time.perf_counter()
        if begin > self.end - 1:
            return self.skip(part, "no time left")
        patience = 1 if self.gpu else 5  # a GPU machine is ours alone; the cores of tests are shared
        limit = min(patience * limit, round(self.end - begin, 1))
        with log.open("w") as file:
            try:
                code: int | str = subprocess.run(
                    [str(word) for word in command], cwd=self.package, stdout=file, stderr=subprocess.STDOUT,
                    env=self.environment(**environment), timeout=limit,
                ).returncode  # fmt: skip
            except (subprocess.TimeoutExpired, OSError) as error:
                code = str(error).splitlines()[0]
        text = log.read_text(errors="replace")
        record = {"ok": code == 0, "seconds": round(time.perf_counter() - begin, 1), "limit": limit}
        if code != 0:
            record |= {"status": code, "tail": text.splitlines()[-25:]}
        return self.record(part, record | {"text": text})

    def record(self, part: str, record: dict[str, Any]) -> dict[str, Any]:
        shown = {True: "ok", False: "FAILED", None: "skipped"}[record["ok"]]
        print(f"{part:22} {shown:8} {record.get('seconds', 0):7.1f} s  {record.get('note', '')}", flush=True)
        if record["ok"] is False:
            print("".join(f"    {line}\n" for line in record.get("tail", [])[-8:]), end="", flush=True)
        self.parts[part] = {k: v for k, v in record.items() if k != "text"}
        return record

    def skip(self, part: str, reason: str) -> dict[str, Any]:
        return self.record(part, {"ok": None, "note": reason, "text": ""})

    def result(self, part: str, file: Path) -> None:
        """Put what a benchmark wrote into the record of its part."""
        if file.exists():
            self.parts[part]["result"] = json.loads(file.read_text())

    def command(self, part: str, words: list[object], limit: float) -> None:
        """Run `bat-fast` in its form that prints JSON, and keep that."""
        text = self.run(part, [sys.executable, "-m", "bat_fast", *words, "--json"], limit)["text"]
        printed = re.search(r"^\{$.*^\}$", text, re.MULTILINE | re.DOTALL)  # warnings may stand before it
        if printed:
            self.parts[part]["result"] = json.loads(printed[0])

    # --- The parts ------------------------------------------------------------------------------------------

    def build(self) -> None:
        """The package from source, beside nothing that is installed."""
        source = self.scratch / "source"
        for name in SOURCES:
            if (ROOT / name).is_dir():
                hidden = shutil.ignore_patterns("lib", "__pycache__")
                shutil.copytree(ROOT / name, source / name, dirs_exist_ok=True, ignore=hidden)
            else:
                shutil.copy2(ROOT / name, source / name)
        usual = "1" if self.gpu else "0" if self.quick else "auto"
        settings = {"BAT_FAST_CUDA": os.environ.get("BAT_FAST_CUDA", usual)}
        pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation"]
        place = ["--upgrade", "--target", self.package, source]
        self.run("build", [*pip, "-v", *place], 300 if self.gpu else 600, **settings)

    def tests(self) -> None:
        """The operators and attacks; the tests themselves add the CUDA device where one is."""
        folders = ["ops"] if self.quick else ["ops", "attacks"]
        command = [sys.executable, "-m", "pytest", *(ROOT / "tests" / folder for folder in folders)]
        command += ["-p", "no:cacheprovider"]
        if self.quick:
            command += ["-k", "textbook or nan or references"]
        elif importlib.util.find_spec("xdist"):
            command += ["-n", str(min(6, os.cpu_count() or 1))]
        record = self.run("tests", command, 120 if self.gpu else 600, OMP_NUM_THREADS="2")
        found = re.findall(r"(\d+) (passed|failed|skipped|error)", record["text"])
        self.parts["tests"]["counts"] = {kind: int(count) for count, kind in found}

    def loaders(self) -> None:
        """Every loader on the CUDA device: the tests add it where one is."""
        if not self.gpu:
            self.skip("loaders", NO_GPU)
            return
        file = ROOT / "tests" / "data" / "test_loaders.py"
        command = [sys.executable, "-m", "pytest", file, "-p", "no:cacheprovider"]
        self.run("loaders", command, 120, OMP_NUM_THREADS="2")

    def small_calls(self) -> None:
        self.run("small_calls_cpu", [sys.executable, BENCH / "gpu_small.py"], 60)
        if self.gpu:
            self.run("cpu_equals_gpu", [sys.executable, BENCH / "gpu_small.py", "--compare"], 60)
        else:
            self.skip("cpu_equals_gpu", NO_GPU)

    def sanitizers(self) -> None:
        """memcheck without torch's pool, so that every tensor has an end of its own; racecheck."""
        program = shutil.which("compute-sanitizer") or shutil.which(
            "compute-sanitizer", path="/usr/local/cuda/bin"
        )
        for tool in ("memcheck", "racecheck"):
            if not self.gpu or program is None:
                self.skip(tool, NO_GPU if not self.gpu else "no compute-sanitizer")
                continue
            options = ["--tool", tool, "--error-exitcode", "9", "--kernel-name", "kernel_substring=bat_fast"]
            small = [sys.executable, BENCH / "gpu_small.py", "--device", "cuda"]
            record = self.run(tool, [program, *options, *small], 120, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
            if "Device not supported" in record["text"]:
                self.skip(tool, "compute-sanitizer does not support this machine: Device not supported")
            elif record["ok"] and "calls ran on cuda" not in record["text"]:
                self.record(tool, record | {"ok": False, "tail": ["the calls did not run"]})

    def benchmark(
        self, part: str, program: str, options: list[Any], limit: float, quick: bool = True
    ) -> None:
        if not self.gpu and not (self.quick and quick):
            self.skip(part, f"{NO_GPU}; python bench/{program} measures the CPU")
            return
        file = self.scratch / f"{part}.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, BENCH / program, "--device", self.device, "--json", file, *options]
        print(self.run(part, command, limit)["text"][-8000:])
        self.result(part, file)

    def attack(self) -> None:
        """PGD-10 beside others, one part for each shape: compilation by hand may take its time."""
        for shape in ("resnet18_128", "resnet18_512") if self.gpu else ("mlp",):
            part = f"attack_{shape}"
            options = ["--shapes", shape, "--seconds", 8 if self.gpu else 0]
            self.benchmark(part, "bench_attack.py", [*options, *(["--compile"] if self.gpu else [])], 120)

    def step(self) -> None:
        options: list[Any] = ["--seconds", 5 if self.gpu else 0]
        options += ["--resnet", "--batch_sizes", 128, 512] if self.gpu else []
        self.benchmark("step", "bench_step.py", options, 120)

    def command_line(self) -> None:
        """`bat-fast bench`, on a GPU with launch gaps, on random and trained weights; the largest batch."""
        if not self.gpu and not self.quick:
            self.skip("command_line", f"{NO_GPU}; bat-fast bench measures the CPU")
            return
        device = ["--device", self.device]
        recipe = ["--recipe", "tiny-imagenet-bat" if self.gpu else "digits-bat", *device]
        how = ["--seconds", 6, "--engines", "eager", "frozen", "graph"] if self.gpu else ["--seconds", 0]
        for size in (128, 512) if self.gpu else (16,):
            self.command(f"bench_{size}", ["bench", *recipe, "--batch_size", size, *how], 60)
        folder = self.scratch / "run"
        shutil.rmtree(folder, ignore_errors=True)
        training = ["--recipe", "digits-bat", *device, "--epochs", 20 if self.gpu else 1, "--out", folder]
        self.run("train", [sys.executable, "-m", "bat_fast", "train", *training], 60)
        self.command("bench_run", ["bench", "--run", folder, *device, *how], 60)
        memory = [] if self.gpu else ["--memory", "1GiB"]
        self.command("largest_batch", ["bench", *recipe, "--largest_batch", *memory], 90)

    def operators(self) -> None:
        self.benchmark("operators", "bench_ops.py", ["--no-compile", "--seconds", 0.3], 120, quick=False)

    def data(self) -> None:
        options = ["--seconds", 20, "--steps", 20, "--rounds", 3]
        self.benchmark("data", "bench_data.py", options, 120, quick=False)


# What matters most first.
PARTS = "build tests small_calls attack step command_line operators loaders data sanitizers".split()  # noqa: SIM905


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a CPU build, a few tests, small benchmarks")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--limit", type=float, help="seconds for all parts (default: 480 on a GPU)")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build" / "gpu_check")
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    options = parser.parse_args()
    gpu = torch.cuda.is_available() and not options.quick
    device = torch.cuda.get_device_name() if gpu else "no GPU"
    about = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "device": device,
        "cpu_cores": os.cpu_count(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "python": sys.version.split()[0], "quick": options.quick,
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    limit = options.limit or (480 if gpu else float("inf"))
    check, begin = Check(options.scratch.resolve(), gpu, options.quick, limit), time.perf_counter()
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    file = options.results / f"gpu_{datetime.date.today()}_{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if options.parts is not PARTS and file.exists():
        check.parts = json.loads(file.read_text())["parts"]
    failed: list[str] = []
    for part in (name for name in PARTS if name in options.parts):
        try:
            getattr(check, part)()
        except Exception as error:  # of this program: the rest is worth knowing all the same
            check.record(part, {"ok": False, "status": f"{type(error).__name__}: {error}"})
        failed = [name for name, record in check.parts.items() if record["ok"] is False]
        about |= {"seconds": round(time.perf_counter() - begin, 1), "failed": failed}
        file.write_text(json.dumps(about | {"parts": check.parts}, indent=1) + "\n")
    print(
        f"{file}: {len(check.parts)} parts, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}"
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
