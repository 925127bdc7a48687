"""The files of a release agree with each other and with the Makefile."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"


def test_the_citation_is_of_this_version():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors"} <= set(citation)
    (paper,) = citation["references"]
    assert "Memorization Effect" in paper["title"]
    assert "2106.04794" in paper["url"]


@pytest.mark.skipif(not WORKFLOW.exists(), reason="a source distribution does without it")
def test_the_workflow_calls_what_there_is():
    yaml = pytest.importorskip("yaml")
    text = WORKFLOW.read_text()
    jobs = yaml.safe_load(text)["jobs"]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"\bmake ([\w-]+)", text))
    assert {"sdist", "wheel", "sbom"} <= called <= targets
    for script in re.findall(r"python (\S+\.py)", text):
        assert (ROOT / script).exists(), script
    for name, job in jobs.items():
        assert set(job.get("needs", [])) <= set(jobs), name
    # Only the job that publishes may ask for an identity, and no other secret is used.
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})] == ["publish"]
    assert "secrets." not in text
