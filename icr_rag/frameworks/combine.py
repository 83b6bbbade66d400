"""One step: a ranking by the model and what the first stage said become one ranking.

It comes after the windows are ranked and before the best are read again (`cascade`): the first
stage's evidence counts when the best are chosen, and a second reading decides by itself. Distinct
contents are combined, so that documents with the same text share a score. Works on numbers; it
holds no model code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from icr_rag.errors import InputError
from icr_rag.frameworks.evidence import FIRST_STAGE_WEIGHT, ORDER, Column, Part, weigh
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.unscored import over_scored
from icr_rag.order import stable_order, standardised

#: The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
RRF_CONSTANT = 60


@dataclass(frozen=True)
class Rule:
    """How two stages are combined.

    Attributes:
        name: "none": the model decides alone; "sum": z(score), and each part's value times its
            weight, z over the list; "rrf": reciprocal rank fusion; "weighted": the sum of both
            scores, each scaled to 0..1 over the list.
        parts: what the first stage said; "rrf" and "weighted" have one.
        weight: of the model.
    """

    name: Literal["none", "sum", "rrf", "weighted"]
    parts: tuple[Part, ...] = ()
    weight: float = 1.0

    @property
    def fused(self) -> dict[str, float]:
        """What counts and how much, as `icr_rag.types.Usage` has it."""
        if self.name == "none":
            return {}
        return {"model": self.weight, **{part.label: part.weight for part in self.parts}}


def rule_of(
    fusion: str,
    fusion_weight: float,
    order_weight: float,
    columns: Mapping[str, Column],
    *,
    scores_weight: float | None = None,
    asked: Mapping[str, float] | None = None,
) -> Rule:
    """The rule that settings ask for.

    Args:
        fusion, fusion_weight: the settings.
        order_weight, scores_weight: of the first stage's order and scores, as the profile in use
            has them; 0 and None: it has none.
        columns: the first stage's scores by name, one per item; empty: there are none, and the
            order of the items is the first stage's.
        asked: weights by name, for ``fusion="auto"``.

    Raises:
        InputError: if "weighted" has no scores.
    """
    nothing = not (columns or asked or order_weight)
    if fusion == "none" or (fusion == "auto" and nothing):
        return Rule("none")
    if fusion == "auto":
        parts = weigh(columns, order_weight, scores_weight, asked or {})
        return Rule("sum", parts) if parts else Rule("none")
    name, scores = next(iter(columns.items()), (ORDER, None))
    if fusion == "prior":
        return prior(order_weight or FIRST_STAGE_WEIGHT, scores, name)
    if fusion == "rrf":
        return Rule("rrf", (Part(name, 1 - fusion_weight, scores),), fusion_weight)
    check_scores(columns)
    return Rule("weighted", (Part(name, 1 - fusion_weight, scores, False),), fusion_weight)


def prior(weight: float, scores: Column | None = None, name: str = ORDER) -> Rule:
    """The first stage's order as weak evidence: z(score) + weight x z(1 / (rank + 10)).

    Args:
        scores: by them items are ordered; None: they are in order.
        name: of the scores.
    """
    return Rule("sum", (Part(name, weight, scores),))


def combine(ranked: WindowedScores, rule: Rule) -> WindowedScores:
    """Combine a ranking with the first stage's.

    Args:
        ranked: items 0 to n - 1, numbered in the order given. Its scores never contradict its
            order, also over several windows.
        rule: how, and with what; its parts have one score per item. But for a "sum" no item lacks
            one.

    Returns:
        The combined ranking, all of whose scores compare; with "none" the one given.
    """
    if rule.name == "none" or not ranked.scores:
        return ranked
    if ranked.unscored:
        # What has no score cannot be weighed against what has.
        def combine_some(part: WindowedScores, items: Sequence[int]) -> WindowedScores:
            parts = tuple(own.of(items) for own in rule.parts)
            return combine(part, Rule(rule.name, parts, rule.weight))

        return over_scored(ranked, combine_some)
    if rule.name == "sum" and len(ranked.scores) < 2:
        return ranked
    if rule.name == "sum":
        scores = _sum(ranked, rule.parts)
    elif rule.name == "rrf":
        scores = _reciprocal(ranked, rule.weight, rule.parts[0])
    else:
        scores = _weighted(ranked, rule.weight, rule.parts[0])
    return WindowedScores(stable_order(scores), scores, [0] * len(scores))


def check_scores(columns: Mapping[str, Column]) -> None:
    """Raise the `InputError` that says what lacks where "weighted" has no scores."""
    if not columns:
        raise InputError(
            "fusion='weighted' needs the first stage's scores; pass retrieval_scores=, or "
            "set fusion='rrf', which needs none"
        )


def _sum(ranked: WindowedScores, parts: Sequence[Part]) -> list[float]:
    """The first stage as evidence beside the model's scores.

    A first stage that works puts relevant documents high, and a model that reads each document
    alone does not know it. Where it tells nothing, a small weight costs little.
    """
    scores = standardised(ranked.scores)
    for part in parts:
        values = part.values(len(scores))
        scores = [own + part.weight * value for own, value in zip(scores, values, strict=True)]
    return scores


def _reciprocal(ranked: WindowedScores, weight: float, first_stage: Part) -> list[float]:
    own = _places(ranked.order)
    scores = first_stage.scores
    first = list(range(len(own))) if scores is None else _places(stable_order(_known(first_stage)))
    return [
        weight / (RRF_CONSTANT + a + 1) + (1 - weight) / (RRF_CONSTANT + b + 1)
        for a, b in zip(own, first, strict=True)
    ]


def _weighted(ranked: WindowedScores, weight: float, first_stage: Part) -> list[float]:
    both = zip(_scaled(ranked.scores), _scaled(_known(first_stage)), strict=True)
    return [weight * a + (1 - weight) * b for a, b in both]


def _known(part: Part) -> list[float]:
    """Its scores, of which none lacks."""
    return [value for value in part.scores or () if value is not None]


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
