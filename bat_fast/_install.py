"""Commands that install what is missing, wherever bat_fast came from. Standard library only.

They name packages, not extras: no index knows a checkout, and ``pip install -e ".[train]"`` in it would
compile the native library again, for the sake of a package in Python.
"""

from __future__ import annotations

import json
import re
import shlex
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

_PACKAGES = {  # by the name of the module, where it is another
    "adv_lib": "adv-lib", "art": "adversarial-robustness-toolbox", "git": "GitPython",
    "pkg_resources": "setuptools<81", "secmlt": "secml-torch", "sklearn": "scikit-learn", "yaml": "pyyaml",
}  # fmt: skip


def install(module: str, extra: str = "train") -> str:
    """The command that installs the package of ``module``, and what else of ``extra`` is not there.

    Args:
        module: that could not be imported.
        extra: of bat_fast, whose other packages will be missed next.
    """
    first = _PACKAGES.get(module, module)
    wanted = {_name(requirement): requirement for requirement in _extra(extra)}
    absent = [requirement for name, requirement in wanted.items() if name != first and not _is_there(name)]
    return f"pip install {' '.join(map(shlex.quote, [wanted.get(first, first), *absent]))}"


def rebuild() -> str:
    """The command that compiles the native library again, from where bat_fast was installed from."""
    checkout = Path(__file__).parents[1]
    command = "pip install --force-reinstall --no-deps"
    if (checkout / "setup.py").exists():
        return f"{command} -e {shlex.quote(str(checkout))}"
    # pip keeps the wheels that it has built of all that is not a folder.
    return f"{command} {_origin() or '--no-cache-dir bat_fast'}"


def _extra(extra: str) -> list[str]:
    """The requirements of an extra, without the words that say so."""
    try:
        every = requires("bat_fast") or []
    except PackageNotFoundError:  # sources that were never installed
        return []
    parts = (re.fullmatch(r"([^;]+?)\s*;\s*extra == ['\"](.+)['\"]", text) for text in every)
    return [part[1] for part in parts if part and part[2] == extra]


def _name(requirement: str) -> str:
    return re.split(r"[\s<>=!~\[;]", requirement, maxsplit=1)[0]


def _is_there(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _origin() -> str | None:
    """The folder or repository that pip installed bat_fast from (PEP 610); None for an index or a wheel."""
    try:
        text = distribution("bat_fast").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    origin = json.loads(text or "{}")
    if "vcs_info" in origin:
        return f"--no-cache-dir {shlex.quote(origin['vcs_info']['vcs'] + '+' + origin['url'])}"
    return shlex.quote(origin["url"].removeprefix("file://")) if "dir_info" in origin else None
