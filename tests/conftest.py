"""What all tests share: a fresh seed that is printed, the devices, a small training run; and ``--quick``."""

import dataclasses
import os
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from bat_fast.config import AttackConfig, EvalConfig, OptimConfig, Ratio, TrainConfig

# In the environment, for the programs that tests start.
LEFT_OUT = pytest.StashKey[str]()
SEED = int(os.environ.setdefault("BAT_FAST_TEST_SEED", str(random.SystemRandom().randrange(2**31))))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="one case of each test, and no test marked slow")


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what runs on a GPU, so that ``-m cuda`` finds it; without one it is skipped."""
    if getattr(item, "callspec", None) and item.callspec.params.get("device") == "cuda":
        item.add_marker("cuda")
    elif item.get_closest_marker("whole") and "BAT_FAST_FAULTS" not in os.environ:
        item.add_marker(pytest.mark.skip(reason="takes long: make test-faults"))
    elif item.get_closest_marker("cuda") and not torch.cuda.is_available():
        item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what is slow; with ``--quick`` keep the first case of each test that is not."""
    if not config.getoption("--quick"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # so that no worker ends with it
        return
    first: dict[str, pytest.Item] = {}
    for item in items:
        if not item.get_closest_marker("slow"):
            first.setdefault(item.nodeid.partition("[")[0], item)
    kept = list(first.values())
    slow = sum(item.get_closest_marker("slow") is not None for item in items)
    further = len(items) - len(kept) - slow
    config.stash[LEFT_OUT] = f"quick: {slow} slow tests and {further} further cases left out"
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # a worker of pytest-xdist tells the process that prints
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, "")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get(
        "left_out", ""
    )  # none of one that crashed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if text := config.stash.get(LEFT_OUT, ""):
        terminalreporter.write_line(f"{text}: make test runs them")


def pytest_report_header() -> str:
    return f"random inputs: BAT_FAST_TEST_SEED={SEED}"


@pytest.fixture(autouse=True)
def fresh_random_inputs() -> None:
    torch.manual_seed(SEED)


@pytest.fixture(autouse=True, scope="module")
def nothing_stays_replaced() -> Iterator[None]:
    """Fails a file that leaves a function of the package, or an entry of one of its tables, replaced.

    The tests after it would meet what it left.
    """

    def found() -> dict[str, Any]:
        every: dict[str, Any] = {}
        for name, module in list(sys.modules.items()):
            for key, value in vars(module).items() if name.partition(".")[0] == "bat_fast" else ():
                if callable(value):
                    every[f"{name}.{key}"] = value
                elif isinstance(value, dict) and not key.startswith("__"):
                    every |= {f"{name}.{key}[{entry!r}]": value[entry] for entry in value}
        return every

    before = found()
    yield
    after = found()
    changed = [name for name, value in before.items() if after.get(name, value) is not value]
    assert not changed, f"replaced, and not put back: {', '.join(changed)}"


@pytest.fixture(autouse=True)
def without_tf32() -> None:
    """Lets a GPU compute float32 in float32, as a CPU does: TF32 has 10 bits, too few to compare by."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> str:
    """Every device of this machine."""
    return request.param


SMALL = TrainConfig(
    epochs=4,
    batch_size=256,
    device="cpu",
    method={"name": "bat"},
    attack=AttackConfig(eps=Ratio("1/10"), steps=2),
    optim=OptimConfig(lr=0.05, schedule="cyclic"),
    eval=EvalConfig(val_steps=2, test_steps=3),
)


@pytest.fixture(scope="session")
def small():
    """small(epochs=2, ...) -> TrainConfig."""
    return lambda **changes: dataclasses.replace(SMALL, **changes)


@pytest.fixture(scope="session")
def without_nvcc() -> dict[str, str]:
    """An environment whose PATH holds the compilers, and no nvcc.

    The folder stays: CMake remembers its compiler in the scratch folders that are kept for the next run.
    """
    folder = Path(__file__).parents[1] / "build" / "compilers"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("g++", "gcc", "c++", "cc", "as", "ld", "ar", "ranlib", "git", "sh", "nm"):
        if found := shutil.which(name):
            with suppress(FileExistsError):  # of the run before, or of the other worker
                (folder / name).symlink_to(found)
    hidden = ("CUDACXX", "CUDA_PATH", "CUDA_HOME")
    return {k: v for k, v in os.environ.items() if k not in hidden} | {"PATH": str(folder)}
