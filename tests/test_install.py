"""The commands of messages: they work from a checkout, a folder, a repository and an index."""

import json
import re
import shlex
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from bat_fast import _install, _native
from bat_fast._install import install, rebuild

ROOT = Path(__file__).parents[1]
REQUIRED = [
    "torch>=2.10", 'rich; extra == "train"', 'timm>=1.0; extra == "train"', 'pyyaml; extra == "train"',
    'nvidia-dali-cuda130>=2.4; extra == "dali"',
]  # fmt: skip


class Installed:
    """A distribution as pip records it."""

    def __init__(self, origin=None):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


@pytest.fixture
def packages(monkeypatch):
    """packages(rich=..., ...): what is installed."""

    def put(**there):
        def distribution(name):
            if name not in there:
                raise PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(_install, "distribution", distribution)
        monkeypatch.setattr(_install, "requires", lambda _: REQUIRED)

    return put


def test_the_missing_package_comes_first_and_what_is_missed_next_with_it(packages):
    packages(rich=Installed())
    assert install("timm") == "pip install 'timm>=1.0' pyyaml"
    assert install("yaml") == "pip install pyyaml 'timm>=1.0'"
    assert install("scipy") == "pip install scipy 'timm>=1.0' pyyaml"
    assert install("nvidia-dali-cuda130", "dali") == "pip install 'nvidia-dali-cuda130>=2.4'"
    packages(rich=Installed(), timm=Installed(), pyyaml=Installed())
    assert install("timm") == "pip install 'timm>=1.0'"


def test_sources_that_were_never_installed_know_the_name_alone(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_install, "requires", missing)
    monkeypatch.setattr(_install, "distribution", missing)
    monkeypatch.setattr(_install, "__file__", "/nowhere/bat_fast/_install.py")
    assert install("sklearn") == "pip install scikit-learn"
    assert rebuild() == "pip install --force-reinstall --no-deps --no-cache-dir bat_fast"


@pytest.mark.parametrize(
    ("origin", "place"),
    [
        ({"url": "file:///home/me/my bat", "dir_info": {}}, ["/home/me/my bat"]),
        (
            {"url": "https://host/bat.git", "vcs_info": {"vcs": "git", "commit_id": "a1"}},
            ["--no-cache-dir", "git+https://host/bat.git"],
        ),
        ({"url": "file:///x/bat_fast-0.1.0.whl", "archive_info": {}}, ["--no-cache-dir", "bat_fast"]),
        (None, ["--no-cache-dir", "bat_fast"]),
    ],
)
def test_the_library_is_built_again_from_where_it_came(origin, place, packages, monkeypatch):
    packages(bat_fast=Installed(origin))
    monkeypatch.setattr(_install, "__file__", "/site-packages/bat_fast/_install.py")
    assert shlex.split(rebuild()) == ["pip", "install", "--force-reinstall", "--no-deps", *place]


def test_in_a_checkout_it_is_built_in_place():
    assert shlex.split(rebuild())[-2:] == ["-e", str(ROOT)]


def test_no_message_names_an_extra():
    """An index need not have the package, and an extra of a checkout would build it again."""
    for path in [*(ROOT / "bat_fast").rglob("*.py"), *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"bat_fast\[\w", path.read_text()), path


def test_a_gpu_without_kernels_is_said_in_one_line(monkeypatch, capsys):
    from bat_fast.report.info import collect_info, print_info

    info = collect_info()
    info["build"] = {"version": "0.1.0", "git": "", "cuda": "", "cuda_architectures": ""}
    print_info(info)
    assert re.search(r"^build cuda +no$", capsys.readouterr().out, re.MULTILINE) or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    reason = _native.slow_on_gpu(info["build"])
    assert "\n" not in reason
    assert rebuild() in reason
    print_info(info)
    out = capsys.readouterr().out
    assert reason in out
    assert "build git" not in out
    assert _native.slow_on_gpu({"cuda": "13.0"}) is None
