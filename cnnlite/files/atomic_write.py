"""Writing a file so that it is there whole or not at all, whatever happens to the process or to the disk.

The bytes go into a temporary file in the same folder, from there to the disk, and only then does the file get its
name, in one step. A process that is killed in between leaves its temporary file behind; the next one that writes
into the folder takes it away. It knows a dead writer from a live one by a lock, which dies with its process.
"""

import contextlib
import os
import re
import secrets
import shutil

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module where there is one

TEMPORARY = re.compile(r"cnnlite-[0-9a-f]{16}\.tmp")


def replace_file(path, content, owner):
    """Write bytes to `path`: afterwards it holds all of them, or what it held before and an OSError says why.

    A link stays a link, and a file that is replaced hands on its permissions.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    try:
        remove_leftovers(folder)
        _replace(target, folder, content)
    except OSError as error:
        kept = " What was there is as it was." if os.path.exists(target) else ""
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
            file.close()  # Windows renames no open file; elsewhere the lock must last until the file has its name
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    finally:
        if file is not None:
            with contextlib.suppress(OSError):  # of what could not be written; that has been said by then
                file.close()


def _open_locked(path):
    """Create a file and lock it; again, if another process took it for a leftover in between."""
    while True:
        file = open(path, "xb")
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks, on which no leftover is ever removed
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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError if its writer lives
            os.remove(path)


def make_folder(path, owner):
    """Make a folder and those above it, where they are not there yet."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        reason = "there is a file of that name" if isinstance(error, FileExistsError) else error.strerror or error
        raise OSError(error.errno, f"{owner}: the folder {path} can't be made: {reason}.") from error


def _to_the_disk(folder):
    """Make the new name of a file outlast a crash of the machine, where the system knows how."""
    # The file is whole by now in any case, and folders can't be opened everywhere.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
