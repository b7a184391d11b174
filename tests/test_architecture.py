"""The imports follow the layers; heavy packages load late. (Complexity is ruff's to cap, C901.)"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import course_utils

PACKAGE = Path(course_utils.__file__).parent

# A module imports from layers with a smaller number. A subpackage stands here under its own name.
LAYERS = {
    "_validation": -1,  # the ground under layer 0: everyone checks arguments
    "_notebook": -1,  # and whoever shows things asks where
    "reproducibility": 0,
    "plotting": 0,
    "datasets": 1,
    "preprocessing": 1,
    "init": 1,
    "layers": 1,
    "regularizers": 1,
    "losses": 1,
    "optim": 1,
    "schedules": 1,
    "monitoring": 1,
    "widgets": 1,
    "models": 2,
    "tabular": 2,
    "kan": 2,
    "training": 3,
    "estimators": 4,
    "evaluation": 5,
    "search": 5,
    "homework": 6,
    "claims": 6,
    "authoring": 7,
    "grading": 7,
    "cli": 8,
}
# The order inside a subpackage; its ``__init__`` (here "") re-exports. Homework modules are independent of each other.
INSIDE = {
    "datasets": {"idx": 0, "statlib": 0, "synthetic": 0, "loading": 1, "": 2},
    "monitoring": {"hooks": 0, "nonfinite": 1, "diagnosis": 2, "monitors": 2, "": 3},
    "kan": {
        "bsplines": 0, "library": 0, "layer": 1, "network": 2, "grid": 3, "levenberg_marquardt": 3, "pruning": 3,
        "formula": 3, "fitting": 4, "plots": 4, "symbolic": 5, "discovery": 6, "model": 7, "": 8,
    },
    "preprocessing": {"augmentation": 0, "cleaning": 0, "columns": 0, "": 1},
    "tabular": {"_layers": 0, "_inputs": 0, "networks": 1, "transformer": 1, "": 2},
    "estimators": {"_data": 0, "_members": 0, "_base": 1, "kan": 2, "networks": 2, "": 3},
    "evaluation": {"statistics": 0, "ranks": 0, "execution": 0, "validation": 1, "results": 1, "comparison": 2, "": 3},
    "authoring": {"targets": 0, "kernel": 0, "solutions": 0, "build": 1, "address": 2, "": 3},
    "grading": {"repair": 0, "report": 0, "releasing": 1, "execution": 1, "scoring": 2, "batch": 3, "": 4},
    "training": {
        "history": 0, "batches": 0, "checkpoints": 0, "nonfinite": 1, "callbacks": 1, "measuring": 1, "tracked": 0,
        "tracking": 2,
        "loop": 2, "": 3,
    },
}  # fmt: skip
# Edges inside a layer that are meant.
SIBLINGS = {
    ("tabular", "models"),
    ("grading", "authoring"),  # the release is made from what the build publishes
}
# Imported inside the function that uses them, so that importing a module of ours stays cheap.
HEAVY = {
    "IPython", "dask", "distributed", "ipykernel", "ipywidgets", "jupyter_client", "jupytext", "lightgbm",
    "livelossplot", "nbclient", "nbformat", "nbgrader", "optuna", "sympy", "tensorboard", "torchviz", "traitlets",
    "wandb", "xgboost",
}  # fmt: skip


def package_sources() -> dict[str, str]:
    """Module name below the package (``"kan.layer"``, ``"kan"`` for its ``__init__``) -> text."""
    sources = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        sources[".".join(part for part in parts if part != "__init__")] = path.read_text(encoding="utf-8")
    return sources


def imports(module: str, tree: ast.AST, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported anywhere in the module.

    ``from course_utils import optim`` counts as an import of ``course_utils.optim``.
    """
    package = ["course_utils", *module.split(".")]
    if not any(other.startswith(f"{module}.") for other in modules):
        package.pop()  # a plain module's relative imports start at the package that contains it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                yield node.lineno, whole if whole in {f"course_utils.{other}" for other in modules} else origin


def module_level(node: ast.AST) -> Iterator[ast.AST]:
    """What runs on import: not the bodies of functions, nor what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from module_level(child)


def has_layer(module: str) -> bool:
    top, _, inner = module.partition(".")
    return top in LAYERS and (top not in INSIDE or inner in INSIDE[top])


def edge_is_allowed(importer: str, imported: str) -> bool:
    (top, _, inner), (other_top, _, other_inner) = importer.partition("."), imported.partition(".")
    if top != other_top:
        return LAYERS[other_top] < LAYERS[top] or (top, other_top) in SIBLINGS
    if top in INSIDE:
        return INSIDE[top][other_inner] < INSIDE[top][inner]
    # Homework modules share the engine and nothing else.
    if inner.startswith("engine"):
        return other_inner.startswith("engine")
    return inner == "" or other_inner.startswith(("_", "engine"))


def complaints(sources: dict[str, str]) -> list[str]:
    """Everything in these modules that breaks the architecture, one line each."""
    found = []
    for module, text in sources.items():
        if module and not has_layer(module):
            found.append(f"{module}: give it a layer (in the design's table and in this test)")
            continue
        tree = ast.parse(text)
        for line, name in imports(module, tree, set(sources)):
            own = name.removeprefix("course_utils.")
            if name.startswith("course_utils.") and not has_layer(own):
                found.append(f"{module}:{line} imports {name}, which has no layer")
            elif name.startswith("course_utils.") and module and not edge_is_allowed(module, own):
                found.append(f"{module}:{line} may not import {own}: imports go down the layers, not up or sideways")
        on_import = [node for node in module_level(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        for line, name in imports(module, ast.Module([*on_import], []), set(sources)):
            if name.partition(".")[0] in HEAVY:
                found.append(f"{module}:{line} imports {name} at module level; import it in the function that uses it")
    if not is_docstring_and_version(sources.get("", "")):
        found.append("__init__: it holds its docstring and __version__, nothing else")
    return found


def is_docstring_and_version(text: str) -> bool:
    match ast.parse(text).body:
        case [ast.Expr(ast.Constant(str())), ast.Assign([ast.Name("__version__")], ast.Constant(str()))]:
            return True
    return False


def test_package_follows_the_architecture() -> None:
    assert complaints(package_sources()) == []


def test_package_sources_are_found() -> None:
    assert {"", "_validation", "reproducibility", "authoring.build", "cli"} <= set(package_sources())


GOOD_INIT = '"""Doc."""\n\n__version__ = "1"\n'


@pytest.mark.parametrize(
    ("module", "text", "expected"),
    [
        ("layers", "from course_utils.training import fit", "layers:1 may not import training"),
        ("optim", "import course_utils.layers", "optim:1 may not import layers"),
        ("models", "def f():\n    from course_utils import tabular", "models:2 may not import tabular"),
        ("models", "from .training import fit", "models:1 may not import training"),
        ("models", "from . import training", "models:1 may not import training"),
        ("training", "import course_utils.claims as c", "training:1 may not import claims"),
        ("claims", "from course_utils.authoring.build import build", "claims:1 may not import authoring.build"),
        ("authoring", "from course_utils.cli import main", "authoring:1 may not import cli"),
        ("evaluation", "from course_utils.search import tune", "evaluation:1 may not import search"),
        ("kan.layer", "from course_utils.kan.network import KAN", "kan.layer:1 may not import kan.network"),
        ("kan.grid", "from . import pruning", "kan.grid:1 may not import kan.pruning"),
        ("kan.layer", "from ..training import fit", "kan.layer:1 may not import training"),
        ("training.batches", "from .loop import fit", "training.batches:1 may not import training.loop"),
        ("training.loop", "from course_utils.training import History", "training.loop:1 may not import training"),
        (
            "monitoring.diagnosis",
            "from .monitors import GradientMonitor",
            "monitoring.diagnosis:1 may not import monitoring.monitors",
        ),
        ("kan.layer", "from course_utils.kan import KAN", "kan.layer:1 may not import kan"),
        ("homework.a", "from course_utils.homework.b import check", "homework.a:1 may not import homework.b"),
        ("models", "from course_utils.helpers import x", "models:1 imports course_utils.helpers, which has no layer"),
        ("helpers", "x = 1", "helpers: give it a layer"),
        ("kan.extras", "x = 1", "kan.extras: give it a layer"),
        ("search", "import optuna", "search:1 imports optuna at module level"),
        ("claims", "try:\n    from IPython.display import display\nexcept ImportError:\n    pass", "claims:2 imports"),
        ("monitoring", "class A:\n    import tensorboard.x", "monitoring:2 imports tensorboard.x at module level"),
        ("", GOOD_INIT + "from course_utils.optim import Adam\n", "__init__: it holds"),
    ],
)
def test_checker_finds_a_violation(module: str, text: str, expected: str) -> None:
    others = {
        "monitoring.monitors": "",
        "training": "",
        "training.loop": "",
        "tabular": "",
        "kan.network": "",
        "kan.pruning": "",
        "kan": "",
        "homework.b": "",
    }
    (found,) = complaints({"": GOOD_INIT, **others, module: text})

    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("training", "from course_utils.models import MLP\nfrom course_utils._validation import check_int"),
        ("search", "from course_utils.training import fit\ndef f():\n    import optuna"),
        ("claims", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import IPython"),
        ("cli", "from course_utils.authoring.build import build\nfrom course_utils.claims import MIME_TYPE"),
        ("kan.network", "from .layer import KANLayer\nfrom course_utils.init import init_weights"),
        ("kan", "from course_utils.kan.network import KAN"),
        ("init", "from kan import network  # another project's kan"),
        ("homework.a", "from course_utils.homework._checks import close"),
        ("reproducibility", "from course_utils import __version__\nfrom course_utils._validation import check_int"),
    ],
)
def test_checker_accepts_what_is_meant(module: str, text: str) -> None:
    others = {"kan.network": "", "kan.layer": "", "homework._checks": ""}

    assert complaints({"": GOOD_INIT, **others, module: text}) == []


def test_the_drawing_shows_every_module() -> None:
    drawing = (PACKAGE.parent / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert {name for name in LAYERS if f">{name}<" not in drawing and f">{name}/<" not in drawing} == set()
