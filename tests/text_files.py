"""Writes text databases as they come, with words that say what each is."""

from perceiver_jax.datasets import wordnet


def write_wordnet(folder, count=60):
    """WordNet's four data files; every lexicographer file in turn, and three synsets below each."""
    folder.mkdir(parents=True, exist_ok=True)
    for speech, names in wordnet.FILES.items():
        lines = ["  1 This software and database is being provided to you, the LICENSEE  "]
        for i in range(count):
            number = sorted(names)[i % len(names)]
            gloss = f"the {speech} {i} of {names[number]}"
            pointers = f"001 @ {(i - 1) // 3:08} {speech[0]} 0000" if i else "000"
            lines.append(f"{i:08} {number:02} {speech[0]} 01 word 0 {pointers} | {gloss}  ")
        (folder / f"data.{speech}").write_text("\n".join(lines) + "\n")
