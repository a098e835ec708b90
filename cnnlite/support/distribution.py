"""The library's name on PyPI, and how to install its optional dependencies."""

from pathlib import Path

NAME = "cnnlite-numba"  # "cnnlite" on PyPI is another project, a news reader


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra of setup.cfg ("plot")."""
    root = Path(__file__).parent.parent.parent
    if not (root / "setup.cfg").is_file():
        return f'pip install "{NAME}[{extra}]"'
    return f'pip install -e ".[{extra}]"' + ("" if Path.cwd() == root else f" (in {root})")
