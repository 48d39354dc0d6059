"""The lab's report says what its tables say, and what they lack."""

import html.parser
import json
import re

import lab_rows
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.lab import figures, report, rows
from experiments.lab.panels import panels
from perceiver_jax.plots import page

EXPECTED = [("sea", r["cell"], r["seed"]) for r in lab_rows.sea()]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report with a missing seed, a diverged one, a missing cell and rows of another commit."""
    folder = tmp_path_factory.mktemp("lab")
    found = lab_rows.sea()
    for r in found:
        if r["cell"] == "stem.colour.rho95" and r["seed"] == 3:
            r["status"], r["accuracy_conflict"], r["gap"] = "diverged", None, None
    gone = [r for r in found if (r["cell"], r["seed"]) == ("vit.colour.rho99", 2)]
    gone += [r for r in found if r["cell"] == "pixels.texture.rho90"]
    other = lab_rows.row("sea", "stem.colour.rho95", 9, model="stem", cue="colour", rho=0.95,
                         commit="bad", accuracy_conflict=0.777)  # fmt: skip
    kept = [r for r in found if r not in gone]
    lab_rows.write(folder, [*kept, other, *lab_rows.conv(seeds=2)])
    chosen = {"rule": "the best of two", "sea": {"stem": {"chosen": 0.002}}}
    (folder / "tuning.json").write_text(json.dumps(chosen))
    paths = report.write(folder, EXPECTED)
    return {path.name: path for path in paths}


def test_files(written):
    assert set(written) == {
        "lab.md", "lab.html", "lab_sea.png", "lab_sea.pdf", "lab_conv.png", "lab_conv.pdf",
        "stimuli_sea.png", "stimuli_sea.pdf",
    }  # fmt: skip
    assert written["lab_sea.pdf"].read_bytes().startswith(b"%PDF")
    assert written["lab_sea.png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["lab.md", "lab.html"])
def test_what_is_missing_or_diverged_is_named(written, name):
    text = written[name].read_text()
    assert re.search(r"Missing: .*vit\.colour\.rho99 \(seed 2\)", text)
    assert re.search(r"Missing: .*pixels\.texture\.rho90 \(seeds 0, 1, 2, 3, 4\)", text)
    assert "Diverged: stem.colour.rho95 (seed 3)." in text
    assert "stem.colour.rho95, seed 3: diverged" in text
    assert "not run" in text
    assert "Learning rates: the best of two. sea: stem 0.002." in text


def line_of(text, cell):
    (line,) = [x for x in text.splitlines() if x.startswith(f"| {cell} |")]
    return line


def test_rows_of_another_commit_are_listed_apart_and_enter_no_number(written):
    text = written["lab.md"].read_text()
    before, after = text.split(report.APART)
    assert "77.7" not in before
    assert "| bad | stem.colour.rho95 | stem.colour.rho95 | 9 | 77.7 |" in after
    study = rows.studies(rows.read(written["lab.md"].parent / "lab_sea.csv"))[0]
    assert [r["seed"] for r in study.apart] == [9]
    assert study.seeds == [0, 1, 2, 3, 4]


def test_rows_of_another_config_of_a_cell_are_apart():
    found = lab_rows.sea()
    odd = next(r for r in found if r["cell"] == "stem.colour.rho95" and r["seed"] == 2)
    odd["config_hash"] = "other"
    (study,) = rows.studies(found)
    assert study.apart == [odd]
    assert study.of_cell("gap", "stem.colour.rho95").missing == (
        "stem.colour.rho95, seed 2: not run",
    )


def test_cells_have_intervals_gates_and_controls_in_their_row(written):
    text = written["lab.md"].read_text()
    line = line_of(text, "resnet.colour.rho95")
    assert re.search(r"\d+\.\d ± \d+\.\d", line)
    assert "✓ 100.0" in line, "the gate"
    assert "✓ cue learnable 99.0" in line
    alone = line_of(text, "pixels.base.500")
    assert "±" not in alone, "two seeds have values and no interval"
    assert re.search(r"\| 34\.8, 35\.0 \|", alone)


def test_claims_have_evidence_and_controls_in_one_row(written):
    text = written["lab.md"].read_text()
    (line,) = [x for x in text.splitlines() if x.startswith("| sea.colour.resnet<br>")]
    assert "| holds |" in line
    assert "bound above 10.0" in line
    assert line.count("✓") == 6


class Reader(html.parser.HTMLParser):
    """Notes what a page would fetch, and whether its elements close."""

    def __init__(self):
        super().__init__()
        self.sources, self.open, self.ids, self.links = [], [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.sources += [found[name] for name in ("src", "href") if name in found]
        self.ids.append(found.get("id"))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_holds_all_that_it_shows(written):
    text = written["lab.html"].read_text()
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    for source in reader.sources:
        assert source.startswith("data:image/") or source.removeprefix("#") in reader.ids
    assert sum(s.startswith("data:image/svg") for s in reader.sources) == 2 + 4
    assert sum(s.startswith("data:image/png") for s in reader.sources) == 10, "stimuli"
    plots = re.findall(r'<figure class="plot">.*?</figure>', text, re.S)
    assert all("Controls that pass" in plot for plot in plots)


def test_the_same_figure_gives_the_same_bytes():
    (panel, _) = panels(rows.studies(lab_rows.sea(seeds=1, models=["stem"]))[0])
    for kind in ("svg", "pdf"):
        first, second = (page.render(figures.single(panel), kind) for _ in range(2))
        assert first == second


def test_nothing_to_report(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the lab without --report first"):
        report.write(tmp_path)
    found = report.write(tmp_path, EXPECTED[:2])
    assert "Missing: pixels.uncorrelated (seed 0)" in found[0].read_text()


def test_tables_of_several_workdirs_are_put_together_by_copying(tmp_path):
    found = [r for r in lab_rows.sea(seeds=2, models=["stem"]) if r["cell"] == "stem.uncorrelated"]
    for row, name, rate in zip(found, ("lab_sea_2", "lab_sea"), (0.004, 0.002), strict=True):
        lab_rows.write(tmp_path, [row])
        (tmp_path / "lab_sea.csv").rename(tmp_path / f"{name}.csv")
        chosen = {"rule": "the best", f"of_{name}": {"stem": {"chosen": rate}}}
        (tmp_path / f"{name}_tuning.json").write_text(json.dumps(chosen))
    text = report.write(tmp_path)[0].read_text()
    assert re.search(r"\| stem\.uncorrelated \|.*\| 0, 1 \|", text)
    assert "of_lab_sea: stem 0.002." in text and "of_lab_sea_2: stem 0.004." in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ok", "fine", r"lab_sea.csv, line 2: seed '0', status 'fine'; .* is ok or diverged"),
        ("0.95,", "much,", r"lab_sea.csv, line 2: accuracy_aligned is 'much', no number"),
        (",commit,", ",", r"lab_sea.csv: no column commit; the lab writes"),
        (",1 x cpu", "", r"lab_sea.csv, line 2: fewer cells than columns"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, old, new, message):
    lab_rows.write(tmp_path, lab_rows.sea(seeds=1)[:1])
    path = tmp_path / "lab_sea.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        report.write(tmp_path)


def test_tables_escape_and_sort():
    table = page.Table(["a|b", "<n>"], [["x|y\nz", page.Cell("1.0 ± 2.0", 1.0, "good")]])
    assert table.markdown() == "| a\\|b | <n> |\n| --- | --- |\n| x\\|y<br>z | 1.0 ± 2.0 |"
    assert "&lt;n&gt;" in table.html()
    assert 'class="good number" data-value="1"' in table.html()


def drawn(found, name):
    (study,) = rows.studies(found)
    (panel,) = [panel for panel in panels(study) if panel.name == name]
    axes = Figure().add_subplot()
    panel.draw(axes)
    return axes


def test_a_line_goes_through_means_and_dots_are_seeds():
    found = [r for r in lab_rows.sea() if r["model"] == "stem"]
    axes = drawn(found, "colour")
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["stem"].get_ydata(), [95, 40, 20, 10, 1])
    dots = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 5]
    expected = sorted(
        r["accuracy_conflict"] * 100 for r in found if r["cell"] == "stem.colour.rho90"
    )
    assert any(np.allclose(sorted(points), expected) for points in dots)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.1", "0.9", "0.95", "0.99", "1"]


def test_the_arrow_says_how_many_times_as_many_samples():
    texts = [text.get_text() for text in drawn(lab_rows.conv(saves=4.0), "accuracy").texts]
    assert "x 4.0" in texts


def test_arrows_lead_from_the_base_to_each_setting():
    found = [
        lab_rows.row("regularisation", f"stem.colour.{name}", seed, model="stem", cue="colour",
                     rho=0.95, setting=name, accuracy_aligned=0.9 + x, accuracy_conflict=0.2 + y)
        for name, x, y in (("base", 0.0, 0.0), ("grey", 0.02, 0.5), ("shift", 0.05, -0.1))
        for seed in range(3)
    ]  # fmt: skip
    axes = drawn(found, "arrows_colour_stem")
    ends = {line.get_label(): (*line.get_xdata(), *line.get_ydata()) for line in axes.lines}
    np.testing.assert_allclose(ends["grey"], (92, 70))
    np.testing.assert_allclose(ends["base"], (90, 20))
    starts = [text.xyann for text in axes.texts]
    np.testing.assert_allclose(starts, [(90, 20), (90, 20)])
    biases = drawn(found, "bias_colour_stem")
    assert [t.get_text() for t in biases.texts] == [" no control", " no control"]


def test_change_and_released_have_plots():
    found = [
        lab_rows.row("change", f"{m}.{s}", seed, model=m, setting=s, accuracy=0.5)
        for m in ("pixels", "resnet") for s in ("raw", "wrong_places") for seed in range(3)
    ]  # fmt: skip
    assert len(drawn(found, "pixels").get_lines())
    rates = {"shape": 0.3, "shape_bias": 0.5, "shape_cat": 0.3, "texture_cat": 0.6}
    axes = drawn([lab_rows.row("released", "conv", 0, model="conv", **rates)], "conv")
    assert [text.get_text() for text in axes.texts] == [" 0.33"], "shape over both"
    assert [bar.get_width() for bar in axes.patches] == [30, 60]
