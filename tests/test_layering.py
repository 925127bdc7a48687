"""The laws of the house: what may import what, what lives where, how long a file may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from words import WORDS, places

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bat_fast"
PYTHON = sorted(PACKAGE.rglob("*.py"))
NATIVE = sorted((ROOT / "csrc").glob("*/*"))
BENCH = ROOT / "bench"
BENCHMARKS = sorted(BENCH.rglob("*.py"))

# A module may import modules of its own package and of lower layers.
LAYERS = [
    {"_install", "_environ", "_atomic"},
    {
        "_native",
        "_checks",
        "_seal",
        "_lock",
        "_logits",
        "_random",
        "ratio",
        "spelling",
        "device",
        "batch",
        "world",
    },
    {"values"},
    {"config"},
    {"ops"},
    {"attacks", "models", "data"},
    {"methods", "runs"},
    {"evaluate", "report"},
    {"train", "export"},
    {"measure"},
    {"study"},
    {"cli", "integrations"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
OPTIONAL = {
    "captum",
    "datasets",
    "nvidia",
    "pyarrow",
    "submitit",
    "timm",
    "sklearn",
    "rich",
    "matplotlib",
    "safetensors",
    "torchvision",
    "yaml",
}


def unit(path: Path) -> str:
    """The package or module directly below bat_fast that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every dotted name that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def own_units(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in imports(path) if name.startswith("bat_fast.")}
    return {
        name
        for name in names
        if name in LEVEL or (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()
    }


def violations(files, pattern: str) -> list[str]:
    regex = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if regex.search(line)
    ]


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = unit(path)
    if own == "__init__":
        return
    assert own in LEVEL, f"{own} has no layer: give it one in LAYERS"
    for other in own_units(path) - {own}:
        assert LEVEL[other] < LEVEL[own], f"{own} must not import {other}"


def test_siblings_do_not_see_each_other():
    siblings = {"attacks", "models", "data"}
    for path in PYTHON:
        if unit(path) in siblings:
            assert not own_units(path) & (siblings | {"methods"}) - {unit(path)}, path


def test_operators_know_only_the_native_library_the_checks_and_each_other():
    for path in (PACKAGE / "ops").glob("[!_]*.py"):
        assert own_units(path) <= {"_native", "_checks", "_random", "_logits", "ops"}, path


def test_the_dispatcher_is_named_in_operators_only():
    outside = [path for path in PYTHON if unit(path) not in ("ops", "_native")]
    assert not violations(outside, r"ops\.bat_fast\b")


def test_methods_return_losses_and_touch_nothing():
    files = [path for path in PYTHON if unit(path) == "methods"]
    assert files
    for path in files:
        assert not {
            name for name in imports(path) if re.match(r"torch\.optim|bat_fast\.(data|models|train)\b", name)
        }
    assert not violations(files, r"\.(backward|step|zero_grad|train|eval)\(")


def taking_signs(files: list[Path]) -> list[str]:
    """The files that take a sign, as PGD does of a gradient."""
    return [
        str(path.relative_to(ROOT))
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and re.fullmatch("sign_?|sgn_?", node.attr)
    ]


def test_there_is_one_pgd_loop():
    above = [path for path in PYTHON if unit(path) != "ops"]

    def using(pattern):
        return [str(path.relative_to(PACKAGE)) for path in above if re.search(pattern, path.read_text())]

    assert using(r"l(inf|2)_step_\b") == ["attacks/step.py"]
    assert using(r"\battack_grad\(") == ["attacks/goal.py"]
    assert using(r"\.gradient\(") == ["attacks/pgd.py"]
    # Written out it stands once more, to compare with, and benchmarks call that; its best step is theirs.
    # AutoPGD has a step for each image, which it halves by itself: another loop, in bat_fast/ops/ascent.py.
    assert taking_signs(above) == ["bat_fast/measure/peers.py"]
    assert taking_signs(BENCHMARKS) == ["bench/operators/perturb.py"]


def test_the_map_of_the_engines_names_every_file():
    engine = PACKAGE / "attacks" / "engine"
    page = ast.get_docstring(ast.parse((engine / "__init__.py").read_text()))
    named = re.findall(r"\b[a-z_]+\.py\b", page)
    assert {*named, "__init__.py"} == {path.name for path in engine.glob("*.py")}


def test_attacks_know_the_engine_but_no_kind_of_network():
    for path in (PACKAGE / "attacks").glob("*.py"):
        names = {name for name in imports(path) if name.startswith("bat_fast.attacks.engine.")}
        known = {"ENGINES", "AttackedModel", "Engine", "Loop"}
        assert {name.removeprefix("bat_fast.attacks.engine.") for name in names} <= known, path


def test_a_benchmark_imports_no_benchmark():
    scripts = [path for path in BENCHMARKS if "__main__" in path.read_text()]
    assert len(scripts) > 5
    programs = {path.stem for path in scripts}
    for path in BENCHMARKS:
        assert not {name.split(".")[0] for name in imports(path)} & (programs - {path.stem}), path


def test_kernels_know_no_framework():
    kernels = [path for path in NATIVE if path.parent.name == "kernels"]
    assert kernels
    assert not violations(kernels, r"#include\s*[<\"](torch|ATen|c10|pybind11)")


def test_launches_and_element_math_stay_in_kernels():
    launches = [path for path in NATIVE if not (path.parent.name == "kernels" and path.suffix == ".cu")]
    assert not violations(launches, r"<<<")
    faces = [path for path in NATIVE if path.parent.name != "kernels"]
    assert not violations(faces, r"\b(expf?|logf?|sqrtf?|fabsf?|tanhf?|powf?)\(")


def test_processes_speak_to_each_other_in_one_package():
    files = [path for path in PYTHON if any(name.startswith("torch.distributed") for name in imports(path))]
    assert {unit(path) for path in files} == {"world"}


def test_each_optional_framework_stays_at_home():
    dali = [path for path in PYTHON if any(name.startswith("nvidia") for name in imports(path))]
    assert [path.name for path in dali] in ([], ["dali.py"])
    lower = [
        path
        for path in PYTHON
        if unit(path) in ("ops", "attacks", "methods", "_native", "_checks", "config", "batch")
    ]
    for path in lower:
        assert not {name.split(".")[0] for name in imports(path)} & OPTIONAL, path
    for path in [*(PACKAGE / "config").glob("*.py"), PACKAGE / "values.py", PACKAGE / "spelling.py"]:
        assert {name.split(".")[0] for name in imports(path)} <= {*sys.stdlib_module_names, "bat_fast"}, path
        assert own_units(path) <= {"config", "values", "ratio", "spelling"}, path


@pytest.mark.slow
def test_importing_the_package_loads_no_optional_framework():
    program = "import sys, bat_fast; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & OPTIONAL


def test_names_say_something():
    for path in [*PYTHON, *NATIVE]:
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
        assert not re.search(r"(kernel|_v)\d", path.stem), path
    assert not violations(NATIVE, r"__global__ .*(kernel\d|_v\d)")


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        (PYTHON, 250),
        ([p for p in NATIVE if p.parent.name == "kernels"], 200),
        ([p for p in NATIVE if p.parent.name == "torch"], 140),
    ],
    ids=["python", "kernels", "bindings"],
)
def test_files_are_short(files, limit):
    assert not [f"{path}: {n}" for path in files if (n := len(path.read_text().splitlines())) > limit]


@pytest.mark.parametrize("word", WORDS)
def test_an_operator_is_one_word_in_seven_places(word):
    assert not [str(place.relative_to(ROOT)) for place in places(word) if not place.exists()]


def test_a_header_that_is_no_operator_is_shared():
    headers = {path.stem: path.read_text() for path in NATIVE if path.match("kernels/*.h")}
    for word in headers.keys() - set(WORDS):
        assert any(f'#include "kernels/{word}.h"' in text for text in headers.values()), word
