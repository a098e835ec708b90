"""An installed cnnlite where it is hard to be installed: no folder to write to, a full disk, a strange path.

Here the package is copied, and shares the libraries of the tests. `make test-install` installs it with pip, for each
Python there is, and freezes it into a program.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cnnlite
from tests.install import program
from tests.kernels.drawn import compiled_kernels_needed
from tests.stress.report import count

pytestmark = [pytest.mark.stress, compiled_kernels_needed, pytest.mark.skipif(os.name == "nt", reason="POSIX")]

COMPILING = "cnnlite: compiling kernels for this processor; each is compiled once and kept on disk.\n"
WHAT_TO_DO = "Set the environment variable NUMBA_CACHE_DIR to a writable folder.\n"
VARIABLES_OF_PLACES = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "PYTHONPATH")


@pytest.fixture
def site(tmp_path):
    """A folder with spaces and letters of three alphabets, in which cnnlite is installed."""
    site = tmp_path / "my sites" / "päckages 漢字 и всё"
    shutil.copytree(Path(cnnlite.__file__).parent, site / "cnnlite", ignore=shutil.ignore_patterns("__pycache__"))
    yield site
    for path in (site, *site.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


@pytest.fixture(scope="module")
def losses():
    return program.train(with_convolutions=False)[2]


def start(site, *before, **variables):
    """Start the program with that cnnlite by the command `before`. Home and cache are in `variables` or not there."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES_OF_PLACES}
    environment |= {"PYTHONPATH": str(site), "NUMBA_NUM_THREADS": "2", **variables}
    return subprocess.Popen([*before, sys.executable, program.__file__], env=environment, text=True, cwd=site.parent,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def result_of(process, site, losses):
    """Check that the program has come to the right numbers with that cnnlite; return what it said on stderr."""
    output, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    result = json.loads(output)
    assert result["losses"] == losses
    assert result["at"] == str(site / "cnnlite")
    return said


def without_rights(site):
    """Forbid everybody to write into the package; return what runs a program that is bound by that."""
    for path in (site, *site.rglob("*")):
        if path.is_dir():
            path.chmod(0o555)
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("nothing takes root's rights away")
    return ["setpriv", "--bounding-set=-all"]


def test_without_a_home_the_kernels_lie_beside_the_package_in_a_strange_path(site, losses):
    assert result_of(start(site), site, losses) == COMPILING
    assert result_of(start(site), site, losses) == ""
    assert list(site.glob("cnnlite/engine/__pycache__/*.nbc"))
    # And whoever may not write there uses them.
    assert result_of(start(site, *without_rights(site)), site, losses) == ""
    count("ways to be installed (read-only, no home, strange path, full disk, no source files)", 2)


def test_a_package_that_nobody_may_write_to_says_what_to_do_or_takes_the_home(site, losses, tmp_path):
    plain = without_rights(site)
    # A home that can't be written to either; without HOME, root has one all the same.
    said = result_of(start(site, *plain, HOME=str(site)), site, losses)
    assert said.startswith("cnnlite: compiling kernels for this processor. They can't be kept for the next process")
    assert "Permission denied" in said
    assert said.endswith(WHAT_TO_DO)
    assert result_of(start(site, *plain, HOME=str(tmp_path)), site, losses) == COMPILING
    assert result_of(start(site, *plain, HOME=str(tmp_path)), site, losses) == ""
    assert list(tmp_path.glob(".cache/numba/cnnlite_*/*.nbc"))
    count("ways to be installed (read-only, no home, strange path, full disk, no source files)", 2)


def test_a_cache_on_a_full_disk_costs_no_result(site, losses, tmp_path):
    plain = without_rights(site)
    small = tmp_path / "small disk"
    small.mkdir()
    mount = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=40k tmpfs "{small}" && exec "$@"', "sh"]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    said = result_of(start(site, *mount, *plain, NUMBA_CACHE_DIR=str(small), HOME=str(site)), site, losses)
    assert said.startswith(COMPILING + "cnnlite: the kernels can't be kept for the next process")
    assert "No space left on device" in said
    assert said.endswith(WHAT_TO_DO)
    count("ways to be installed (read-only, no home, strange path, full disk, no source files)")


def test_processes_that_start_at_once_on_an_empty_cache_leave_a_whole_one(site, losses, tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for process in [start(site, **cache) for _ in range(3)]:
        assert result_of(process, site, losses) == COMPILING
    assert result_of(start(site, **cache), site, losses) == ""
    count("processes that started at once on one empty cache of kernels", 3)


def test_a_package_without_source_files_keeps_its_kernels(site, losses, tmp_path):
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-b", str(site)], check=True)
    for source in site.rglob("*.py"):
        source.unlink()
    assert result_of(start(site, HOME=str(tmp_path)), site, losses) == COMPILING
    assert result_of(start(site, HOME=str(tmp_path)), site, losses) == ""
    count("ways to be installed (read-only, no home, strange path, full disk, no source files)")
