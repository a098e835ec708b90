"""A package with two kernels, compiled like the library's own, and processes that call them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cnnlite
from cnnlite.engine import jit as _jit

ROOT = Path(cnnlite.__file__).parent.parent
HELPER = """
from rooms.jit import jit

@jit
def helper(x):
    return x + {number}
"""
USER = """
from rooms.jit import jit
from rooms.helper import helper

@jit
def double(x):
    return 2 * helper(x)
"""
CALL = """
from rooms.user import double
print(double(1.0), sum(double.stats.cache_hits.values()))
"""


def run(program, folder, **environment):
    """Run a program in a new process, with `folder` first on its path, and return what it printed."""
    return run_both(program, folder, **environment)[0].split()


def run_both(program, folder, **environment):
    """Run it in the same way; return (stdout, stderr)."""
    done = start(program, folder, **environment)
    output, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    return output, errors


def start(program, folder, **environment):
    """Start such a process and return it; an environment variable given as None is unset."""
    paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    # Python would reuse bytecode if a source has the same size and is rewritten within a second, as the helper is.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.Popen([sys.executable, "-c", program], env=environment, text=True, cwd=folder,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def write_helper(folder, number):
    """Write the helper that adds `number`."""
    (folder / "rooms" / "helper.py").write_text(HELPER.format(number=number))


def make(folder):
    """Write the package: the library's `jit`, a helper, and a kernel in another file that calls it."""
    rooms = folder / "rooms"
    rooms.mkdir()
    shutil.copy(_jit.__file__, rooms)
    (rooms / "__init__.py").touch()
    (rooms / "user.py").write_text(USER)
    write_helper(folder, 1)
