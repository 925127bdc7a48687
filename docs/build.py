"""Build the site of the documentation: ``make docs``.

    python docs/build.py [--pages]

The pages of this folder, README.md and CONTRIBUTING.md are copied with the links of a site; the reference is
written from the code, which is read and never imported, so that no torch is needed. ``--pages`` stops there.
Zensical builds the rest, or MkDocs where that is not installed.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bat_fast"
PAGES = ROOT / "build" / "docs" / "pages"
ROOMS = ("attacks", "methods", "models", "data", "ops", "train", "evaluate", "export")
_API = ROOT / "tests" / "public_api.txt"


def written() -> dict[str, str]:
    """The pages that people wrote, with links that hold on the site."""
    places = {f"docs/{path.name}": path for path in sorted((ROOT / "docs").glob("*.md"))}
    places |= {name: ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}
    titles = {name: path.read_text().partition("\n")[0].removeprefix("# ") for name, path in places.items()}
    return {_on_site(name): _linked(path, titles) for name, path in places.items()}


def _on_site(name: str) -> str:
    """The name of a page on the site, by its place in the checkout."""
    return "index.md" if name == "README.md" else Path(name).name.lower()


def _linked(page: Path, titles: dict[str, str]) -> str:
    """A page with links to pages, under their titles; links to other files become what they say."""

    def moved(link: re.Match[str]) -> str:
        words, anchor = link[1], link[3] or ""
        name = str((page.parent / link[2]).resolve().relative_to(ROOT))
        if name not in titles:
            return words
        return f"[{titles[name] if words.endswith('.md') else words}]({_on_site(name)}{anchor})"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)", moved, page.read_text())


def reference() -> dict[str, str]:
    """One page for each room of the package, with everything public in it, and one for the package."""
    names = re.findall(r"^bat_fast\.(\w+(?:\.\w+)?)", _API.read_text(), re.MULTILINE)
    places = _operators()
    pages = {}
    for room in ROOMS:
        about = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
        own = [name.partition(".")[2] for name in names if name.startswith(f"{room}.")]
        entries = [f"::: bat_fast.{places.get(name, f'{room}.{name}')}" for name in own]
        pages[f"api/{room}.md"] = _page(f"bat_fast.{room}", about, entries)
    about = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text())) or ""
    top = [f"::: bat_fast.{place}" for place in ("attacks.PGD", "attacks.AttackLoss", "batch.Batch")]
    pages["api/bat_fast.md"] = _page("bat_fast", about, top)
    return pages


def _operators() -> dict[str, str]:
    """Where an operator is defined: its module may have its name, and hide it from who only reads."""
    found = {"is_native": "_native.is_native"}
    for path in (PACKAGE / "ops").glob("[!_]*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found |= {name: f"ops.{path.stem}.{name}" for name in ast.literal_eval(node.value)}
    return found


def _page(title: str, about: str, entries: list[str]) -> str:
    return "\n\n".join([f"# {title}", about, *entries]) + "\n"


def errors() -> str:
    """Every error that a program or a user can meet, as the code words it, room by room."""
    parts = [
        "# Errors",
        "Every error of bat_fast, as the code words it: `{...}` stands for what is filled in. The command "
        "line prints it in one line, and ends with status 2 where the input is at fault, and 1 on a failure; "
        "`--debug` shows where it was.",
    ]
    rooms: dict[str, set[tuple[str, str]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).parts
        room = f"bat_fast.{place[0]}" if len(place) > 1 else "bat_fast"
        rooms.setdefault(room, set()).update(_raised(ast.parse(path.read_text())))
    for room, found in rooms.items():
        if found:
            rows = "\n".join(
                f"| {_cell(text)} | `{kind}` |" for kind, text in sorted(found, key=lambda e: e[1])
            )
            parts.append(f"## {room}\n\n| says | error |\n|---|---|\n{rows}")
    return "\n\n".join(parts) + "\n"


def _raised(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Kind and text of each ``raise Kind(text)``."""
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args:
            text = _template(call.args[0])
            if re.search(r"\w \w", text):
                yield call.func.id, " ".join(text.split())


def _template(node: ast.expr) -> str:
    """A text with what is filled in as ``{...}``."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_template, node.values))
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left) + _template(node.right)
    return f"{{{ast.unparse(node)}}}"


def _cell(text: str) -> str:
    """Text in a table, where Markdown and HTML are not meant."""
    return re.sub(r"([\\`*_\[\]|{}<>#])", r"\\\1", text).replace("\\<", "&lt;").replace("\\>", "&gt;")


def collect(folder: Path = PAGES) -> list[str]:
    """Write all pages into ``folder``, and return their names."""
    pages = written() | reference() | {"errors.md": errors()}
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copy(ROOT / "docs" / "site.css", folder)
    shutil.copytree(ROOT / "docs" / "images", folder / "images")
    return sorted(pages)


def builder() -> list[str]:
    """The command that builds the site."""
    beside = str(Path(sys.executable).parent)
    for name in ("zensical", "mkdocs"):
        if found := shutil.which(name, path=beside) or shutil.which(name):
            return [found, "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    raise SystemExit(
        "docs: neither zensical nor mkdocs is installed: pip install zensical mkdocstrings-python"
    )


def main() -> None:
    print(f"{len(collect())} pages in {PAGES}")
    if "--pages" not in sys.argv[1:]:
        built = subprocess.run(
            builder(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        print(built.stdout, end="")
        # What a docstring lacks is said, and does not count as an error of the site.
        raise SystemExit(built.returncode or int(bool(re.search("^griffe: ", built.stdout, re.MULTILINE))))


if __name__ == "__main__":
    main()
