"""Ends of several prompts in the same columns of one pass: each prompt's own, padded at its end.

A row sees what stands before it. Padding behind a tail is therefore seen by nothing but padding:
not by the tail, and not by the next one, which sees no other tail at all. No mask is needed for it,
whatever the architecture; it only costs the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from icr_rag.model import tap
from icr_rag.prompts.layout import Tail


@dataclass(frozen=True)
class TailColumns:
    """The ends of some prompts, side by side.

    Attributes:
        packed: one per end, as wide as the longest prompt's.
        token_ids: per prompt, of all its ends, padding included.
        places: per prompt and token, how far behind the stem it stands; -1 is the stem's last
            token. Padding stands where its tail ends, so that no position is beyond the prompt's.
    """

    packed: list[tap.PackedTail]
    token_ids: list[list[int]]
    places: list[list[int]]


def tail_columns(tails: Sequence[Sequence[Tail]], start: int) -> TailColumns:
    """The columns of these prompts' ends.

    Args:
        tails: per prompt, as many for each.
        start: where the first column stands among the tokens of the pass.
    """
    packed: list[tap.PackedTail] = []
    token_ids: list[list[int]] = [[] for _ in tails]
    places: list[list[int]] = [[] for _ in tails]
    for slot in zip(*tails, strict=True):
        width = max(len(tail.token_ids) for tail in slot)
        longest = max((tail.rows for tail in slot), key=lambda rows: int(rows.stop))
        packed.append(tap.PackedTail(start, width, longest, [tail.rows for tail in slot]))
        start += width
        for prompt, tail in enumerate(slot):
            own = len(tail.token_ids)
            token_ids[prompt] += [*tail.token_ids, *[0] * (width - own)]
            places[prompt] += [*range(own), *[own - 1] * (width - own)]
    return TailColumns(packed, token_ids, places)
