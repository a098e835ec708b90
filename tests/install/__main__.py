"""Build cnnlite, install what was built for each Python there is, freeze it into a program, and train with each.

    python -m tests.install [python ...]

The Pythons are commands or paths; without any it takes python3.10, python3.11 and so on, as far as they are found. It
needs a package index, some minutes, and `pip install -e ".[install]"`, which is build and PyInstaller.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PROGRAM = Path(__file__).with_name("program.py")
VERSIONS = range(10, 20)  # of Python 3
COMPILING = "cnnlite: compiling kernels"


def main(pythons):
    pythons = pythons or [name for name in (f"python3.{minor}" for minor in VERSIONS) if runs(name)]
    # A path that many a script can't bear.
    with tempfile.TemporaryDirectory(prefix="päckages 漢字 и ") as folder:
        folder = Path(folder)
        wheel = build(folder)
        results = {name: install(name, wheel, folder / f"for {Path(name).name}") for name in pythons}
        results["frozen by PyInstaller"] = freeze(wheel, folder)
    first, *others = results.values()
    width = max(map(len, results))
    for name, result in results.items():
        print(f"{name:{width}}  Python {result['python']:8} numba {result['numba']:8} NumPy {result['numpy']:8} first "
              f"start {result['first']:5.1f} s, second {result['second']:4.1f} s, loss {result['losses'][-1]:.9g}")
    # NumPy's exponentials differ by a bit from version to version.
    assert all(abs(result["losses"][-1] - first["losses"][-1]) < 1e-6 for result in others)
    print(f"{len(results)} passed, 0 failed")


def runs(python):
    # A name may be there without a Python behind it.
    return shutil.which(python) and not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode


def build(folder):
    """Build a source distribution and from that a wheel, look into both, and return the wheel."""
    sources = folder / "sources"
    # What lies about in a work tree does not get into them.
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "results", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, sources, ignore=unwanted)
    call(sys.executable, "-m", "build", "--outdir", folder / "dist", sources)
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    with tarfile.open(sdist) as file:
        of_sdist = {name.partition("/")[2] for name in file.getnames()}
    with zipfile.ZipFile(wheel) as file:
        of_wheel = {name for name in file.namelist() if name.startswith("cnnlite/")}
    package = {path.relative_to(sources).as_posix() for path in (sources / "cnnlite").rglob("*.*")}
    readmes = {name for name in package if name.endswith("README.md")}
    assert {"cnnlite/py.typed", "cnnlite/datasets/mnist.npz", "cnnlite/datasets/MNIST-ATTRIBUTION.md"} <= package
    assert of_wheel == package - readmes, of_wheel ^ package
    wanted = {path.relative_to(sources).as_posix() for path in sources.rglob("*.*") if path.is_file()}
    assert wanted <= of_sdist, wanted - of_sdist
    print(f"{sdist.name}: {sdist.stat().st_size:,} bytes, {wheel.name}: {wheel.stat().st_size:,} bytes")
    return wheel


def install(python, wheel, folder):
    """Install the wheel into a new virtual environment, and return what the program does with it."""
    call(python, "-m", "venv", folder)
    own = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    call(own, "-m", "pip", "install", "--quiet", wheel)
    call(own, "-m", "pip", "check")
    result = run_twice([own, PROGRAM, "convolutions", "data"])
    assert Path(result["at"]).is_relative_to(folder), result["at"]
    return result


def freeze(wheel, folder):
    """Freeze the program with PyInstaller, from an environment with nothing else in it, and return what it does."""
    own = folder / "to freeze"
    call(sys.executable, "-m", "venv", own)
    python = own / ("Scripts" if os.name == "nt" else "bin") / "python"
    call(python, "-m", "pip", "install", "--quiet", wheel, "pyinstaller")
    call(python, "-m", "PyInstaller", "--onedir", "--noconfirm", "--log-level", "ERROR", "--collect-data", "cnnlite",
         "--name", "program", PROGRAM, cwd=folder)
    shutil.rmtree(own)  # so that nothing can be taken from there
    result = run_twice([folder / "dist" / "program" / "program", "convolutions", "data"], HOME=str(folder))
    assert Path(result["at"]).is_relative_to(folder / "dist" / "program"), result["at"]
    return result


def run_twice(command, **variables):
    """Run a program without a cache of kernels and then with what that left; return its result and the two times."""
    unwanted = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted} | variables
    times = []
    for compiles in (True, False):
        began = time.perf_counter()
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(COMPILING) if compiles else not done.stderr, done.stderr
        result = json.loads(done.stdout)
        assert result["images"] == [60_000, 10_000]
        assert result["loaded the same"]
    return result | {"first": times[0], "second": times[1]}


def call(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    main(sys.argv[1:])
