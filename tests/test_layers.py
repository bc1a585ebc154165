"""Imports point one way: app -> pages -> ui -> alexnet -> torch; and what is slow to import is imported late."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = {path.stem: path for path in sorted((PROJECT / "alexnet").glob("*.py"))}
PACKAGE |= {f"commands.{path.stem}": path for path in sorted((PROJECT / "alexnet/commands").glob("*.py"))}
PAGES = {path.stem: path for path in sorted((PROJECT / "pages").glob("*.py"))}
UI = {f"ui.{path.stem}": path for path in sorted((PROJECT / "ui").glob("*.py"))}
FRONT = {"app": PROJECT / "app.py", **UI, **PAGES}
SOURCES = [*PACKAGE.values(), *FRONT.values(), *PROJECT.glob("benchmarks/*.py")]

LIGHT = ["alexnet", *(f"alexnet.{name}" for name in ("errors", "recipes", "runs", "figures", "data", "images"))]
LIGHT += [f"alexnet.{name}" for name in ("downloads", "doodles", "turns", "folds", "maps", "__main__")]
LIGHT += [f"alexnet.{name}" for name in ("archives", "bundle", "duplicates", "film", "imports", "layout", "review")]
LIGHT += ["alexnet.published", "alexnet.schedules", "alexnet.series", "alexnet.sweep"]
LIGHT += [f"alexnet.{name}" for name in ("catalog", "compare", "notes", "significance", "trash")]
LIGHT += ["alexnet.measures", "alexnet.predictions", "alexnet.public"]

# Imports each module in turn and tells which heavy packages were there after it.
PROBE = """
import importlib, json, sys
heavy = ("torch", "torchvision", "captum", "wandb", "streamlit")
loaded = {}
for name in sys.argv[1:]:
    importlib.import_module(name)
    loaded[name] = [package for package in heavy if package in sys.modules]
print(json.dumps(loaded))
"""


def heavy_after_importing(*modules: str) -> dict[str, list[str]]:
    """The heavy packages that are loaded after each module, imported in this order in a fresh interpreter."""
    command = [sys.executable, "-c", PROBE, *modules]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def imported(path: Path, everywhere: bool = True) -> set[str]:
    """The dotted names that a file imports, anywhere or as soon as it is run; `from a import b` is `a` and `a.b`."""
    names, tree = set(), ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def importers(package: str) -> set[str]:
    return {path.relative_to(PROJECT).as_posix() for path in SOURCES if package in packages(path)}


def test_what_a_page_needs_before_a_network_imports_nothing_heavy():
    assert heavy_after_importing(*LIGHT) == {name: [] for name in LIGHT}


def test_networks_need_torch_and_none_of_the_other_heavy_packages():
    modules = [f"alexnet.{name}" for name in ("predict", "train", "evaluate", "worker", "export", "anatomy")]
    modules += ["alexnet.interchange", "alexnet.graph", "alexnet.proof"]
    loaded = heavy_after_importing(*modules, "alexnet.saliency")
    assert loaded == {**{name: ["torch"] for name in modules}, "alexnet.saliency": ["torch", "captum"]}


def test_the_public_names_are_all_there():
    import alexnet

    assert all(getattr(alexnet, name) is not None for name in alexnet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'resnet'"):
        _ = alexnet.resnet


def test_streamlit_is_in_the_app_only():
    """And the benchmark that visits the app speaks its protocol."""
    app = {path.relative_to(PROJECT).as_posix() for path in FRONT.values()}
    assert importers("streamlit") <= {*app, "benchmarks/visitor.py"}


def test_captum_and_wandb_are_imported_where_they_belong():
    """Attribution and its metrics have a module each; the benchmark is the plain call."""
    assert importers("captum") == {"alexnet/saliency.py", "alexnet/explain_score.py", "benchmarks/notebook.py"}
    assert importers("wandb") == {"alexnet/tracking.py"}


@pytest.mark.parametrize("name", PACKAGE)
def test_the_package_knows_nothing_of_the_pages(name):
    assert not packages(PACKAGE[name]) & {"app", "ui", "pages", *PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_pages_import_neither_each_other_nor_the_app(name):
    assert not packages(PAGES[name]) & {"app", "pages", *PAGES}


@pytest.mark.parametrize("name", FRONT)
def test_the_app_imports_torch_through_the_package_only(name):
    assert not packages(FRONT[name]) & {"torch", "torchvision", "captum", "wandb"}


@pytest.mark.parametrize("name", FRONT)
def test_a_page_is_drawn_before_anything_heavy_is_imported(name):
    modules = {n for n in imported(FRONT[name], everywhere=False) if n.removeprefix("alexnet.") in PACKAGE}
    assert modules <= set(LIGHT)


@pytest.mark.parametrize("name", UI)
def test_ui_imports_no_page(name):
    assert not packages(UI[name]) & {"app", "pages", *PAGES}
