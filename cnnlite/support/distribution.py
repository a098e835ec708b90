"""How the library is called where packages are installed from, and how to install what it can do without."""

from pathlib import Path

NAME = "cnnlite-numba"  # "cnnlite" belongs to another project on PyPI, a reader of news


def how_to_install(extra: str) -> str:
    """Return the command that brings in what an extra of setup.cfg names ("plot")."""
    root = Path(__file__).parent.parent.parent
    if not (root / "setup.cfg").is_file():
        return f'pip install "{NAME}[{extra}]"'
    return f'pip install -e ".[{extra}]"' + ("" if Path.cwd() == root else f" (in {root})")
