"""WordNet's own files: what a line says, the splits, and the classes."""

import numpy as np
import pytest
from text_files import write_wordnet

from configs import wordnet as config_file
from perceiver_jax.config_types import ConfigError
from perceiver_jax.datasets import registry, wordnet


def load(folder, split="train", **options):
    return registry.load("wordnet", split, data_dir=str(folder), options=options)


def test_a_line_is_a_gloss_and_its_lexicographer_file(tmp_path):
    (tmp_path / "data.noun").write_text(
        "  1 This software and database is being provided to you, the LICENSEE  \n"
        '00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is; "so | it is"  \n'
        "02084071 05 n 01 dog 0 000 | a member of the genus Canis\n"
    )
    source = load(tmp_path, "all")
    assert (len(source), repr(source)) == (2, "wordnet[all] noun")
    assert source[0] == {"text": b'that which is; "so | it is"', "label": 0}
    assert source[1] == {"text": b"a member of the genus Canis", "label": 2}
    assert (source.label_names[0], source.label_names[2]) == ("noun.Tops", "noun.animal")
    assert source[1]["label"].dtype == np.int32


def test_splits_are_apart_and_shares_are_nested(tmp_path):
    write_wordnet(tmp_path / "dict", count=400)
    texts = {split: set(load(tmp_path, split).texts) for split in wordnet.SPLITS}
    whole = texts.pop("all")
    assert len(whole) == 400 == sum(map(len, texts.values()))
    assert 290 < len(texts["train"]) < 350 and min(map(len, texts.values())) > 20
    tenth, half = (load(tmp_path, share=share).texts for share in (0.1, 0.5))
    assert set(tenth) < set(half) < texts["train"]
    assert 20 < len(tenth) < 50 and 130 < len(half) < 190
    four = load(tmp_path, "all", speech=("noun", "verb", "adj", "adv"))
    assert (len(four), len(four.label_names)) == (1600, 45)


def test_the_classes_are_those_of_the_manual():
    numbers = sorted(n for files in wordnet.FILES.values() for n in files)
    assert numbers == list(range(45))
    assert (wordnet.FILES["noun"][28], wordnet.FILES["verb"][43]) == ("time", "weather")
    assert {s: len(wordnet.FILES[s]) for s in ("noun", "verb")} == {"noun": 26, "verb": 15}
    classes = config_file.get_config("both").text_tasks.classes
    assert (len(classes.noun), len(classes.verb)) == (26, 15)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("00001740 03 n 01 entity 0 000", "line 2: not a synset"),
        ("00001740 29 n 01 entity 0 000 | a verb among nouns", "file of 3 to 28"),
        ("00001740 03 n 01 entity 0 000 |  ", "line 2: not a synset"),
        ("00001740 xx n 01 entity 0 000 | a gloss", "line 2: not a synset"),
    ],
)
def test_other_lines_are_named(tmp_path, line, message):
    (tmp_path / "data.noun").write_text(f"  1 licence\n{line}\n")
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_wrong_options_and_missing_files_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.noun of WordNet: unpack https"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data_dir is not set: name WordNet's folder"):
        load("")
    with pytest.raises(ValueError, match=r"splits \['train', 'validation', 'test', 'all'\]"):
        load(tmp_path, "dev")
    for options in ({"speech": ("nouns",)}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(ConfigError, match=rf"source_options\.{next(iter(options))}="):
            registry.check_options("wordnet", options)
