"""Every Python snippet of the documentation runs; those of one page share their names."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bat_fast import methods

ROOT = Path(__file__).parents[1]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if page.exists()]


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def run(page: Path) -> dict:
    names: dict = {"__name__": page.stem}
    for number, code in enumerate(snippets(page), 1):
        exec(compile(code, f"{page.name}, snippet {number}", "exec"), names)
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page)


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
