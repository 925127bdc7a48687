"""The bare operators: no call crashes or writes outside, whatever its arguments; what is refused is named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tally import tally

from bat_fast import ops
from bat_fast.ops.ascent import network_ascent_
from bat_fast.ops.squares import network_squares_
from bat_fast.ops.walk import network_walk_

HERE = Path(__file__).parent
SEED = int(os.environ["BAT_FAST_TEST_SEED"])
CALLS = 10 * int(os.environ.get("BAT_FAST_FAULTS", "40"))
NATIVE = torch.ops.bat_fast
LIMITS = (0.1, 0.2, 0.0, 1.0)


def test_no_call_crashes_or_writes_outside(tmp_path):
    log = tmp_path / "call"
    command = [
        sys.executable,
        HERE / "fuzz_operators.py",
        "--seed",
        str(SEED),
        "--count",
        str(CALLS),
        "--log",
        log,
    ]
    places = {"PYTHONPATH": str(HERE.parents[1]), "TORCH_CPP_LOG_LEVEL": "FATAL"}
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | places)
    call = log.read_text().strip() if log.exists() else "before the first call"
    assert run.returncode == 0, f"{call}\n{run.stderr[-2000:]}"
    counts = json.loads(run.stdout)
    tally("calls", "random arguments", CALLS, counts["refused"], 0)
    assert counts["calls"] == CALLS
    assert min(counts["answered"], counts["refused"]) > CALLS / 10  # neither only good nor only bad calls
    never = [name for name, answers in counts["by_name"].items() if not answers]
    assert len(never) < 3, never  # 16 calls of an operator may happen to be refused, but not of several


@pytest.mark.skipif("BAT_FAST_FAULTS" not in os.environ, reason="make test-faults builds it")
def test_no_call_reads_outside(tmp_path):
    """Under AddressSanitizer, which sees reads too. Its build takes some minutes, and stays."""
    root, tools = HERE.parents[1], Path(sys.executable).parent
    build = root / "build" / "address"
    options = [
        "-DBAT_FAST_SANITIZE=ON",
        "-DBAT_FAST_CUDA=0",
        f"-DBAT_FAST_TORCH={Path(torch.__file__).parent}",
    ]
    ninja = f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"
    cmake = shutil.which("cmake", path=tools) or "cmake"
    subprocess.run([cmake, "-S", root, "-B", build, "-G", "Ninja", ninja, *options], check=True)
    subprocess.run([cmake, "--build", build], check=True)
    shutil.copytree(root / "bat_fast", tmp_path / "bat_fast")
    shutil.copy(build / "libbat_fast.so", tmp_path / "bat_fast" / "lib")
    libraries = (subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
                 for name in ("libasan.so", "libstdc++.so"))  # fmt: skip
    places = {"LD_PRELOAD": " ".join(libraries), "PYTHONPATH": str(tmp_path), "TORCH_CPP_LOG_LEVEL": "FATAL"}
    places["ASAN_OPTIONS"] = "detect_leaks=0:allocator_may_return_null=1"
    command = [
        sys.executable,
        HERE / "fuzz_operators.py",
        "--exact",
        "--seed",
        str(SEED),
        "--count",
        str(CALLS),
    ]
    log = tmp_path / "call"
    run = subprocess.run([*command, "--log", log], capture_output=True, text=True, env=os.environ | places)
    assert run.returncode == 0, f"{log.read_text().strip()}\n{run.stderr[:4000]}"
    tally("calls", "random arguments, under AddressSanitizer", CALLS, json.loads(run.stdout)["refused"], 0)


def refused(message, operator, *arguments):
    with pytest.raises(RuntimeError, match=message) as error:
        operator(*arguments)
    assert "bat_fast: " in str(error.value)


def test_what_a_kernel_would_read_or_write_outside_of_is_named():
    z, y, x = torch.randn(3, 4), torch.tensor([0, 1, 2]), torch.rand(3, 3, 4, 4)
    climbed = ("ce", None, None, 0.0, False, None)
    refused(r"target must be \[3\], got \[2\]", NATIVE.attack_grad, z, y[:2], *climbed)
    refused(
        r"target holds 4 in row 1, outside \[0, 4\)",
        NATIVE.attack_grad,
        z,
        torch.tensor([0, 4, -1]),
        *climbed,
    )
    refused("target must be Long, got Int", NATIVE.attack_grad, z, y.int(), *climbed)
    refused("reference is missing: kl", NATIVE.attack_grad, z, y, "kl", *climbed[1:])
    refused("loss must be one of ce, .* got hinge", NATIVE.attack_grad, z, y, "hinge", *climbed[1:])
    refused("margin needs at least 2 classes", NATIVE.attack_grad, z[:, :1], y * 0, "margin", *climbed[1:])
    refused("grad must have the shape of adv", NATIVE.linf_step_, x, x[:2], x.clone(), *LIMITS)
    refused(
        "eps must be a finite number", NATIVE.l2_step_, x, x.clone(), x.clone(), 0.1, float("nan"), 0.0, 1.0
    )
    refused("lo must not be above hi", NATIVE.l2_step_, x, x.clone(), x.clone(), 0.1, 0.1, 1.0, 0.0)
    refused("scale must be contiguous", NATIVE.affine, x, torch.ones(1).expand(3), torch.ones(3), True)
    refused(r"shift must be \[3\], got \[2\]", NATIVE.affine, x, torch.ones(3), torch.ones(2), True)
    refused("index holds 3 in row 0", NATIVE.ensemble_targets_, z.clone(), torch.tensor([3]), z[:1], 0.9)
    refused(
        "epoch must be in", NATIVE.crop_flip, x, torch.zeros(3, 4, 4, 3).byte(), y, y, 0, False, 0, -1, True
    )


def test_what_is_written_shares_memory_with_nothing():
    x = torch.rand(3, 3, 4, 4)
    refused(
        "adv is written in place and shares memory with clean", NATIVE.linf_step_, x, x.clone(), x, *LIMITS
    )
    line = torch.rand(x.numel() + 1)
    shifted = line[1:].view_as(x)
    refused("shares memory with grad", NATIVE.l2_step_, line[:-1].view_as(x), shifted, x, *LIMITS)
    refused("its elements share memory", NATIVE.linf_step_, x[:1].expand_as(x), x.clone(), x.clone(), *LIMITS)
    both = torch.rand(3, 6, 4, 4)  # two sets of channels side by side share none
    adv, clean = both[:, :3], both[:, 3:]
    before = clean.clone()
    assert NATIVE.linf_step_(adv, x, clean, *LIMITS) is None
    assert torch.equal(clean, before)
    assert (adv - clean).abs().max() < 0.2 + 1e-6


def small_network():
    """A linear layer on images [N, 3, 4, 4], as the operators on small networks take it."""
    from bat_fast.ops.network import Map, PlanLayer, network_plan

    layer = PlanLayer("window", 0, -1, -1, 48, None, Map(1, 1, 48), Map(1, 1, 4), weight=0)
    return {"plan": network_plan([layer]), "weights": torch.randn(192), "classes": 4}


def test_a_search_is_asked_for_what_it_can_do():
    x, y, numbers = torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), torch.rand(2, 6, 5)
    net, ball = small_network().values(), (0.1, 0.0, 1.0)
    refused("steps must be in", NATIVE.network_walk_, x, x + 0, y, None, *net, "linf", 0, *ball)
    refused("side must be in", NATIVE.network_squares_, x, x + 0, y, numbers, None, *net, 5, *ball)
    bumps, more = torch.rand(2, 2, 2), torch.rand(2, 6, 8)
    refused("numbers must", NATIVE.network_squares_, x, x + 0, y, numbers, bumps, *net, 2, *ball)
    refused("bumps must", NATIVE.network_squares_, x, x + 0, y, more, bumps, *net, 3, *ball)
    refused("bumps must", NATIVE.network_squares_, x, x + 0, y, more, bumps.double(), *net, 2, *ball)
    refused("targets holds 4", NATIVE.network_walk_, x, x + 0, y, y + 3, *net, "linf", 1, *ball)
    refused("clean.*pass a copy", NATIVE.network_walk_, x, x, y, None, *net, "linf", 1, *ball)
    line = torch.rand(96)
    x, numbers = line.view(2, 3, 4, 4), line[:60].view(2, 6, 5)
    refused("numbers.*pass a copy", NATIVE.network_squares_, x, x + 0, y, numbers, None, *net, 2, *ball)


def test_a_plan_that_leaves_its_values_or_names_no_layer_is_refused():
    from bat_fast.ops.network import Map, PlanLayer, network_plan

    layer = PlanLayer("window", 0, -1, -1, 48, None, Map(1, 1, 48), Map(1, 1, 4))
    plan, weights, x = network_plan([layer._replace(weight=0)]), torch.randn(192), torch.rand(2, 3, 4, 4)
    assert NATIVE.network_gradient(x, None, plan, weights, 4)[0].shape == (2, 4)
    for column, value in (
        (0, 5),
        (0, -1),
        (5, 3),
        (4, 2**62),
        (6, 2**23),
        (8, -1),
        (11, 2**40),
        (18, 1),
        (19, 191),
    ):
        changed = plan.clone()
        changed[0, column] = value
        with pytest.raises(RuntimeError, match="plan"):
            NATIVE.network_gradient(x, None, changed, weights, 4)


def test_autograd_sees_what_is_written_in_place():
    x, clean = torch.rand(3, 3, 4, 4), torch.rand(3, 3, 4, 4)
    step = {"step_size": 0.1, "eps": 0.2}
    memory, index = torch.zeros(5, 4), torch.tensor([0, 1, 2])
    images = torch.zeros(3, 4, 4, 3, dtype=torch.uint8)
    y, net = torch.tensor([0, 1, 2]), {"eps": 0.2, **small_network()}
    for written, write in (
        (x, lambda: ops.linf_step_(x, clean, clean + 0, **step)),
        (x, lambda: ops.l2_step_(x, clean, clean + 0, **step)),
        (x, lambda: ops.affine_grad_(x, scale=torch.ones(3))),
        (x, lambda: ops.crop_flip(images, index, pad=0, seed=0, epoch=0, out=x)),
        (x, lambda: network_ascent_(x, clean, y, steps=1, **net)),
        (x, lambda: network_walk_(x, clean, y, targets=None, steps=1, **net)),
        (x, lambda: network_squares_(x, clean, y, torch.rand(3, 2, 5), side=1, **net)),
        (memory, lambda: ops.ensemble_targets_(memory, index, torch.randn(3, 4), momentum=0.5)),
    ):
        weight = torch.ones_like(written, requires_grad=True)
        loss = (weight * written).sum()
        write()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    with torch.inference_mode():
        y = torch.rand(2, 3)
        ops.linf_step_(y, y.clone(), y.clone(), **step)
