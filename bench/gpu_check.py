"""All that needs a GPU: build, tests, sanitizers, profile, benchmarks, in three groups that fill one file.

    python bench/gpu_check.py             writes bench/results/gpu_<date>_<device>.json
    python bench/gpu_check.py --parts right                      a group, or parts by name, added to the file
    python bench/gpu_check.py --quick     a minute or two: for machines without a GPU, and for the tests

``right`` (6 minutes at most on a GPU): build, tests, CPU = GPU, sanitizers, all side by side as far as they
can, and the kernels of one step. ``fast`` (8): attack and training step beside others, operators,
`bat-fast bench`, part of an epoch. ``long`` (10): large batches, rivals under torch.compile, loaders, the
update under torch.compile.

Each part is a program of its own with a time limit, and those of a group share one (``--limit``). A part
that fails or takes too long is recorded, with what it had measured by then, and stops no other; the exit
status is 1 if any failed. Without a GPU the parts that need one are skipped, and the file, which is written
after every part, says so. Without ``build``, now or before, the package of this checkout is measured.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
SOURCES = (
    *("bat_fast", "csrc", "third_party"),
    *("CMakeLists.txt", "setup.py", "pyproject.toml", "README.md", "LICENSE"),
)
NO_GPU = "no CUDA device"


class Check:
    """The parts, run one after the other, and what became of them."""

    def __init__(self, scratch: Path, gpu: bool, quick: bool, limit: float = float("inf")) -> None:
        self.scratch, self.gpu, self.quick = scratch, gpu, quick
        self.device = "cuda" if gpu else "cpu"
        self.end = time.perf_counter() + limit
        self.built, self.logs = scratch / "package", scratch / "logs"
        self.parts: dict[str, dict[str, Any]] = {}
        self.logs.mkdir(parents=True, exist_ok=True)

    @property
    def package(self) -> Path:
        """Where the package is found: as built here, or in this checkout."""
        return self.built if (self.built / "bat_fast").exists() else ROOT

    def environment(self, **more: str) -> dict[str, str]:
        paths = [str(self.package), str(BENCH), os.environ.get("PYTHONPATH", "")]
        return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | more

    def together(self, *parts: Callable[[], object]) -> None:
        """Run parts side by side where a GPU machine has cores for that, else one after the other."""
        with ThreadPoolExecutor(len(parts) if self.gpu else 1) as pool:
            for part in [pool.submit(part) for part in parts]:
                part.result()

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
                    [str(word) for word in command], cwd=self.scratch, stdout=file, stderr=subprocess.STDOUT,
                    env=self.environment(**environment), timeout=limit,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = f"timed out after {limit:g} s"
            except OSError as error:
                code = str(error).splitlines()[0]
        text = log.read_text(errors="replace")
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = {
            "ok": code == 0,
            "seconds": round(time.perf_counter() - begin, 1),
            "limit": limit,
            "date": date,
            "revision": revision(),
        }
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
        if self.gpu:  # for this GPU alone: seconds instead of a minute
            major, minor = torch.cuda.get_device_capability()
            settings["BAT_FAST_ARCHS"] = f"{major}{minor}"
        pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation"]
        place = ["--upgrade", "--target", self.built, source]
        self.run("build", [*pip, "-v", *place], 300 if self.gpu else 600, **settings)

    def tests(self) -> None:
        """On a GPU every test that takes one, and no other; else operators and attacks."""
        folders = ["."] if self.gpu else ["ops"] if self.quick else ["ops", "attacks"]
        command = [sys.executable, "-m", "pytest", *(ROOT / "tests" / folder for folder in folders)]
        command += ["-p", "no:cacheprovider"]
        if self.gpu:
            command += ["-m", "cuda"]
        if self.quick:
            command += ["-k", "textbook or nan or references"]
        elif importlib.util.find_spec("xdist"):
            command += ["-n", str(min(10, os.cpu_count() or 1))]
        record = self.run("tests", command, 200 if self.gpu else 600, OMP_NUM_THREADS="1")
        found = re.findall(r"(\d+) (passed|failed|skipped|error)", record["text"])
        self.parts["tests"]["counts"] = {kind: int(count) for count, kind in found}
        if self.parts["tests"]["ok"] is False:  # every name, not the end alone
            failed = re.findall(r"^(?:FAILED|ERROR) .*$", record["text"], re.MULTILINE)
            self.parts["tests"]["failed"] = [line[:300] for line in failed]

    def small_calls(self) -> None:
        if not self.gpu:
            self.run("small_calls_cpu", [sys.executable, BENCH / "gpu_small.py"], 60)
            self.skip("cpu_equals_gpu", NO_GPU)
            return
        self.run("cpu_equals_gpu", [sys.executable, BENCH / "gpu_small.py", "--compare"], 90)

    def sanitizers(self) -> None:
        """Without torch's pool, so that every tensor has an end of its own."""
        self.together(*(partial(self._sanitizer, tool) for tool in SANITIZERS))

    def _sanitizer(self, tool: str) -> None:
        program = shutil.which("compute-sanitizer") or shutil.which(
            "compute-sanitizer", path="/usr/local/cuda/bin"
        )
        if not self.gpu or program is None:
            self.skip(tool, NO_GPU if not self.gpu else "no compute-sanitizer")
            return
        options = ["--tool", tool, "--error-exitcode", "9", "--kernel-name", "kernel_substring=bat_fast"]
        small = [sys.executable, BENCH / "gpu_small.py", "--device", "cuda"]
        record = self.run(tool, [program, *options, *small], 120, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        if "Device not supported" in record["text"]:
            self.skip(tool, "compute-sanitizer does not support this machine: Device not supported")
        elif record["ok"] and "calls ran on cuda" not in record["text"]:
            self.record(tool, record | {"ok": False, "tail": ["the calls did not run"]})

    def ceilings(self) -> None:
        """What this GPU reaches with a copy and with a matrix product: the yardsticks of all that follows."""
        if not self.gpu:
            self.skip("ceilings", NO_GPU)
            return
        program = (
            "import json; from bat_fast.measure.timing import gpu_ceilings; print(json.dumps(gpu_ceilings()))"
        )
        printed = self.run("ceilings", [sys.executable, "-c", program], 60)["text"].splitlines()
        if self.parts["ceilings"]["ok"]:
            self.parts["ceilings"]["result"] = json.loads(printed[-1])

    def correct(self) -> None:
        """Tests, comparison and sanitizers at once: none of them is timed."""
        self.together(self.tests, self.small_calls, self.sanitizers)

    def profile(self) -> None:
        """The kernels of one step: what runs, in which order of cost, with which gaps."""
        for shape, precision in (("resnet18_128", "bf16"),) if self.gpu else (("small_cnn", "fp32"),):
            how = ["--shape", shape, "--precision", precision]
            self.benchmark(f"profile_{shape}", "profile_step.py", how, 60)

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
        """PGD-10 beside others, one part for each shape."""
        for shape in ("resnet18_128", "resnet18_32_128", "small_cnn") if self.gpu else ("mlp",):
            options = ["--shapes", shape, "--seconds", 5 if self.gpu else 0]
            self.benchmark(f"attack_{shape}", "bench_attack.py", options, 90)

    def step(self) -> None:
        options: list[Any] = ["--seconds", 5 if self.gpu else 0]
        options += ["--resnet", "--batch_sizes", 128] if self.gpu else []
        self.benchmark("step", "bench_step.py", options, 90)

    def operators(self) -> None:
        self.benchmark("operators", "bench_ops.py", ["--no-compile", "--seconds", 0.2], 120, quick=False)

    def command_line(self) -> None:
        """`bat-fast bench`, on a GPU with launch gaps, on random and trained weights."""
        if not self.gpu and not self.quick:
            self.skip("command_line", f"{NO_GPU}; bat-fast bench measures the CPU")
            return
        self._bench(128 if self.gpu else 16)
        folder = self.scratch / "run"
        shutil.rmtree(folder, ignore_errors=True)
        device = ["--device", self.device]
        training = ["--recipe", "digits-bat", *device, "--epochs", 20 if self.gpu else 1, "--out", folder]
        self.run("train", [sys.executable, "-m", "bat_fast", "train", *training], 60)
        self.command("bench_run", ["bench", "--run", folder, *device, *self._how()], 60)

    def _how(self) -> list[object]:
        return ["--seconds", 5, "--engines", "eager", "frozen", "graph"] if self.gpu else ["--seconds", 0]

    def _recipe(self) -> list[object]:
        return ["--recipe", "tiny-imagenet-bat" if self.gpu else "digits-bat", "--device", self.device]

    def _bench(self, size: int) -> None:
        words = ["bench", *self._recipe(), "--batch_size", size, *self._how()]
        self.command(f"bench_{size}", words, 90)

    def epoch(self) -> None:
        """Two epochs of BAT as users train it on images of the shape of Tiny ImageNet, a tenth as many."""
        for how in EPOCHS:
            part = f"epoch_{how}"
            if not self.gpu:
                self.skip(part, NO_GPU)
                continue
            folder = self.scratch / part
            shutil.rmtree(folder, ignore_errors=True)
            images = ["--data.name", "synthetic", "--data.options", "{size: 64, classes: 200, count: 12500}"]
            words = ["train", *self._recipe(), *EPOCHS[how], *images, "--epochs", 2, "--out", folder]
            self.run(part, [sys.executable, "-m", "bat_fast", *words], 150)
            rows = folder / "metrics.jsonl"
            if rows.exists():
                self.parts[part]["result"] = [json.loads(line) for line in rows.read_text().splitlines()]

    def large(self) -> None:
        """Batches of 512, and the largest that fits."""
        self.benchmark(
            "attack_resnet18_512", "bench_attack.py", ["--shapes", "resnet18_512"], 90, quick=False
        )
        if self.gpu:
            self._bench(512)
        if self.gpu or self.quick:
            memory = [] if self.gpu else ["--memory", "1GiB"]
            self.command("largest_batch", ["bench", *self._recipe(), "--largest_batch", *memory], 90)

    def compiled(self) -> None:
        """An expert's attack under torch.compile, which takes its time to start."""
        options = ["--shapes", "resnet18_128", "--compile"]
        self.benchmark("attack_compiled", "bench_attack.py", options, 240, quick=False)

    def update(self) -> None:
        """The update of the weights with ``optim.compile`` and without."""
        how = ["--precisions", "bf16", "--seconds", 10]
        self.benchmark("update", "bench_update.py", how, 240, quick=False)

    def data(self) -> None:
        options = ["--seconds", 20, "--steps", 20, "--rounds", 3]
        self.benchmark("data", "bench_data.py", options, 120, quick=False)


# Not initcheck, which would have to follow what torch's own kernels write: tests poison fresh memory instead.
SANITIZERS = ("memcheck", "racecheck", "synccheck")
EPOCHS: dict[str, list[object]] = {"fast": ["--speed", "fast"], "published": []}
# Groups, and seconds for each on a GPU; in a group first what matters most.
GROUPS = {
    "right": ("build", "ceilings", "correct", "profile"),
    "fast": ("attack", "step", "epoch", "operators", "command_line"),
    "long": ("large", "compiled", "data", "update"),
}
LIMITS = {"right": 360, "fast": 480, "long": 600}
PARTS = [part for group in GROUPS.values() for part in group]


def state() -> dict[str, str]:
    """What nvidia-smi says of the first GPU now."""
    fields = "driver_version,clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu,memory.used"
    try:
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"nvidia-smi": f"{type(error).__name__}: {error}"[:200]}
    return dict(zip(fields.split(","), (value.strip() for value in printed.split(",")), strict=True))


def revision() -> str:
    """The commit of this checkout, or what BAT_FAST_REVISION says where there is no git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except OSError:
        printed = ""
    return printed or os.environ.get("BAT_FAST_REVISION", "unknown")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a CPU build, a few tests, small benchmarks")
    parser.add_argument(
        "--parts", nargs="+", choices=[*GROUPS, *PARTS], default=list(GROUPS), metavar="PART",
        help=f"groups {', '.join(GROUPS)}; parts {', '.join(PARTS)}",
    )  # fmt: skip
    parser.add_argument("--limit", type=float, help="seconds for all (default: on a GPU those of the groups)")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build" / "gpu_check")
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    options = parser.parse_args()
    gpu = torch.cuda.is_available() and not options.quick
    device = torch.cuda.get_device_name() if gpu else "no GPU"
    wanted = [part for name in options.parts for part in GROUPS.get(name, (name,))]
    groups = [group for group, parts in GROUPS.items() if set(parts) & set(wanted)]
    limit = options.limit or (sum(LIMITS[group] for group in groups) if gpu else float("inf"))
    check, begin = Check(options.scratch.resolve(), gpu, options.quick, limit), time.perf_counter()
    about = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "device": device,
        "cpu_cores": os.cpu_count(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "python": sys.version.split()[0], "quick": options.quick, "revision": revision(),
    }  # fmt: skip
    if gpu:
        about |= {"cudnn": torch.backends.cudnn.version(), "before": state()}
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    file = options.results / f"gpu_{datetime.date.today()}_{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and wanted != PARTS:
        check.parts = json.loads(file.read_text())["parts"]
    failed: list[str] = []
    for part in (name for name in PARTS if name in wanted):
        try:
            getattr(check, part)()
        except Exception as error:  # of this program: the rest is worth knowing all the same
            check.record(part, {"ok": False, "status": f"{type(error).__name__}: {error}"})
        failed = [name for name, record in check.parts.items() if record["ok"] is False]
        about |= {"seconds": round(time.perf_counter() - begin, 1), "failed": failed}
        if gpu:
            about["after"] = state()
        file.write_text(json.dumps(about | {"parts": check.parts}, indent=1) + "\n")
    print(
        f"{file}: {len(check.parts)} parts, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}"
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
