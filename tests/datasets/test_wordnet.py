"""WordNet's own files: what a line says, the splits, and the classes."""

import numpy as np
import pytest
from text_files import write_wordnet

from configs import wordnet as config_file
from perceiver_jax.config_types import ConfigError
from perceiver_jax.datasets import registry, wordnet_files
from perceiver_jax.datasets.wordnet_relations import RELATIONS, roots


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
    texts = {split: set(load(tmp_path, split).texts) for split in wordnet_files.SPLITS}
    whole = texts.pop("all")
    assert len(whole) == 400 == sum(map(len, texts.values()))
    assert 290 < len(texts["train"]) < 350 and min(map(len, texts.values())) > 20
    tenth, half = (load(tmp_path, share=share).texts for share in (0.1, 0.5))
    assert set(tenth) < set(half) < texts["train"]
    assert 20 < len(tenth) < 50 and 130 < len(half) < 190
    other = load(tmp_path, share=0.5, draw=1).texts
    assert 130 < len(other) < 190 and set(other) != set(half)
    four = load(tmp_path, "all", speech=("noun", "verb", "adj", "adv"))
    assert (len(four), len(four.label_names)) == (1600, 45)


def test_the_classes_are_those_of_the_manual():
    numbers = sorted(n for files in wordnet_files.FILES.values() for n in files)
    assert numbers == list(range(45))
    assert (wordnet_files.FILES["noun"][28], wordnet_files.FILES["verb"][43]) == ("time", "weather")
    assert {s: len(wordnet_files.FILES[s]) for s in ("noun", "verb")} == {"noun": 26, "verb": 15}
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


def test_words_of_the_vocabulary_are_found_in_glosses(tmp_path):
    (tmp_path / "data.noun").write_text(
        '02084071 05 n 01 dog 0 000 | a Dog-like animal; "dogs are animals"\n'
        "00001740 03 n 01 entity 0 000 | that which is\n"
    )
    source = load(tmp_path, "all", question="word")
    assert (len(source), repr(source)) == (1, "wordnet[all] words of noun")
    found = [(source[0]["text"][a:b], source.label_names[n]) for a, b, n in source[0]["words"]]
    words = ("dog", "like", "animal", "dogs", "animals")
    assert found == [(b"Dog", "dog"), *((word.encode(), word) for word in words[1:])]
    assert len(source.label_names) == 2048 == len(set(source.label_names))
    (tmp_path / "data.noun").write_text("00001740 03 n 01 entity 0 000 | that which is\n")
    with pytest.raises(ValueError, match="no gloss has one of the 2048 words"):
        load(tmp_path, "all", question="word")


def test_wrong_options_and_missing_files_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.noun of WordNet: unpack https"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data_dir is not set: name WordNet's folder"):
        load("")
    with pytest.raises(ValueError, match=r"splits \['train', 'validation', 'test', 'all'\]"):
        load(tmp_path, "dev")
    for options in (
        {"speech": ("nouns",)},
        {"share": 0.0},
        {"share": 1.5},
        {"question": "cause"},
        {"speech": ("adj",), "question": "relation"},
    ):
        with pytest.raises(ConfigError, match=rf"source_options\.{next(iter(options))}="):
            registry.check_options("wordnet", options)
    with pytest.raises(ConfigError, match=r"has no field 'subtree'"):
        registry.check_options("wordnet", {"subtree": 500})


def test_no_synset_and_no_branch_of_the_test_pairs_is_in_training_pairs(tmp_path):
    write_wordnet(tmp_path, count=400)
    options = {"question": "relation", "speech": ("noun", "verb"), "subtree": 6}
    pairs = {split: load(tmp_path, split, **options) for split in wordnet_files.SPLITS}
    branches = {}
    for split, source in pairs.items():
        offsets = source.offsets
        trees = roots({i: (i - 1) // 3 for i in range(1, 400)}, range(400), 6)
        branches[split] = {(part, trees[x]) for part, *row in source.pairs for x in row}
        assert len(offsets) == len(source) and len(source) % 3 == 0
        assert {(part, x) for part, *row in source.pairs for x in row} <= source.texts.keys()
    used = {s: {(p, x) for p, *row in pairs[s].pairs for x in row} for s in pairs}
    for held_out in ("validation", "test"):
        assert len(used[held_out]) > 10
        assert not used["train"] & used[held_out] and not branches["train"] & branches[held_out]
    assert not used["validation"] & used["test"]
    assert len(pairs["all"]) == sum(len(pairs[s]) for s in ("train", "validation", "test"))


def test_the_relations_are_what_they_say(tmp_path):
    write_wordnet(tmp_path, count=400)
    source = load(tmp_path, question="relation", subtree=6)
    assert (source.label_names, repr(source)) == (RELATIONS, "wordnet[train] relations of noun")
    general = 0
    for (first, second), example in zip(source.offsets, source, strict=True):
        assert example["first"].startswith(b"the noun %d of" % first)
        assert example["second"].startswith(b"the noun %d of" % second) and first != second
        above, beside = (first - 1) // 3, (second - 1) // 3
        kind = RELATIONS[example["label"]]
        if kind == "unrelated":
            general += (second - 1) // 3 < 133 and 3 * second + 1 < 400
        expected = {"hypernym": second == above, "sister": beside == above}
        assert expected.get(kind, second != above and beside not in (above, first)), kind
    assert 0.3 < general / (len(source) / 3) < 0.7
    half = load(tmp_path, question="relation", subtree=6, share=0.5)
    assert set(half.pairs) < set(source.pairs) and len(half) % 3 == 0


@pytest.mark.parametrize(
    ("pointers", "message"),
    [
        ("001 @ 00000009 n 0000", "line 2: its hypernym 00000009 is not in the file"),
        ("002 @ 00000001 n 0000", "line 2: words or pointers are missing"),
        ("001 @ 00000001 n 0000", "hypernyms of 00000001 lead back to it"),
        ("000", r"no two subtrees with sisters; subtree=500"),
    ],
)
def test_pointers_that_lead_nowhere_are_named(tmp_path, pointers, message):
    (tmp_path / "data.noun").write_text(
        f"  1 licence\n00000001 03 n 01 entity 0 {pointers} | that which is\n"
    )
    with pytest.raises(ValueError, match=message):
        load(tmp_path, question="relation")
