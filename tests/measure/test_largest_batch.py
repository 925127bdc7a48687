"""The largest batch that fits: found by trying, predicted from a line, and told."""

import gc
import json
import weakref
from types import SimpleNamespace

import pytest
import torch

from bat_fast.cli import main
from bat_fast.measure import largest_batch as largest
from bat_fast.measure.largest_batch import predict, search

pytestmark = pytest.mark.slow

BENCH = ["bench", "--recipe", "digits-bat", "--device", "cpu", "--attack.steps", "1", "--largest_batch"]


def gpu(limit, tried=None, error=torch.OutOfMemoryError):
    """A GPU on which ``limit`` images fit, and 10 MiB go to each."""

    def attempt(size):
        if tried is not None:
            tried.append(size)
        if size > limit:
            raise error("CUDA out of memory")
        return 10.0 * size

    return attempt


@pytest.mark.parametrize("limit", [0, 1, 3, 7, 8, 9, 15, 16, 100, 127, 128, 1000, 4095])
def test_search_ends_at_the_limit(limit):
    expected = limit if limit < 8 else limit // 8 * 8
    found = search(gpu(limit), 10**5)
    assert found.largest == expected
    assert found.largest_mib == (10.0 * expected if expected else None)
    assert all((found.memory[size] is None) == (size > limit) for size in found.memory)
    assert found.memory[expected + (8 if limit >= 8 else 1)] is None
    assert len(found.memory) <= 21


def test_search_ends_at_the_training_set():
    tried = []
    assert search(gpu(10**6, tried), 1078).largest == 1072
    assert max(tried) == 1072
    assert search(gpu(10**6), 5).largest == 5


def test_a_failed_attempt_holds_nothing_when_the_next_one_begins():
    alive = []

    def attempt(size):
        gc.collect()
        assert all(reference() is None for reference in alive)
        tensor = torch.ones(size)
        alive.append(weakref.ref(tensor))
        if size > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    assert search(attempt, 1000).largest == 40


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_the_limit_of_a_gpu_is_lifted_also_after_an_error(monkeypatch, name):
    calls = []
    gib = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gib)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *c: calls.append(c))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))
    index = 1 if name.endswith("1") else 0
    for budget, share in ((2048, 0.25), (10**6, 1.0)):
        calls.clear()
        with pytest.raises(KeyError), largest._limited(torch.device(name), budget):
            raise KeyError
        assert calls == [(share, index), (1.0, index), "emptied"]


def test_what_is_no_lack_of_memory_is_raised():
    with pytest.raises(RuntimeError, match="illegal"):
        search(gpu(100, error=lambda _: RuntimeError("CUDA error: an illegal memory access")), 1000)
    found = search(gpu(100, error=lambda _: RuntimeError("CUBLAS_STATUS_ALLOC_FAILED in create")), 1000)
    assert found.largest == 96


NO_ENGINE = "GET was unable to find an engine to execute this computation"


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "CUDA ran out of memory outside PyTorch's allocator.",
        "CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        NO_ENGINE,
        NO_ENGINE.replace("GET", "FIND"),
    ],
)
def test_lack_of_memory_has_many_names(message):
    assert search(gpu(100, error=lambda _: RuntimeError(message)), 1000).largest == 96


def test_what_no_engine_computes_at_any_size_is_raised():
    # It is no lack of memory then: "nothing fits" would hide the reason.
    with pytest.raises(RuntimeError, match="unable to find an engine"):
        search(gpu(0, error=lambda _: RuntimeError(NO_ENGINE)), 1000)


@pytest.mark.parametrize(
    ("budget", "slope", "expected", "check"),
    [
        (5000, 10, 448, 128),
        (5004, 0.9, 5000, 2048),
        (520, 10, 2, None),
        (560, 10, 6, 6),
        (700, 10, 16, None),
        (400, 10, 0, None),
    ],
)
def test_prediction_of_a_line(budget, slope, expected, check):
    asked = []

    def measure(size):
        asked.append(size)
        return 500 + slope * size

    found = predict(measure, budget, 10**5)
    assert found.largest == expected
    assert all(500 + slope * size <= budget for size in asked[2:])
    assert found.largest_mib == (pytest.approx(500 + slope * expected) if expected else None)
    assert (found.check and found.check["batch_size"]) == check
    if check:
        assert found.check["predicted_mib"] == pytest.approx(found.check["measured_mib"])


def test_the_check_corrects_the_prediction():
    """Memory that grows faster than the first sizes say: the error is told, and the answer moves."""
    found = predict(lambda size: 500 + 10 * size + 0.05 * size**2, 5000, 10**5)
    assert found.check["batch_size"] == 2 * sorted(found.memory)[-2]
    assert found.check["predicted_mib"] < 0.97 * found.check["measured_mib"]
    assert found.check["measured_mib"] == found.memory[found.check["batch_size"]]
    exact = max(n for n in range(1000) if 500 + 10 * n + 0.05 * n**2 <= 5000)
    uncorrected = 5000 / (found.check["predicted_mib"] / found.check["batch_size"])
    assert exact <= found.largest < uncorrected


def test_a_size_that_was_seen_not_to_fit_is_not_the_answer():
    """A jump between 8 and 16: the line of the last three would allow 16."""
    memory = {2: 100.0, 4: 110.0, 8: 120.0}
    found = predict(lambda size: memory.get(size, 400.0), 390, 10**4)
    assert found.memory[16] == 400.0
    assert found.largest == 8


def test_all_of_a_small_training_set_fits():
    found = predict(lambda size: 500 + 0.01 * size, 1000, 1078)
    assert found.largest == 1072
    assert found.largest_mib == found.memory[1072]


def test_bench_tells_the_largest_batch(capsys, monkeypatch):
    # Of 600 MiB for the process and 1 for each image, so that no machine says something else.
    measured = []

    def measure(run, device):
        run()
        measured.append(device)
        return 600.0 + sizes[-1]

    steps, sizes = largest._two_steps, []

    def two_steps(workload, config, size):
        assert config.optim.micro_batches == 1
        sizes.append(size)
        steps(workload, config, size)

    monkeypatch.setattr(largest, "_two_steps", two_steps)
    monkeypatch.setattr(largest, "peak_mib", measure)
    assert main([*BENCH, "--memory", "700MiB", "--json", "--optim.micro_batches", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["largest"], found["largest_mib"]) == (96, pytest.approx(696))
    assert (found["wanted"], found["micro_batches"], found["budget_mib"]) == (128, 2, 700)
    assert found["rows"] == [{"batch_size": n, "memory_mib": 600 + n} for n in sizes]
    assert main([*BENCH, "--memory", "700MiB"]) == 0
    out = capsys.readouterr().out
    assert "largest batch: 96 (696 MiB" in out
    assert "optim.micro_batches: 2 to keep it, or batch_size: 96" in out
    assert main([*BENCH, "--memory", "900MiB"]) == 0
    assert "batch_size: 128 fits; write batch_size: 296" in capsys.readouterr().out
    assert main([*BENCH, "--memory", "1MiB"]) == 0
    assert "nothing fits" in capsys.readouterr().out


def test_bench_measures_this_process(capsys):
    assert main([*BENCH, "--json", "--memory", "100GiB"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["largest"] == 1256
    assert found["largest_mib"] > 100
    assert found["micro_batches"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "lots"], "--memory: expected a size such as 8GiB"),
        (["--peers"], "--peers does not go with --largest_batch"),
        (["--engines", "eager"], "--engines does not go with --largest_batch"),
        (["--batch_size", "0"], "batch_size must be at least 1"),
    ],
)
def test_bad_input(capsys, arguments, message):
    assert main([*BENCH, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_budget_alone_is_bad_input(capsys):
    assert main([*BENCH[:-1], "--memory", "1GiB"]) == 2
    assert "--memory goes with --largest_batch" in capsys.readouterr().err
