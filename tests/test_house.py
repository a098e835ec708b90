"""Where what stands: each file uses only what is on its own storey or below, and no two files import each other."""

import ast
import re
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


# Public signatures that mirror Keras's, and the address arithmetic of the micro-kernels.
MANY_PARAMETERS = {
    "model/training.py fit", "layers/batchnorm.py __init__", "layers/conv2d.py __init__",
    "layers/depthwise_conv2d.py __init__",
    "kernels/product/microkernel.py block", "kernels/product/microkernel.py call_block",
    "kernels/product/microkernel.py _tile",
    "kernels/product/microkernel.py _block_again", "kernels/product/matmul.py product_block",
    "kernels/convolution/depthwise_tile.py _tile", "kernels/convolution/depthwise_tile.py depthwise_block",
    "kernels/convolution/winograd_transforms.py _transform", "kernels/convolution/winograd_transforms.py transform",
    "kernels/convolution/winograd_transforms.py call_transform",
}
MOST_PARAMETERS = 10


def test_no_function_has_more_than_ten_positional_parameters():
    many = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
                if len(names) - (names[:1] in (["self"], ["cls"])) > MOST_PARAMETERS:
                    name = getattr(node, "name", "lambda")
                    many.add(f"{path.relative_to(PACKAGE).as_posix()} {name}")
    assert many == MANY_PARAMETERS


# The page that leads through the code.

GUIDE = (PACKAGE / "README.md").read_text(encoding="utf-8")
MOST_LINES = 1500  # of the first walk: an afternoon
TOLERANCE = 0.1  # of a number of lines that the page gives


def rows_of(page):
    """Return the cells of all rows of tables that begin with the name of a file."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()
            if line.startswith("| `")]
    return [[cells[0].strip("`"), *cells[1:]] for cells in rows]


def spans_of(path):
    """Return the numbers of lines of the functions and classes of a file, by their qualified names."""
    spans, nodes = {}, [("", ast.parse(path.read_text(encoding="utf-8")))]
    while nodes:
        prefix, node = nodes.pop()
        for inner in node.body:
            if isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
                first = min([inner.lineno, *(decorator.lineno for decorator in inner.decorator_list)])
                spans[prefix + inner.name] = inner.end_lineno - first + 1
                if isinstance(inner, ast.ClassDef):
                    nodes.append((f"{prefix}{inner.name}.", inner))
    return spans


def test_the_map_has_a_line_for_every_file_and_no_other():
    named = [cells[0] for cells in rows_of(GUIDE.split("## Every file")[1])]
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    # kernels/README.md names these, see test_docstrings.py.
    assert sorted(named) == sorted(name for name in files if name.split("/")[0] not in ("engine", "kernels"))


def test_the_walks_name_what_is_there_and_how_long_it_is():
    walks = GUIDE.split("## Three walks")[1].split("## Every file")[0].split("\n### ")[1:]
    assert len(walks) == 3
    for number, walk in enumerate(walks):
        total = 0
        for name, what, lines, _ in rows_of(walk):
            path, functions = PACKAGE / name, re.findall(r"`([\w.]+)`", what)
            spans = spans_of(path)
            actual = (sum(spans[function] for function in functions) if functions
                      else len(path.read_text(encoding="utf-8").splitlines()))
            assert abs(actual - int(lines)) <= max(3, TOLERANCE * actual), f"{name} has {actual} lines now"
            total += int(lines)
        assert f"**{total}**" in walk
        assert number > 0 or total <= MOST_LINES
