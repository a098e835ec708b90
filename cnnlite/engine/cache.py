"""Compiled kernels on disk: one file per kernel, named after everything that determines its contents.

numba's own cache keeps an index per function, numbers its files, and writes the index first. If the disk fills up in
between, an index entry may point to code from an earlier version; if two processes compile for different types at
once, an entry may point to code for the wrong types. Here a name identifies the code uniquely, and every process that
writes a file writes the same code to it. Files are written atomically; one that is corrupted later counts as missing.
"""

import functools
import hashlib
import math
import os
import pickle
import re
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from cnnlite.engine import target
from cnnlite.support.printing import message

VERSIONS_KEPT = 8  # per kernel and Python: from different sources, or compiled by different versions of numba
_DAY = 24 * 60 * 60


class Store:
    """The cache folders for kernels compiled from some source folders, among them the first one's `__pycache__`."""

    def __init__(self, sources, *more):
        self.sources = Path(sources)
        # numba would check only the function's own file, and keep a kernel whose helper in another file has changed.
        self.fingerprint = _fingerprint(self.sources, *map(Path, more))
        self._has_announced = self._has_warned = False

    @functools.cached_property
    def folders(self):
        """The folders to read from and write to, the best one first; determined when the first kernel is requested."""
        frozen = getattr(sys, "frozen", False)
        # A frozen program may unpack itself into a different folder each time.
        place = os.path.abspath(sys.executable if frozen else self.sources)
        name = f"cnnlite_{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}"
        folders = [Path(numba.config.CACHE_DIR, name).absolute()] if numba.config.CACHE_DIR else []
        if not frozen:
            folders.append(self.sources / "__pycache__")
        of_user = Path(AppDirs("numba", appauthor=False).user_cache_dir, name)
        # Without a home directory, this would create a folder called "~" in the working directory.
        return [*folders, of_user] if of_user.is_absolute() else folders

    def read(self, name):
        """Return the bytes stored under a name, or None."""
        for folder in self.folders:
            with suppress(OSError):
                content = (folder / name).read_bytes()
                digest, content = content[:32], content[32:]
                if hashlib.sha256(content).digest() == digest:
                    _mark_as_used(folder / name)
                    return content
        return None

    def has(self, name):
        """Return whether a file of that name exists; it may still turn out to be corrupted."""
        return any(os.path.isfile(folder / name) for folder in self.folders)  # unlike Path's, it never raises

    def place(self):
        """Return (folder, "") with the folder for new files, or (None, why there is none, and the remedy)."""
        took = []

        def write(folder):
            _try_to_write(folder)
            took.append(folder)

        why_not = self._in_a_folder(write)
        return (None if why_not else took[0]), why_not

    def write(self, name, content):
        """Write bytes under a name into the first writable folder, or say once that there is none."""
        content = hashlib.sha256(content).digest() + content
        why_not = self._in_a_folder(lambda folder: _replace(folder / name, content))
        if why_not and not self._has_warned:
            self._has_warned = True
            _say(f"the kernels can't be kept for the next process, which compiles them again: {why_not}")

    def announce_compilation(self):
        """Say once that kernels are being compiled, which takes a while, and whether they will be kept."""
        if self._has_announced:
            return
        self._has_announced = True
        why_not = self._in_a_folder(_try_to_write)
        if why_not:
            self._has_warned = True
            _say("compiling kernels for this processor. They can't be kept for the next process, which compiles them "
                 f"again: {why_not}")
        else:
            _say("compiling kernels for this processor; each is compiled once and kept on disk.")

    def _in_a_folder(self, write):
        """Call write(folder) with the first writable folder; return why there is none and the remedy, else ""."""
        failures = []
        for folder in self.folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write(folder)
                return ""
            except OSError as error:
                failures.append(f"{folder} ({error.strerror or error})")
        remedy = "Set the environment variable NUMBA_CACHE_DIR to a writable folder."
        return f"{', '.join(failures)}. {remedy}"


def _fingerprint(*folders):
    """Return a hash of all sources, the toolchain that compiles them and the Python that runs them."""
    digest = hashlib.sha256(repr(target.toolchain()).encode())
    files = [file for folder in folders for file in sorted(folder.rglob("*.py")) or sorted(folder.rglob("*.pyc"))]
    if not files:
        # The sources are in an archive, or in the frozen program.
        files = [next(filter(Path.is_file, folders[0].parents), Path(sys.executable))]
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _replace(path, content):
    # No fsync, which would take longer than compiling: the hash detects whatever a power failure leaves behind.
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _remove_older(path)


def _try_to_write(folder):
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"1")


def _mark_as_used(path):
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)


def _remove_older(path):
    """Remove the least recently used versions of a kernel.

    Several are kept: two versions of numba, or of the library at the same path in two containers, may
    take turns using a folder, and would otherwise compile at every start.
    """
    kernel, version, _ = path.name.rsplit("-", 2)
    last_use = {version: math.inf}
    files: dict[str, list[Path]] = {}
    for file in path.parent.glob(f"{kernel}-*.nbc"):
        version = file.name.rsplit("-", 2)[1]
        with suppress(OSError):  # another process may remove it
            last_use[version] = max(last_use.get(version, 0), file.stat().st_mtime)
            files.setdefault(version, []).append(file)
    for version in sorted(last_use, key=last_use.__getitem__)[:-VERSIONS_KEPT]:
        for file in files[version]:
            with suppress(OSError):
                file.unlink()


class KernelCache(NullCache):
    """The cache that numba loads a function's compiled code from and saves it to.

    Args:
        kind: a string for everything else that determines the compiled code.
    """

    def __init__(self, store, function, kind):
        self._store, self._function, self._kind = store, function, kind

    def load_overload(self, sig, target_context):
        content = self._store.read(self._name(sig))
        if content is None:
            self._store.announce_compilation()
            return None
        target_context.refresh()
        return CompileResult._rebuild(target_context, *pickle.loads(content))

    def save_overload(self, sig, data):
        # An address embedded in the code would be invalid in another process.
        if not (data.library.has_dynamic_globals or data.lifted):
            self._store.write(self._name(sig), dumps(data._reduce()))

    def has(self, sig):
        """Return whether the function has been compiled for that signature before."""
        return self._store.has(self._name(sig))

    def _name(self, sig):
        code = self._function.__code__
        decides = (self._kind, sig, code.co_firstlineno, code.co_code, target.description())
        kernel = re.sub(r"[^\w.]", "", f"{self._function.__module__}.{self._function.__qualname__}")
        key = hashlib.sha256(repr(decides).encode()).hexdigest()
        return f"{kernel}.{target.PYTHON}-{self._store.fingerprint[:16]}-{key[:32]}.nbc"


def _say(sentence):
    """Print a sentence to stderr, where a person sees it and it doesn't mix with the program's output."""
    with suppress(OSError, ValueError):  # the terminal is gone, or the disk with the log is full
        message(f"cnnlite: {sentence}", sys.stderr)
