"""Writes text databases as they come, with words that say what each is."""

from perceiver_jax.datasets import wordnet


def write_wordnet(folder, count=60):
    """WordNet's four data files; every lexicographer file in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for speech, names in wordnet.FILES.items():
        lines = ["  1 This software and database is being provided to you, the LICENSEE  "]
        for i in range(count):
            number = sorted(names)[i % len(names)]
            gloss = f"the {speech} {i} of {names[number]}"
            lines.append(f"{i:08} {number:02} {speech[0]} 01 word 0 000 | {gloss}  ")
        (folder / f"data.{speech}").write_text("\n".join(lines) + "\n")
