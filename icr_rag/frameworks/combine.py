"""One step: a ranking by the model and what the first stage said become one ranking.

It comes after the windows are ranked and before the best are read again (`cascade`): the first
stage's evidence counts when the best are chosen, and a second reading decides by itself. Distinct
contents are combined, so that documents with the same text share a score. Works on numbers; it
holds no model code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from icr_rag.errors import InputError
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.unscored import over_scored
from icr_rag.order import stable_order, standardised

#: The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
RRF_CONSTANT = 60
#: Weight of the first stage beside the score's 1 where no profile says better; docs/study.md.
FIRST_STAGE_WEIGHT = 0.3
#: Flattens the reciprocal at the top, so that rank 1 is worth less than twice rank 10.
_OFFSET = 10


@dataclass(frozen=True)
class Rule:
    """How two stages are combined.

    Attributes:
        name: "none": the model decides alone; "prior": z(score) + weight x z(1 / (rank + 10)), z
            over the list; "rrf": reciprocal rank fusion; "weighted": the sum of both scores, each
            scaled to 0..1 over the list.
        weight: "prior": of the first stage, beside 1 for the model. "rrf", "weighted": of the
            model, 0 to 1; the first stage has the rest.
    """

    name: Literal["none", "prior", "rrf", "weighted"]
    weight: float = 0.0


def rule_of(fusion: str, fusion_weight: float, profile_weight: float, has_scores: bool) -> Rule:
    """The rule that settings ask for.

    Args:
        fusion, fusion_weight: the settings.
        profile_weight: of the first stage, as the profile in use has it; 0: it has none.
        has_scores: whether the call gave the first stage's scores. With ``fusion="auto"`` they
            count, as weak evidence, even where the profile says nothing of a first stage.
    """
    if fusion == "rrf":
        return Rule("rrf", fusion_weight)
    if fusion == "weighted":
        return Rule("weighted", fusion_weight)
    asked = fusion == "prior" or (fusion == "auto" and has_scores)
    weight = profile_weight or (FIRST_STAGE_WEIGHT if asked else 0.0)
    return Rule("none") if fusion == "none" or weight == 0 else Rule("prior", weight)


def combine(
    ranked: WindowedScores, first_stage: Sequence[float] | None, rule: Rule
) -> WindowedScores:
    """Combine a ranking with the first stage's.

    Args:
        ranked: items 0 to n - 1, numbered in the order given. Its scores never contradict its
            order, also over several windows.
        first_stage: its scores, one per item, higher is better; None: the order given tells.
        rule: how.

    Returns:
        The combined ranking, all of whose scores compare; with "none" the one given.

    Raises:
        InputError: if "weighted" has no scores.
    """
    if rule.name == "none" or not ranked.scores:
        return ranked
    if ranked.unscored:
        # What has no score cannot be weighed against what has.
        return over_scored(ranked, first_stage, lambda part, own: combine(part, own, rule))
    if rule.name == "prior":
        return with_prior(ranked, rule.weight, first_stage)
    if rule.name == "rrf":
        scores = _reciprocal(ranked, rule.weight, first_stage)
    else:
        scores = _weighted(ranked, rule.weight, needed_scores(first_stage))
    return WindowedScores(stable_order(scores), scores, [0] * len(scores))


def needed_scores(first_stage: Sequence[float] | None) -> Sequence[float]:
    """The scores, or the `InputError` that says what lacks."""
    if first_stage is None:
        raise InputError(
            "fusion='weighted' needs the first stage's scores; pass retrieval_scores=, or "
            "set fusion='rrf', which needs none"
        )
    return first_stage


def with_prior(
    ranked: WindowedScores, weight: float, first_scores: Sequence[float] | None = None
) -> WindowedScores:
    """The first stage's order as weak evidence beside the model's scores.

    A first stage that works puts relevant documents high, and a model that reads each document
    alone does not know it. Where the order tells nothing, a small weight costs little.

    Args:
        ranked: as in `combine`.
        weight: of the order, beside 1 for the scores.
        first_scores: by them the items are ordered; None: they are in order.
    """
    count = len(ranked.scores)
    if weight == 0 or count < 2:
        return ranked
    reciprocal = _reciprocals(list(range(count, 0, -1)) if first_scores is None else first_scores)
    scores = [
        own + weight * prior
        for own, prior in zip(standardised(ranked.scores), standardised(reciprocal), strict=True)
    ]
    return WindowedScores(stable_order(scores), scores, [0] * count)


def _reciprocals(scores: Sequence[float]) -> list[float]:
    """1 / (rank + 10) by descending score; equal scores share the mean, and favour nobody."""
    found = [0.0] * len(scores)
    rank = 1
    for _, tied in groupby(stable_order(scores), key=lambda item: scores[item]):
        items = list(tied)
        values = [1 / (place + _OFFSET) for place in range(rank, rank + len(items))]
        for item in items:
            found[item] = values[0] if len(items) == 1 else sum(values) / len(values)
        rank += len(items)
    return found


def _reciprocal(
    ranked: WindowedScores, weight: float, first_stage: Sequence[float] | None
) -> list[float]:
    count = len(ranked.scores)
    own = _places(ranked.order)
    first = list(range(count)) if first_stage is None else _places(stable_order(first_stage))
    return [
        weight / (RRF_CONSTANT + a + 1) + (1 - weight) / (RRF_CONSTANT + b + 1)
        for a, b in zip(own, first, strict=True)
    ]


def _weighted(ranked: WindowedScores, weight: float, first_stage: Sequence[float]) -> list[float]:
    both = zip(_scaled(ranked.scores), _scaled(first_stage), strict=True)
    return [weight * a + (1 - weight) * b for a, b in both]


def _places(order: Sequence[int]) -> list[int]:
    """Item -> its place, from 0."""
    places = [0] * len(order)
    for place, item in enumerate(order):
        places[item] = place
    return places


def _scaled(values: Sequence[float]) -> list[float]:
    """Onto 0..1; all 0.5 where they are equal, which favours nobody."""
    low, high = min(values), max(values)
    return [0.5 if high == low else (value - low) / (high - low) for value in values]
