"""Near-duplicates: chunks that repeat a better one, as overlapping splitters make them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

#: Characters in a shingle. Characters, not words, because not every script separates words.
_LENGTH = 5


def near_duplicates(texts: Sequence[str], similarity: float) -> dict[int, int]:
    """Which texts repeat an earlier one that is kept.

    Two texts are compared by the Jaccard similarity of their sets of runs of five characters,
    without regard to case and white space. Blank texts repeat nothing.

    Args:
        texts: best first.
        similarity: 0 < similarity <= 1, from which a text is a repetition.

    Returns:
        Position of each repetition -> position of the earlier text it is most similar to.
    """
    holders: defaultdict[str, list[int]] = defaultdict(list)
    sizes: dict[int, int] = {}
    repeats: dict[int, int] = {}
    for position, text in enumerate(texts):
        own = shingles(text)
        common = Counter(holder for shingle in own for holder in holders.get(shingle, ()))
        found = [
            (count / (len(own) + sizes[holder] - count), -holder)
            for holder, count in common.items()
        ]
        best = max(found, default=(0.0, 0))
        if found and best[0] >= similarity:
            repeats[position] = -best[1]
            continue
        sizes[position] = len(own)
        for shingle in own:
            holders[shingle].append(position)
    return repeats


def shingles(text: str) -> set[str]:
    """A text's runs of five characters, without regard to case and white space."""
    plain = " ".join(text.casefold().split())
    if not plain:
        return set()
    return {plain[i : i + _LENGTH] for i in range(max(1, len(plain) - _LENGTH + 1))}
