"""Tables that list images, and what is wrong with them."""

import numpy as np
import pyarrow
import pytest
from image_files import write_image, write_tables
from pyarrow import parquet

from perceiver_jax.datasets import copies, table

LISTS = ("train", "val")


def load(path, split="train", lists=LISTS, **options):
    return table.load(split, data_dir=str(path), lists=lists, **options)


def write(folder, text, name="all.csv"):
    """One table of the rows given, and its two images."""
    for number in range(2):
        write_image(folder / f"{number}.png", number)
    (folder / name).write_text(text)
    return folder / name


def test_several_labels(tmp_path):
    write_tables(tmp_path)
    source = load(tmp_path, multi_label=True)
    assert (repr(source), len(source)) == (f"table[{tmp_path.name}/train.csv]", 6)
    assert source.classes == ["cup", "plate"]
    labels = [source[i]["labels"] for i in range(3)]
    np.testing.assert_array_equal(labels, [[1, 0], [1, 1], [0, 1]])
    assert labels[0].dtype == np.float32 and source[2]["row"] == 2 and "label" not in source[0]
    with pytest.raises(ValueError, match=r"row 2: 'cup;plate' are several labels: set .*multi_la"):
        load(tmp_path)


def test_csv_tsv_and_parquet_say_the_same(tmp_path):
    rows = [("a.png", "10"), ("b,c.png", "9"), ("d.png", "10")]
    for number, (name, _) in enumerate(rows):
        write_image(tmp_path / name, number)
    (tmp_path / "a.csv").write_text('id, species ,file\n1,10,a.png\n2, 9,"b,c.png"\n3,10,d.png\n')
    (tmp_path / "b.tsv").write_text("file\tspecies\na.png\t10\nb,c.png\t9\nd.png\t10\n")
    columns = {"file": [name for name, _ in rows], "species": [10, 9, 10]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "c.parquet")
    found = []
    for split in ("a", "b.tsv", "c"):
        options = {"path_column": "file", "label_column": "species"}
        source = load(tmp_path, split, (split,), **options)
        found.append((source.paths, source.classes, [int(source[i]["label"]) for i in range(3)]))
    assert found[0] == (["a.png", "b,c.png", "d.png"], ["9", "10"], [1, 0, 1])
    assert found[1:] == found[:1] * 2
    lists = {"path": ["a.png", "d.png"], "label": [["x", "y"], []]}
    parquet.write_table(pyarrow.table(lists), tmp_path / "d.parquet")
    source = load(tmp_path, "d", ("d",), multi_label=True)
    np.testing.assert_array_equal(source[0]["labels"], [1, 1])
    np.testing.assert_array_equal(source[1]["labels"], [0, 0])


def test_one_table_is_split_by_a_seed(tmp_path):
    rows = [f"{number}.png,{'xy'[number % 2]}" for number in range(20)]
    for number in range(20):
        write_image(tmp_path / f"{number}.png", number)
    (tmp_path / "all.csv").write_text("path,label\n" + "\n".join(rows))
    train, held = load(tmp_path / "all.csv"), load(tmp_path / "all.csv", "val")
    assert (len(train), len(held)) == (16, 4) and not set(train.paths) & set(held.paths)
    assert copies.describe(train.files, held.files) == []


def test_tables_elsewhere_and_absolute_paths(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    text = f"path,label\n{tmp_path}/images/0.png,x\n1.png,y\n"
    (tmp_path / "images").mkdir()
    write(tmp_path / "images", "")
    (tmp_path / "lists" / "all.csv").write_text(text)
    split = str(tmp_path / "lists" / "all.csv")
    source = load(tmp_path / "images", split, (split,))
    assert source.paths == ["0.png", "1.png"] and source[1]["readable"]
    monkeypatch.chdir(tmp_path)
    assert load("images", split, (split,)).paths == ["0.png", "1.png"]
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lists" / "all.csv").write_text("path,label\n~/images/0.png,x\n1.png,y\n")
    assert load("~/images", "~/lists/all.csv", ("~/lists/all.csv",)).paths == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"all\.csv is no readable table: Empty CSV file"),
        ("path,label\n", r"all\.csv lists no images"),
        ("path,label\n0.png,x,z\n", "all.csv is no readable table: CSV parse error: Expected 2"),
        ("file,label\n0.png,x\n", r"has no column 'path', but 'file', 'label': set .*path_column"),
        ("path,kind\n0.png,x\n", "has no column 'label', but 'path', 'kind'"),
        ("path,label\n0.png,x\n1.png,\n", "all.csv, row 2: the label is blank: name its class"),
        ("path,label\n0.png,x\n ,y\n", "all.csv, row 2: the path is blank"),
        ("path,label\n0.png,x\n../1.png,y\n", r"row 2: '\.\./1\.png' is outside of"),
        ("path,label\n/etc/1.png,y\n", "row 1: '/etc/1.png' is outside of"),
        ("path,label\ngs://other/1.png,y\n", "row 1: 'gs://other/1.png' is outside of"),
        ("path,label\n0.png,x\n1.png,x\n", r"has 1 classes, \['x'\], not 2"),
        ("path,label\n0.png,x\n./0.png,y\n", "row 2: '0.png' has the label 'y', in an earlier r"),
        ("path,label\na.png,x\nb.png,y\n", "2 of 2 files are missing or empty: 'a.png', 'b.png'"),
    ],
)
def test_wrong_tables_are_named(text, message, tmp_path):
    write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, "all", ("all",))
    assert "\n" not in str(error.value)


def test_missing_files_are_left_out_or_refused(tmp_path):
    write(tmp_path, "path,label\n0.png,x\n1.png,y\n2.png,y\n")
    source = load(tmp_path, "all", ("all",))
    assert (len(source), len(source.notes)) == (2, 1)
    assert "1 of 3 files are missing or empty: '2.png' in" in source.notes[0]
    with pytest.raises(ValueError, match=r"1 of 3 files are missing .* correct config\.data\.data"):
        load(tmp_path, "all", ("all",), unreadable="refuse")


def test_missing_tables_and_classes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none of the tables train\.csv, train\.tsv"):
        load(tmp_path)
    write(tmp_path, "path,label\n0.png,x\n1.png,y\n", "train.csv")
    write(tmp_path, "path,label\n0.png,x\n1.png,z\n", "test.csv")
    with pytest.raises(ValueError, match="no training image has the class 'z' of the evaluation"):
        load(tmp_path, "val")
    (tmp_path / "test.csv").write_bytes("path,label\n0.png,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"test\.csv is not UTF-8 text"):
        load(tmp_path, "val")
    (tmp_path / "classes.txt").write_text("y\n")
    (tmp_path / "test.csv").unlink()
    with pytest.raises(ValueError, match=r"classes\.txt does not name the label 'x'"):
        load(tmp_path, "train", ("train",))
