"""The site of the documentation: every page is in its navigation, and every public name in its reference."""

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "docs" / "build.py"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    runpy.run_path(str(BUILD))["collect"](folder)
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.md")}


def test_the_navigation_has_every_page(pages):
    named = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    assert sorted(named) == sorted(pages), "name the page in the nav of mkdocs.yml"


def test_links_lead_to_pages(pages):
    shown = set()
    for name, text in pages.items():
        for mark, target in re.findall(r"(!?)\[[^\]]*\]\((?!https?:|#)([^)#]+)", text):
            if mark:
                shown.add(target)
            else:
                assert str(Path(name).parent / target) in pages, f"{name}: {target}"
    for target in shown:
        assert target.startswith("images/"), target
        assert (ROOT / "docs" / target).stat().st_size < 120_000, target
    assert shown


def test_the_reference_has_every_public_name(pages):
    listed = (ROOT / "tests" / "public_api.txt").read_text()
    there = re.findall(r"^::: (\S+)", "".join(pages.values()), re.MULTILINE)
    for room, name in re.findall(r"^bat_fast\.(\w+)\.(\w+)", listed, re.MULTILINE):
        assert f".{name}" in pages[f"api/{room}.md"], name
    # Read as the builder reads it: what a module of the same name hides is found in its file.
    assert "bat_fast.ops.affine.affine" in there
    assert "bat_fast._native.is_native" in there


def test_the_errors_are_those_of_the_code(pages):
    assert "must hold int64 class numbers, got" in pages["errors.md"]
    assert pages["errors.md"].count("| `ValueError` |") > 100


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("zensical") is None or find_spec("mkdocstrings") is None, reason="zensical is not installed"
)
def test_the_site_is_built():
    run = subprocess.run([sys.executable, BUILD], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    site = ROOT / "build" / "docs" / "site"
    text = "".join(page.read_text() for page in site.rglob("*.html"))
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?://", text)
    assert 'id="bat_fast.ops.affine.affine"' in text
