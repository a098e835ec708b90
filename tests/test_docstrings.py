"""Whatever a user can reach says what it does; and the guide to the kernels names each of them."""

import inspect
from pathlib import Path

import pytest

import cnnlite
from cnnlite.datasets import mnist

KERNELS = Path(cnnlite.__file__).parent / "kernels"
MODULES = [cnnlite, mnist, *(getattr(cnnlite, name) for name in cnnlite.__all__ if inspect.ismodule(
    getattr(cnnlite, name)))]


def public(module):
    """Return the classes and functions of a module that are there for users."""
    names = getattr(module, "__all__", None) or [
        name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    things = [getattr(module, name) for name in names if not name.startswith("_")]
    return [thing for thing in things if inspect.isclass(thing) or inspect.isfunction(thing)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_class_function_and_method_has_a_docstring(module):
    for thing in public(module):
        assert thing.__doc__, thing
        members = vars(thing) if inspect.isclass(thing) else {}
        for name, member in members.items():
            if not name.startswith("_") and (callable(member) or isinstance(member, (property, classmethod))):
                assert inspect.getdoc(getattr(thing, name)), f"{thing.__name__}.{name}"


def test_the_guide_to_the_kernels_names_every_file_and_no_other():
    guide = (KERNELS / "README.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1] for row in guide.splitlines() if row.startswith("| `")]
    named = [name.strip("` ") for row in rows for name in row.split(",")]
    files = {path.relative_to(KERNELS).as_posix() for path in KERNELS.rglob("*.py")}
    files -= {"llvm/__init__.py", "product/__init__.py", "convolution/__init__.py"}
    assert sorted(name for name in named if not name.startswith("../")) == sorted(files)
    assert all((KERNELS / name).exists() for name in named)
