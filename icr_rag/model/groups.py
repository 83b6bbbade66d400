"""Which prompts share a pass: as many as there is room for, in groups of even size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def even_groups(
    order: Sequence[int], bodies: Sequence[int], tails: Sequence[int], room: int
) -> list[list[int]]:
    """Prompts in the order given, in no more groups than if each were filled to the brim.

    Filled to the brim, the last group may hold a single prompt, which costs a pass all the same;
    the groups are as even as there is room for.

    Args:
        order: prompts, such that neighbours are alike in length, the longest first.
        bodies, tails: per prompt, tokens of its body and of its ends. In a group all are as wide
            as the widest of each.
        room: columns of a group, over all its prompts. A group of one may be wider.
    """
    # As wide as any group may be that begins at this place.
    widths = list(accumulate(((bodies[n], tails[n]) for n in reversed(order)), _wider))[::-1]
    most = [max(1, room // max(1, body + tail)) for body, tail in widths]
    count, place = 0, 0
    while place < len(order):
        place += most[place]
        count += 1
    groups: list[list[int]] = []
    place = 0
    while place < len(order):
        # Those behind have at least as much room each, so that they are not more for it.
        even = -(-(len(order) - place) // (count - len(groups)))
        size = min(most[place], even)
        groups.append(list(order[place : place + size]))
        place += size
    return groups


def _wider(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one[0], other[0]), max(one[1], other[1])


def alike(order: Sequence[int], lengths: Sequence[int], waste: int) -> list[list[int]]:
    """Runs of neighbours that are padded to the first one's length with little waste.

    Args:
        order: prompts, the longest first.
        lengths: tokens per prompt.
        waste: most tokens of padding in a run; a pass of its own should cost about as much.
    """
    runs: list[list[int]] = []
    wasted = 0
    for prompt in order:
        wasted += lengths[runs[-1][0]] - lengths[prompt] if runs else 0
        if not runs or wasted > waste:
            runs.append([])
            wasted = 0
        runs[-1].append(prompt)
    return runs
