"""The source distribution: the checkout, from which CMake configures."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from test_build import CMAKE, NINJA, TORCH

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
ONLY_IN_GIT = (".ci/", ".github/", ".gitignore")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The root of the unpacked source distribution."""
    place = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "setup.py", "egg_info", "--egg-base", place, "sdist", "-d", place]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "copying" not in run.stdout
    (archive,) = place.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(place, filter="data")
    return place / archive.name.removesuffix(".tar.gz")


@pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="git says what belongs to the sources; this is no checkout"
)
def test_it_holds_what_git_does(unpacked):
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in run.stdout.split("\0") if name and not name.startswith(ONLY_IN_GIT)}
    there = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert not sorted(tracked - there)
    assert "CMakeLists.txt" in there
    assert not [name for name in there - tracked if name.endswith((".so", ".pyc", ".json"))]


def test_it_configures_and_says_no_revision_of_a_folder_around_it(unpacked, tmp_path):
    # As setup.py does, and with the C++ tests, whose files come from another folder.
    subprocess.run(["git", "init", "-q", unpacked.parent], check=True)
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(
        ["git", *who, "-C", unpacked.parent, "commit", "-q", "--allow-empty", "-m", "x"], check=True
    )
    command = [CMAKE, "-S", unpacked, "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"]
    options = [f"-DBAT_FAST_TORCH={TORCH}", "-DBAT_FAST_CUDA=0", "-DBAT_FAST_HOST_TESTS=ON"]
    run = subprocess.run([*command, *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert '"git": ""' in (tmp_path / "build.json").read_text()
