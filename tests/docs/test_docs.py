"""The README and docs/ are run: every Python block, in order, in an empty folder; shell blocks that call Python; links between pages.

A block that begins with ``# file: NAME`` is written to that file. Blocks of a page share their names, as in a session. Doctests of the
package run here too.
"""

import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tenfold
import tenfold.layers
from tenfold.files import read_header

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SESSIONS = [  # they begin with nothing, and assert what they say
    ROOT / "docs" / f"{name}.md" for name in ("automatic_ranks", "embeddings", "formats", "initialisation", "recommendation")
]
FILE = re.compile(r"# file: (\S+)\n")
FORMAT_LIMIT = 60  # lines that a new format may take
MODULES = [name for _, name, _ in pkgutil.walk_packages(tenfold.__path__, "tenfold.") if not name.startswith(("tenfold.cli", "tenfold.__"))]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, from which modules can be imported; the package's own folders and modules come back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tenfold.layers, "__path__", list(tenfold.layers.__path__))
    before = set(sys.modules)
    torch.manual_seed(0)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (file := getattr(sys.modules[name], "__file__", None)) is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def write_file(code: str) -> None:
    """Writes a block to the file that its first line names."""
    file = FILE.match(code)
    assert file is not None
    Path(file[1]).parent.mkdir(exist_ok=True)
    Path(file[1]).write_text(code[file.end() :], encoding="utf-8")
    importlib.invalidate_caches()


def run_page(page: Path, names: dict[str, Any]) -> int:
    """Runs the blocks of a page in the current folder; returns how many there were."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    for number, (language, code) in enumerate(blocks, 1):
        if FILE.match(code):
            write_file(code)
        elif language == "python":
            exec(compile(code, f"{page.name}, block {number}", "exec"), names)
        elif language == "sh" and code.startswith("python -m tenfold"):
            subprocess.run([sys.executable, *shlex.split(code)[1:]], check=True)
    return len(blocks)


def test_readme(workplace: Path) -> None:
    from tenfold.demo import digits_network, digits_test, digits_train

    names = {
        "build_model": digits_network,
        "model": digits_network(),
        "train_data": digits_train(),
        "test_data": digits_test(),
        "example": digits_test().tensors[0][:16],
    }
    run_page(ROOT / "README.md", names)
    x, small, again = names["example"], names["small"], names["again"]
    torch.testing.assert_close(small.eval()(x), again.eval()(x), rtol=0, atol=0)
    assert sum(p.numel() for p in small.parameters()) <= 0.25 * sum(p.numel() for p in names["model"].parameters())
    assert Path("out/report.html").is_file()


def commands(page: Path) -> list[list[str]]:
    """The commands `tenfold ...` in the shell blocks of a page, as words."""
    lines = [line for language, code in BLOCK.findall(page.read_text(encoding="utf-8")) if language == "sh" for line in code.splitlines()]
    words = [shlex.split(line.replace("python -m tenfold", "tenfold").rpartition("&& .venv/bin/")[2]) for line in lines]
    return [one for one in words if one[:1] == ["tenfold"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_pages_give_them(page: Path) -> None:
    from tenfold.cli.app import make_app

    for words in commands(page):
        make_app().parse_args(words[1:], exit_on_error=False, print_error=False)


def test_commands_are_found_and_a_wrong_one_fails() -> None:
    from cyclopts import CycloptsError

    from tenfold.cli.app import make_app

    found = [words[1] for words in commands(ROOT / "README.md")]
    assert found.count("compress") == 2 and "demo" in found
    with pytest.raises(CycloptsError, match="--no-such-option"):
        make_app().parse_args(["demo", "--no-such-option"], exit_on_error=False, print_error=False)


@pytest.mark.filterwarnings("ignore:als for .* did not converge")
def test_a_format_is_one_short_file_and_works_in_every_layer(workplace: Path) -> None:
    names: dict[str, Any] = {}
    run_page(ROOT / "docs" / "add_a_format.md", names)
    assert Path("ring.py").read_text().count("\n") <= FORMAT_LIMIT
    kind = names["Ring"]
    for name, layer in tenfold.layers.all_layers().items():
        dense: Any = layer.dense_type
        made = layer.from_dense(dense(12, 8, 3) if "Conv" in name else dense(12, 8), kind(rank=2), sweeps=5)
        statement = made.factorized.network.statement
        assert statement.startswith("r1 ") and " r1 ->" in statement, f"{name} has {statement}"
        assert made.weight.shape == made.to_dense().weight.shape
    Path("ring.py").unlink()
    code = "import sys, tenfold, torch; m = torch.load('model.pt', weights_only=False); tenfold.load('small.safetensors', m)"
    torch.save(names["model"], "model.pt")
    subprocess.run([sys.executable, "-c", f"{code}; assert 'ring' not in sys.modules"], check=True)


def test_a_layer_is_one_file(workplace: Path) -> None:
    names: dict[str, Any] = {}
    run_page(ROOT / "docs" / "add_a_layer.md", names)
    assert any(type(module).__module__ == "tenfold.layers.projection" for module in names["small"].modules())
    dense = names["model"][0]
    for format in (tenfold.SVD(rank=4), tenfold.CP(rank=4), tenfold.TT(rank=4), tenfold.TTM(rank=4), tenfold.Tucker(rank=4)):
        layer = tenfold.layers.all_layers()["Projection"].from_dense(dense, format)
        x = torch.randn(2, 64)
        torch.testing.assert_close(layer(x), x @ layer.weight + dense.bias)


CONFORMANCE = """
import sys, pytest, tenfold.formats, tenfold.layers
tests, *paths = sys.argv[1:]
sys.path[:0] = [".", tests]
tenfold.formats.__path__.append("formats")
tenfold.layers.__path__.append("layers")

class Only:
    def pytest_collection_modifyitems(self, items):
        items[:] = [one for one in items if {"ring", "Projection"} & set(one.name.rpartition("[")[2].rstrip("]").split("-"))]

sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-n", "0", "--rootdir", tests, *paths], plugins=[Only()]))
"""


def test_new_formats_and_layers_pass_the_conformance_suite(workplace: Path) -> None:
    for page in ("add_a_format.md", "add_a_layer.md"):
        for _, code in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
            if FILE.match(code):
                write_file(code)
    Path("formats").mkdir()
    Path("ring.py").rename("formats/ring.py")
    tests = ROOT / "tests"
    paths = [str(tests / "conformance" / name) for name in ("test_formats.py", "test_layers.py")]
    run = subprocess.run([sys.executable, "-c", CONFORMANCE, str(tests), *paths], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert int(re.findall(r"(\d+) passed", run.stdout)[0]) > 2 * len(tenfold.layers.all_layers())


@pytest.mark.parametrize("page", SESSIONS, ids=lambda page: page.name)
def test_a_page_that_needs_nothing(page: Path, workplace: Path) -> None:
    assert run_page(page, {}) > 1


def test_the_file_format(workplace: Path) -> None:
    def build_model() -> nn.Module:
        return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Embedding(30, 8), nn.Linear(27, 12), nn.Conv1d(6, 4, 3), nn.LSTM(12, 8))

    sum_of_two = tenfold.KT(rank=2, groups=((2, 1), (1, 2)))
    formats = {
        "3": sum_of_two,
        "4": tenfold.STTu(rank=2),
        "0": tenfold.TTM(rank=2),
        "2": tenfold.HT(rank=2),
        "5.ih_l0": tenfold.SVD(rank=2),
    }
    small: Any = tenfold.compress(build_model(), formats)
    assert " + " in small[3].factorized.network.statement
    names: dict[str, Any] = {"build_model": build_model, "small": small}
    run_page(ROOT / "docs" / "file_format.md", names)
    for name in formats:
        torch.testing.assert_close(names["dense_weight"]("small.safetensors", name), small.get_submodule(name).weight.detach())
    tenfold.save(small, "planned.safetensors", plan=tenfold.plan(build_model(), tenfold.SVD(rank=2)))
    keys = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "file_format.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(read_header("planned.safetensors").metadata) == set(keys)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_with_python_has_a_test_that_runs_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert text.count("```") == 2 * len(blocks), "a block that is not closed, or names no language"
    if any(language == "python" for language, _ in blocks):
        assert page.name in {"README.md", "add_a_format.md", "add_a_layer.md", "file_format.md", *(one.name for one in SESSIONS)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert not [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("folder", ["bayes", "contract", "data", "recurrent", "report", "solvers"])
def test_the_map_of_a_folder_has_all_its_files_and_no_other(folder: str) -> None:
    """Folders of one file for each format, layer, command or recipe need none."""
    text = importlib.import_module(f"tenfold.{folder}").__doc__ or ""
    files = {path.name for path in (ROOT / "src" / "tenfold" / folder).glob("*.py")} - {"__init__.py"}
    assert not set(re.findall(r"\w+\.py\b", text)) - files, "a file that is not there"
    assert not [name for name in files if not re.search(rf"\b{name[:-3]}\b", text)], "a file that the map leaves out"


MISSING = """
import operator, sys, tenfold
for name in sys.argv[1:]:
    try:
        operator.attrgetter(name.removeprefix("tenfold."))(tenfold)
    except AttributeError:
        print(name)
"""


def test_names_that_pages_give_are_there_after_the_import() -> None:
    """Modules may have to be imported by their names; what is in those is given with its import."""
    texts = [BLOCK.sub("", page.read_text(encoding="utf-8")) for page in PAGES if not page.name.startswith("add_a_")]
    spans = [span for text in texts for span in re.findall(r"`([^`\n]+)`", text) if "import" not in span]
    names = sorted({name for span in spans for name in re.findall(r"\btenfold(?:\.\w+)+", span)})
    assert "tenfold.diagnosis.diagnose" in names
    run = subprocess.run([sys.executable, "-c", MISSING, *names], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) - set(MODULES)


def test_paths_in_the_architecture_exist() -> None:
    """What the page says lives somewhere lives there."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listing = re.findall(r"^    (\w[\w/]*(?:\.py|/)) ", text, re.MULTILINE)
    assert len(listing) > 20
    assert not [name for name in listing if not (ROOT / "src" / "tenfold" / name).exists()]
    here = {path.name for path in (ROOT / "src" / "tenfold").glob("*.py")} - {"__main__.py"}
    assert not here - {name for name in listing if "/" not in name}, "a file of the package that the page does not mention"


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
