"""Every Python snippet of the documentation runs; those of one page share their names.

One that begins with ``# NAME.py`` is that file too. On `PAGES_OF_COMMANDS` the commands run as well.
"""

import re
import shlex
import sys
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import pytest

from bat_fast import methods
from bat_fast.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [page for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))] if page.exists()]
PAGES_OF_COMMANDS = [DOCS / "your-model.md", DOCS / "run-folder.md"]
HOSTS = ("lightning", "accelerate")  # of which a snippet may make use, where they are installed


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of all that stands in fences."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def snippets(page: Path) -> list[str]:
    return [text for language, text in blocks(page) if language == "python"]


def host_of(code: str) -> str | None:
    """The host that a snippet imports."""
    return next((host for host in HOSTS if re.search(rf"^(import|from) {host}\b", code, re.MULTILINE)), None)


def run(page: Path, *, commands: bool = False, without: tuple[str, ...] = ()) -> dict:
    names: dict = {"__name__": page.stem}
    for number, (language, code) in enumerate(blocks(page), 1):
        if language == "bash" and commands:
            for line in re.findall(r"^bat-fast (.*?)(?:  # .*)?$", code, re.MULTILINE):
                assert main(shlex.split(line)) == 0, line
        if language != "python" or host_of(code) in without:
            continue
        if file := re.match(r"# (\w+\.py)\n", code):
            Path(file[1]).write_text(code)
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, from which modules are imported, in a process as torchrun starts it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and Path(sys.modules[name].__file__).parent == tmp_path
        ):
            del sys.modules[name]


SLOW = [*PAGES_OF_COMMANDS, DOCS / "your-loop.md"]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in SLOW], ids=lambda page: page.name)
@pytest.mark.usefixtures("folder")
def test_snippets(page):
    run(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=lambda page: page.name)
@pytest.mark.usefixtures("folder")
def test_pages_that_train(page):
    run(page, commands=page in PAGES_OF_COMMANDS, without=HOSTS)


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.usefixtures("folder")
def test_the_snippet_for(host):
    if find_spec(host) is None:
        pytest.skip(f"{host} is not installed")
    page = DOCS / "your-loop.md"
    assert [host_of(code) for code in snippets(page)].count(host) == 1
    run(page, without=tuple(other for other in HOSTS if other != host))


def test_the_method_of_the_documentation_trains(tmp_path, monkeypatch):
    from bat_fast.config import AttackConfig, EvalConfig, Ratio, TrainConfig
    from bat_fast.train import Trainer

    page = ROOT / "docs" / "methods.md"
    code = next(code for code in snippets(page) if "class Focus" in code)
    assert len(code.splitlines()) <= 26
    point = EntryPoint("focus", "my_package.focus:Focus", "bat_fast.methods")
    kind = run(page)["Focus"]
    monkeypatch.setattr(EntryPoint, "load", lambda _: kind)
    monkeypatch.setattr(methods, "entry_points", lambda **_: [point])
    config = TrainConfig(
        epochs=2,
        device="cpu",
        method={"name": "focus", "gamma": "1/2"},
        attack=AttackConfig(eps=Ratio("0.1"), steps=1),
        eval=EvalConfig(val_steps=1, test_steps=1),
    )
    results = Trainer(config, tmp_path / "run", progress=False).fit()
    assert results["metrics"]["test/clean_acc"] > 0.3


def test_every_method_is_in_the_documentation():
    text = (ROOT / "docs" / "methods.md").read_text()
    for name in methods.names():
        assert f"| `{name}` |" in text, name


def test_links_lead_to_files():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_on_run_folders_names_every_file_and_every_free_setting(tmp_path):
    from bat_fast.runs.folder import RunFolder
    from bat_fast.runs.plain import _FREE

    text = (DOCS / "run-folder.md").read_text()
    folder = RunFolder(tmp_path)
    files = [path for path in vars(folder).values() if isinstance(path, Path) and path != tmp_path]
    assert len(files) >= 9
    for path in files:
        assert f"| `{path.relative_to(tmp_path)}` |" in text, path
    named = re.findall(r"`([\w.]+)`", text.partition("## Going on")[2].partition("```bash")[0])
    assert set(_FREE) <= set(named)


@pytest.mark.parametrize("name", methods.names())
def test_the_page_on_run_folders_names_every_metric(name):
    import torch

    from bat_fast import Batch, models

    text = (DOCS / "run-folder.md").read_text()
    model = models.create("small_cnn", num_classes=3)
    batch = Batch(torch.rand(6, 3, 8, 8), torch.arange(6) % 3, torch.arange(6))
    options = {"start": 0} if name == "te" else {}
    method = methods.create(name, **options)
    method.prepare(6, 3, "cpu")
    for _ in range(2):  # one helper, or two
        method.consult(model)
    with torch.no_grad():
        method.attack_loss(model, batch, 1)
    for key in method(model, batch, batch.x, 1).metrics:
        assert f"`train/{key}`" in text, key
