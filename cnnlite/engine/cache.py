"""Compiled kernels on disk: each in a file of its own, named after all that decides what is in it.

numba's own cache has an index for each function and numbers its files, and writes the index first. So a disk that
is full in between leaves a number that leads to the code of an earlier version, and two processes that compile for
other types at once may leave one that leads to the code for others. Here a name can lead to one thing only,
and whoever writes it writes the same. A file is there whole or not at all; one that is damaged later counts as none.
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

VERSIONS_KEPT = 8  # of a kernel for one Python: by other sources, or compiled by other versions of numba
_DAY = 24 * 60 * 60


class Store:
    """The folders in which lies what is compiled from folders of sources; the first gets what is kept beside them."""

    def __init__(self, sources, *more):
        self.sources = Path(sources)
        # numba would look at the file of the function alone, and keep a kernel whose helper in another has changed.
        self.fingerprint = _fingerprint(self.sources, *map(Path, more))
        self._has_announced = self._has_warned = False

    @functools.cached_property
    def folders(self):
        """The folders in which to look and to write, the best one first; known when the first kernel is asked for."""
        frozen = getattr(sys, "frozen", False)
        # A frozen program may unpack itself into another folder each time.
        place = os.path.abspath(sys.executable if frozen else self.sources)
        name = f"cnnlite_{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}"
        folders = [Path(numba.config.CACHE_DIR, name).absolute()] if numba.config.CACHE_DIR else []
        if not frozen:
            folders.append(self.sources / "__pycache__")
        of_user = Path(AppDirs("numba", appauthor=False).user_cache_dir, name)
        # Who has no home would get a folder called "~" where they stand.
        return [*folders, of_user] if of_user.is_absolute() else folders

    def read(self, name):
        """Return the bytes that were written under a name, or None."""
        for folder in self.folders:
            with suppress(OSError):
                content = (folder / name).read_bytes()
                digest, content = content[:32], content[32:]
                if hashlib.sha256(content).digest() == digest:
                    _mark_as_used(folder / name)
                    return content
        return None

    def has(self, name):
        """Return whether there is something under a name, which may prove to be damaged."""
        return any(os.path.isfile(folder / name) for folder in self.folders)  # unlike Path's, it never raises

    def place(self):
        """Return (folder, ""), the folder to which files are written, or (None, why there is none, and the remedy)."""
        took = []

        def write(folder):
            _try_to_write(folder)
            took.append(folder)

        why_not = self._in_a_folder(write)
        return (None if why_not else took[0]), why_not

    def write(self, name, content):
        """Write bytes under a name into the first folder that takes them, or say once that there is none."""
        content = hashlib.sha256(content).digest() + content
        why_not = self._in_a_folder(lambda folder: _replace(folder / name, content))
        if why_not and not self._has_warned:
            self._has_warned = True
            _say(f"the kernels can't be kept for the next process, which compiles them again: {why_not}")

    def announce_compilation(self):
        """Say once that kernels are compiled, which takes a while, and whether the next process finds them."""
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
        """Call write(folder) with the first folder that can be written to; return why none can, and the remedy."""
        failures = []
        for folder in self.folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write(folder)
                return ""
            except OSError as error:
                failures.append(f"{folder} ({error.strerror or error})")
        remedy = "Set the environment variable NUMBA_CACHE_DIR to a folder that can be written to."
        return f"{', '.join(failures)}. {remedy}"


def _fingerprint(*folders):
    """Return a hash of all sources, and of what compiles them and for what Python."""
    digest = hashlib.sha256(repr(target.toolchain()).encode())
    files = [file for folder in folders for file in sorted(folder.rglob("*.py")) or sorted(folder.rglob("*.pyc"))]
    if not files:
        # They are in an archive, or in the frozen program.
        files = [next(filter(Path.is_file, folders[0].parents), Path(sys.executable))]
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _replace(path, content):
    # Not forced to the disk, which would take longer than to compile: what a loss of power leaves is told by the hash.
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
    """Remove the versions of a kernel that were not used for longest.

    Not all but the newest: two versions of numba, or of the library at the same place in two containers, may use a
    folder in turns, and would compile at every start.
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
    """What numba asks for compiled code of a function, and gives it to.

    Args:
        kind: what else decides what the function is compiled to, a text.
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
        # An address in it would lead nowhere in another process.
        if not (data.library.has_dynamic_globals or data.lifted):
            self._store.write(self._name(sig), dumps(data._reduce()))

    def has(self, sig):
        """Return whether it was compiled for that signature before."""
        return self._store.has(self._name(sig))

    def _name(self, sig):
        code = self._function.__code__
        decides = (self._kind, sig, code.co_firstlineno, code.co_code, target.description())
        kernel = re.sub(r"[^\w.]", "", f"{self._function.__module__}.{self._function.__qualname__}")
        key = hashlib.sha256(repr(decides).encode()).hexdigest()
        return f"{kernel}.{target.PYTHON}-{self._store.fingerprint[:16]}-{key[:32]}.nbc"


def _say(sentence):
    """Print a sentence where a person sees it and no output of a program is disturbed."""
    with suppress(OSError, ValueError):  # of a terminal that is gone, or of a log on a disk that is full
        message(f"cnnlite: {sentence}", sys.stderr)
