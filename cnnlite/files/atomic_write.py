"""Write a file atomically: whole or not at all, whatever happens to the process or to the disk.

The bytes go into a temporary file in the same folder and are flushed to disk; only then is the file renamed, in one
step. A process that is killed in between leaves its temporary file behind, and the next one that writes into the
folder removes it. A lock, which dies with its process, tells dead writers from live ones.
"""

import contextlib
import os
import re
import secrets
import shutil

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # on other systems it is a module

TEMPORARY = re.compile(r"cnnlite-[0-9a-f]{16}\.tmp")


def replace_file(path, content, owner):
    """Write bytes to `path`: afterwards it holds all of them, or it is unchanged and an OSError says why.

    A symbolic link stays one, and a new file takes over the permissions of the one that it replaces.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    try:
        remove_leftovers(folder)
        _replace(target, folder, content)
    except OSError as error:
        kept = " The old file is unchanged." if os.path.exists(target) else ""
        raise OSError(error.errno, f"{owner}: {path} can't be written: {error.strerror or error}.{kept}") from error
    _to_the_disk(folder)


def _replace(target, folder, content):
    temporary = os.path.join(folder, f"cnnlite-{secrets.token_hex(8)}.tmp")
    file = None
    try:
        file = _open_locked(temporary)
        file.write(content)
        file.flush()
        with contextlib.suppress(OSError):
            shutil.copymode(target, temporary)
        os.fsync(file.fileno())
        if fcntl is None:
            file.close()  # Windows can't rename an open file; elsewhere the lock must last until the rename
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    finally:
        if file is not None:
            with contextlib.suppress(OSError):  # from a failed write, which has already been reported
                file.close()


def _open_locked(path):
    """Create a file and lock it; retry if another process took it for a leftover in between."""
    while True:
        file = open(path, "xb")
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks, where leftovers are never removed
            return file
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def remove_leftovers(folder):
    """Remove the temporary files in a folder whose writers are dead."""
    if fcntl is None:
        return
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [entry.path for entry in entries if TEMPORARY.fullmatch(entry.name) and entry.is_file()]
    for path in found:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError if its writer is alive
            os.remove(path)


def make_folder(path, owner):
    """Make a folder and its parents, unless they exist."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        reason = "a file of that name exists" if isinstance(error, FileExistsError) else error.strerror or error
        raise OSError(error.errno, f"{owner}: the folder {path} can't be made: {reason}.") from error


def _to_the_disk(folder):
    """Make a rename survive a crash of the machine, where the system supports that."""
    # The file is whole in any case, and not every system can open folders.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
