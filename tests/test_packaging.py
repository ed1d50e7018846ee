"""What the package promises as a package: names and sizes of files, what its import brings in, and its version."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tenfold

PACKAGE = Path(tenfold.__file__).parent
ROOT = Path(__file__).parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))
FILE_LIMIT, FUNCTION_LIMIT = 300, 60  # lines; a function's docstring is not counted
HARD = {"torch", "numpy", "opt_einsum", "safetensors", "typing_extensions", "tomli"}
OPTIONAL = (
    "av",
    "cyclopts",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "PIL",
    "rich",
    "sklearn",
    "timm",
    "torchvision",
    "transformers",
)


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_every_file_is_one_idea(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "helper", "misc", "common"}, "name the file after what it holds"
    text = path.read_text(encoding="utf-8")
    n_lines = text.count("\n")
    assert n_lines <= FILE_LIMIT, f"{n_lines} lines; the limit is {FILE_LIMIT}: split the file by ideas"
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or not tree.body, "a file begins by saying what it holds"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= FUNCTION_LIMIT, f"{node.name} has {length} lines; the limit is {FUNCTION_LIMIT}"


@pytest.mark.parametrize("path", [path for path in SOURCES if PACKAGE / "cli" not in path.parents], ids=named)
def test_modules_import_hard_dependencies_only(path: Path) -> None:
    found = set()
    for node in _statements_of_module(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            found.add((node.module or "").partition(".")[0])
    assert found - {"tenfold", *sys.stdlib_module_names, "tomllib"} <= HARD


def _statements_of_module(tree: ast.AST) -> list[ast.stmt]:
    """All statements that run at import; those inside functions do not."""
    found: list[ast.stmt] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt):
            found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += _statements_of_module(node)
    return found


def test_import_brings_in_no_optional_package_and_no_compiler() -> None:
    code = "import torch, sys; before = set(sys.modules); import tenfold, tenfold.nn; print(*(set(sys.modules) - before))"
    added = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    roots = {name.partition(".")[0] for name in added}
    assert "tenfold" in roots
    assert not roots & set(OPTIONAL)
    assert "torch._dynamo" not in added, "importing it takes seconds"


def test_the_version_has_one_source() -> None:
    assert importlib.metadata.version("tenfold") == tenfold.__version__
    assert not re.search(r"^version\s*=", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"## [{tenfold.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_licence_and_the_type_marker_are_there() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert importlib.metadata.metadata("tenfold")["License-Expression"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_pages_that_sources_name_are_here(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "../" not in text, "a wheel stands alone: no source names a folder beside the repository"
    pages = set(re.findall(r"[\w/]+\.md\b", text))
    assert not [page for page in pages if not ((ROOT / page).is_file() or (ROOT / "docs" / page).is_file())]
