"""What is installed, and what the documents say about it."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "experiments/**/*.md", "colabs/*.md")
    for path in ROOT.glob(pattern)
)


def test_a_wheel_holds_the_library_alone(tmp_path):
    """`configs` and `experiments` are too common as names to be installed."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("perceiver_jax", "configs", "experiments", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, f"--wheel-dir={tmp_path}", str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    assert {name.parts[0] for name in names} == {"perceiver_jax", "perceiver_jax-0.1.0.dist-info"}
    installed = {name for name in names if name.suffix == ".py"}
    assert installed == {path.relative_to(ROOT) for path in ROOT.glob("perceiver_jax/**/*.py")}
    assert any(name.name == "LICENSE" for name in names)


def test_library_names_in_the_version_of_the_citation():
    version = re.search(r'version="(.*?)"', (ROOT / "setup.py").read_text())[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_documents_name_what_exists(document):
    """Links, anchors, files, commands, configs and their variants."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]*)\)", text):
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), f"{document} links to {link}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{document} links to {link}, whose headings are {slugs}"
    for module in re.findall(r"python3? -m (experiments[\w.]*)", text):
        assert importlib.util.find_spec(module.rstrip(".")), f"{document} runs {module}"
    for name, variant in re.findall(r"--config=(configs/\w+\.py)(?::(\w+))?", text):
        assert (ROOT / name).exists(), f"{document} uses {name}"
        words = {
            node.value
            for node in ast.walk(ast.parse((ROOT / name).read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not variant or variant in words, f"{document} uses {name}:{variant}"


def test_commands_install_the_checkout():
    """By its name alone, pip would fetch another package from the index."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listing.stdout.split() or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*.*")]
    kinds = {".py", ".md", ".ipynb", ".sh", ".toml", ".yml", ".yaml"}
    texts = [ROOT / name for name in names if Path(name).suffix in kinds]
    by_name = re.compile(r"pip\w* install [^\n]*\bperceiver[_-]jax(?:\[|\b(?!_checkout|/))")
    this = Path(__file__).resolve()
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts
        if path.is_file() and path.resolve() != this
        for match in by_name.finditer(path.read_text(encoding="utf-8"))
    ]
    assert len(texts) > 100 and not found
