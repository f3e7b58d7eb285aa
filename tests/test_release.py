"""What is released: versions that agree, resolutions of what is declared, a wheel with all that belongs in it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import hf_gammareg

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
JOBS = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yaml").read_text())["jobs"]
PYTHONS = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
RESOLVED = {path.name.removesuffix(".txt"): path for path in sorted((ROOT / ".ci" / "resolved").glob("*.txt"))}


def requirements(lines):
    """By name; for an extra of the project's own, what it asks for."""
    found = {}
    for one in map(Requirement, lines):
        asked = [line for extra in one.extras for line in PROJECT["optional-dependencies"][extra]]
        found |= requirements(asked) if one.name == PROJECT["name"] else {canonicalize_name(one.name): one}
    return found


DECLARED = requirements([*PROJECT["dependencies"], f"{PROJECT['name']}[dev]"])


def pins(name):
    found = requirements(RESOLVED[name].read_text().splitlines())
    return {name: Version(str(one.specifier).removeprefix("==")) for name, one in found.items()}


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (heading, *_) = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == heading == hf_gammareg.__version__
    assert citation["license"] == PROJECT["license"]
    assert set(citation) >= {"cff-version", "message", "title", "authors"}


def test_the_workflow_runs_what_there_is():
    matrix = JOBS["suite"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    assert Version(PYTHONS[0]) in Requirement(f"python{PROJECT['requires-python']}").specifier
    assert {f"{resolution}-{python}" for resolution in matrix["resolution"] for python in PYTHONS} == set(RESOLVED)
    steps = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    scripts = [script for step in steps for script in re.findall(r"\.ci/\w+", step)]
    assert {".ci/run", ".ci/release", ".ci/resolve"} == set(scripts)
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)


@pytest.mark.parametrize("name", RESOLVED)
def test_a_resolution_holds_what_is_declared(name):
    """After a change of dependencies: `.ci/resolve`."""
    found = pins(name)
    assert DECLARED.keys() <= found.keys()
    for dependency, declared in DECLARED.items():
        assert found[dependency] in declared.specifier, dependency


def test_the_lowest_versions_are_the_floors():
    found = pins(f"lowest-{PYTHONS[0]}")
    floors = {name: Version(str(one.specifier).removeprefix(">=")) for name, one in DECLARED.items()}
    assert {name: found[name] for name in floors} == floors


def test_the_wheel_holds_types_and_templates(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "hf_gammareg", tmp_path / "hf_gammareg", ignore=shutil.ignore_patterns("__pycache__"))
    words = ["wheel", ".", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", "dist"]
    subprocess.run([sys.executable, "-m", "pip", *words], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.name == f"hf_gammareg-{hf_gammareg.__version__}-py3-none-any.whl"
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("hf_gammareg/")}
    files = {str(path.relative_to(tmp_path)) for path in (tmp_path / "hf_gammareg").rglob("*") if path.is_file()}
    assert held == {name for name in files if not name.endswith(".md")}
    assert {"hf_gammareg/py.typed", "hf_gammareg/__init__.pyi", "hf_gammareg/show/templates/frame.html"} <= held
