"""What kernels are compiled for, and that code compiled for one processor is never used on another."""

import ast
import os
import time
from pathlib import Path

import pytest

from cnnlite import kernels
from cnnlite.engine import cache as _cache
from cnnlite.engine import target as _target
from cnnlite.engine.cache import KernelCache, Store
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.rooms import CALL, make, run, run_both

x86_needed = pytest.mark.skipif("x86" not in _target._machine[0], reason="tests x86 processors")


def name_of_a_kernel(tmp_path):
    return KernelCache(Store(tmp_path), name_of_a_kernel, "inner")._name(("float32",))


# Vectors depend on the processor that numba compiles for, which need not be the host.

@x86_needed
@pytest.mark.parametrize(("name", "features", "width"), [
    ("generic", "", 16),
    ("generic", "+avx", 32),
    ("haswell", "", 32),  # implied by the name
    ("skylake-avx512", "", 64),
    ("skylake-avx512", "-avx512f", 32),
])  # fmt: skip
def test_the_width_of_a_vector_follows_from_the_processor_and_its_features(name, features, width):
    assert _target._widest_register(_target._machine[0], name, features) == width


@x86_needed
@pytest.mark.parametrize(("name", "features", "fused"), [
    ("generic", "", False),
    ("sandybridge", "", False),  # has AVX, which doesn't include FMA
    ("haswell", "", True),
    ("haswell", "-fma", False),
    ("generic", "+fma", True),
    ("skylake-avx512", "", True),
])  # fmt: skip
def test_whether_a_multiply_add_is_one_instruction_follows_from_them_too(name, features, fused):
    assert _target._has_fused_multiply_add(_target._machine[0], name, features) is fused


@x86_needed
@compiled_kernels_needed
def test_machines_of_different_processors_that_are_told_to_compile_for_one_may_share_a_cache(tmp_path):
    program = """
import llvmlite.binding, numpy as np
features = llvmlite.binding.get_host_cpu_features()
features.update({{name: False for name in features if name.startswith({without!r})}})
llvmlite.binding.get_host_cpu_features = lambda: features
from cnnlite import kernels
from cnnlite.engine.target import VECTOR_BYTES, ROWS
rng = np.random.default_rng(0)
a, b = rng.normal(size=(7, 30)).astype("f4"), rng.normal(size=(30, 21)).astype("f4")
print(VECTOR_BYTES, ROWS, np.abs(kernels.matmul(a, b) - a @ b).max() < 1e-5)
"""
    shared = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_NUM_THREADS": "1", "NUMBA_CPU_NAME": "generic",
              "NUMBA_CPU_FEATURES": None}
    output, said = run_both(program.format(without="nothing"), tmp_path, **shared)
    assert output == "16 6 True\n"
    assert "compiling" in said
    assert run_both(program.format(without="avx"), tmp_path, **shared) == ("16 6 True\n", "")


@pytest.mark.parametrize("known", ["VECTOR_BYTES", "FUSED_MULTIPLY_ADD", "ROWS", "_machine"])
def test_what_is_known_of_the_processor_is_in_the_name(tmp_path, monkeypatch, known):
    before = name_of_a_kernel(tmp_path)
    assert name_of_a_kernel(tmp_path) == before
    monkeypatch.setattr(_target, known, 48)
    assert name_of_a_kernel(tmp_path) != before


@pytest.mark.parametrize("setting", [
    "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "ENABLE_PROFILING", "EXTEND_VARIABLE_LIFETIMES", "FULL_TRACEBACKS",
    "LLVM_REFPRUNE_FLAGS", "LLVM_REFPRUNE_PASS", "LOOP_VECTORIZE", "OPT", "SLP_VECTORIZE", "USING_SVML",
])  # fmt: skip
def test_the_settings_of_numba_that_change_what_is_compiled_are_in_the_name(tmp_path, monkeypatch, setting):
    before = name_of_a_kernel(tmp_path)
    monkeypatch.setattr(_target.numba.config, setting, "another")
    assert name_of_a_kernel(tmp_path) != before


@compiled_kernels_needed
def test_code_that_was_compiled_with_other_settings_is_not_taken(tmp_path):
    make(tmp_path)
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for checks, found in ("0", "0"), ("1", "0"), ("0", "1"):
        assert run(CALL, tmp_path, **cache, NUMBA_BOUNDSCHECK=checks) == ["4.0", found]


def test_no_other_kernel_module_asks_for_the_processor_or_the_environment():
    # Its answer would be frozen into compiled code but missing from the name of the cache file.
    asking = {}
    for path in (*Path(kernels.__file__).parent.rglob("*.py"), *Path(_target.__file__).parent.rglob("*.py")):
        found = {".".join(name) for name in _names(ast.parse(path.read_text(encoding="utf-8")))}
        asking[path.name] = asking.get(path.name, set()) | {
            name for name in found
            if name.startswith(("platform", "os.environ", "os.getenv", "llvmlite.binding", "numba.config"))
            or name == "sys.platform" or "get_host_cpu" in name
        }  # fmt: skip
    assert "llvmlite.binding" in asking.pop("target.py")
    assert asking.pop("cache.py") == {"numba.config", "numba.config.CACHE_DIR"}  # where the files are
    assert asking.pop("helpers.py") == {  # passes on where the files are, and asks for the number of cores
        "numba.config", "numba.config.CACHE_DIR", "numba.config.NUMBA_NUM_THREADS", "os.environ"}
    assert asking.pop("thread_pool.py") == {  # counts cores before each run, not in compiled code
        "numba.config", "numba.config.NUMBA_NUM_THREADS", "numba.config.NUMBA_DEFAULT_NUM_THREADS", "os.environ",
        "llvmlite.binding.ffi"}  # the lock of LLVM, which a fork waits for
    assert set().union(*asking.values()) == {"numba.config", "numba.config.DISABLE_JIT"}  # nothing is compiled then


def _names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ([*(node.module or "").split("."), alias.name] for alias in node.names)
        elif isinstance(node, ast.Attribute):
            parts = [node.attr]
            while isinstance(node.value, ast.Attribute):
                node = node.value
                parts.append(node.attr)
            if isinstance(node.value, ast.Name):
                yield [node.value.id, *reversed(parts)]


# Versions of the sources and of numba that take turns using one folder.

OTHER_NUMBA = "import numba; numba.__version__ = {!r}\n"


@compiled_kernels_needed
def test_two_versions_of_numba_on_one_checkout_keep_each_others_kernels(tmp_path):
    make(tmp_path)
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for found in ("0", "1"):
        for version in ("1.2.3", "1.2.4"):
            assert run(OTHER_NUMBA.format(version) + CALL, tmp_path, **cache) == ["4.0", found]


def name(version, kernel="kernel", key="key"):
    return f"{kernel}-{version}-{key}.nbc"


def versions_in(folder, kernel="kernel"):
    return {path.name.split("-")[1] for path in (folder / "cache").glob(f"{kernel}-*")}


def age(path, days):
    then = time.time() - days * 24 * 60 * 60
    os.utime(path, (then, then))


def test_of_more_versions_those_that_were_not_used_for_longest_are_removed(tmp_path):
    store = Store(tmp_path)
    store.folders = [tmp_path / "cache"]
    store.write("other-0-key.nbc", b"of another kernel")
    for version in range(_cache.VERSIONS_KEPT):
        for key in ("one", "two"):
            store.write(name(version, key=key), b"code")
            age(tmp_path / "cache" / name(version, key=key), days=20 - version)
    assert store.read(name(0, key="two")) == b"code"  # the oldest, now used again
    store.write(name("new"), b"code")
    assert versions_in(tmp_path) == {"0", "new", *map(str, range(2, _cache.VERSIONS_KEPT))}
    assert store.read(name(0, key="one")) == b"code"
    assert versions_in(tmp_path, "other") == {"0"}


def test_a_version_that_is_new_is_kept_whatever_the_clock_says(tmp_path):
    store = Store(tmp_path)
    store.folders = [tmp_path / "cache"]
    for version in range(_cache.VERSIONS_KEPT):
        store.write(name(version), b"code")
        age(tmp_path / "cache" / name(version), days=-1)  # written by a machine whose clock is ahead
    store.write(name("new"), b"code")
    assert "new" in versions_in(tmp_path)
    assert len(versions_in(tmp_path)) == _cache.VERSIONS_KEPT
