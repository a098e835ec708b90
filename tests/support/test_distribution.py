"""On PyPI the name cnnlite belongs to a stranger, whose package nobody must be told to install."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cnnlite
from cnnlite.support import distribution

ROOT = Path(cnnlite.__file__).parent.parent
TEXTS = {".py", ".md", ".cfg", ".toml", ".txt", ".in", ".sh", ".yml", ".yaml", ""}  # "" is that of the Makefile
NOT_OURS = {"build", "dist", "results", "__pycache__"}

# A command with that name among the first of what it installs; or the name with an extra, as pip takes it.
INSTALLED = re.compile(r"""
    \b(?:pip3?|pipx|uv|poetry|pdm|conda|mamba)\s+(?:install|add)(?:\s+[^\s`;:]*[^\s`;:.,]){0,6}?\s+
        ["']?cnnlite(?![-\w/]|\.\w)
    | (?<![-\w])cnnlite\[[a-z,$*]+\]
""", re.VERBOSE)


def texts():
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        unwanted = any(part in NOT_OURS or part.endswith(".egg-info") for part in inside[:-1])
        hidden = inside[0].startswith(".") and inside[0] != ".ci"
        if path.suffix in TEXTS and path.is_file() and not (unwanted or hidden):
            yield path


@pytest.mark.parametrize("text", [
    "pip install cnnlite", "Get it with: pip install 'cnnlite[plot]'", 'pip install -U "cnnlite"', "uv add cnnlite",
    "pip install\n  cnnlite", "python -m pip install --quiet torch==2.13.0 cnnlite==0.1.0", "`pip3 install cnnlite`.",
    "cnnlite[install] brings it",
])  # fmt: skip
def test_what_would_install_the_package_of_the_stranger_is_found(text):
    assert INSTALLED.search(text)


@pytest.mark.parametrize("text", [
    'pip install -e ".[plot]"', 'pip install "cnnlite-numba[plot]"', "pip install numba. import cnnlite",
    "pip install atheris, then cnnlite/kernels", 'MODELS["cnnlite"]', "cnnlite[0]",
])  # fmt: skip
def test_and_nothing_else_is(text):
    assert not INSTALLED.search(text)


def test_no_text_of_the_project_tells_anyone_to_install_the_package_of_the_stranger():
    paths = set(texts()) - {Path(__file__)}
    assert {ROOT / name for name in ("README.md", "Makefile", "setup.cfg", "examples/train_mnist.py")} <= paths
    found = {path: INSTALLED.search(path.read_text(encoding="utf-8")) for path in paths}
    assert {str(path): match.group() for path, match in found.items() if match} == {}


def test_the_package_has_the_name_that_messages_give():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["name"] == distribution.NAME != "cnnlite"


def test_the_remedy_in_a_checkout_and_where_the_library_is_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert distribution.how_to_install("plot") == 'pip install -e ".[plot]"'
    monkeypatch.chdir(tmp_path)
    assert distribution.how_to_install("plot") == f'pip install -e ".[plot]" (in {ROOT})'
    (tmp_path / "site" / "cnnlite").mkdir(parents=True)
    shutil.copy(distribution.__file__, tmp_path / "site" / "cnnlite")
    program = "from distribution import how_to_install; print(how_to_install('plot'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "site" / "cnnlite", capture_output=True,
                          text=True, check=True)
    assert done.stdout == 'pip install "cnnlite-numba[plot]"\n'
