"""Where what stands: each file uses only what is on its own storey or below, and no two files import each other."""

import ast
from pathlib import Path

import cnnlite

PACKAGE = Path(cnnlite.__file__).parent
# From the ground up. A folder stands for all files in it; a file that has no line of its own goes with its folder.
STOREYS = [
    ["types", "_version", "support", "eager", "config", "random"],
    ["engine"],
    ["kernels", "reference"],
    ["data", "datasets"],
    ["fusion", "activations", "initializers", "regularizers", "layers"],
    ["schedules", "losses", "metrics", "optimizers", "nonfinite"],
    ["files"],
    ["callbacks"],
    ["model"],
    ["saving", "sequential", "models", "utils", "backend", "gradcheck", "warmup", "__init__"],
]
# Within a storey.
ABOVE_IN_KERNELS = ["llvm", "product", "convolution"]


def modules():
    """Return {dotted name without "cnnlite.": path}."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def imported_by(path):
    """Return the modules that a file imports, wherever it does, but for those that only a checker of types reads."""
    found, nodes = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cnnlite":
            module = node.module.removeprefix("cnnlite").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix(".")
                found.add(inner if inner in MODULES else module or "__init__")
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("cnnlite.") for alias in node.names if alias.name.startswith("cnnlite.")}
    return found


IMPORTS = {name: imported_by(path) - {name} for name, path in MODULES.items()}


def storey_of(name):
    folder = name.split(".")[0]
    return next(number for number, storey in enumerate(STOREYS) if folder in storey)


def test_every_file_has_a_storey_and_no_arrow_points_upward():
    upward = {(name, other) for name, others in IMPORTS.items() for other in others
              if storey_of(other) > storey_of(name)}
    assert not upward


def test_within_the_kernels_vector_code_is_below_products_and_these_below_convolutions():
    def rank(name):
        parts = name.split(".")
        return ABOVE_IN_KERNELS.index(parts[1]) if parts[0] == "kernels" and len(parts) == 3 else None

    upward = {(name, other) for name, others in IMPORTS.items() for other in others
              if rank(name) is not None and rank(other) is not None and rank(other) > rank(name)}
    assert not upward


def test_no_files_import_each_other_in_a_circle():
    unfinished = {name: set(others) for name, others in IMPORTS.items()}
    while True:
        free = {name for name, others in unfinished.items() if not others & unfinished.keys()}
        if not free:
            break
        for name in free:
            del unfinished[name]
    assert not unfinished


def test_few_modules_lie_on_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 22
