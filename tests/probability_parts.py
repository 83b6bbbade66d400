"""Profiles with calibrations of a tiny model, and what they say, written down directly."""

from __future__ import annotations

import json
import math
import statistics

from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.profiles import Abstention, Calibration, HeadWeight, Profile, Shape

QUERY = "Which metal melts first?"
DOCUMENTS = [
    "Tin melts at 232 degrees.",
    "Lead is soft.",
    "Copper conducts heat well, which is why wires are made of it.",
    "Gold.",
]
HEADS = tuple(
    HeadWeight(layer=layer, head=head, reading="log_mass", weight=weight)
    for layer, head, weight in ((1, 0, 1.0), (2, 3, 0.5))
)
LIKELIHOOD = {"scoring": "likelihood"}
YES_NO = {"scoring": "likelihood", "likelihood": "yes_no"}
ATTENTION = {"framework": "pointwise"}
MIXED = {"scoring": "mixed"}
METHODS = {"likelihood": LIKELIHOOD, "yes/no": YES_NO, "attention": ATTENTION, "mixed": MIXED}
LOGISTIC = {"kind": "logistic", "slope": 3.0, "intercept": -0.5}
ISOTONIC = {"kind": "isotonic", "knots": ((-1.0, 0.1), (0.0, 0.2), (0.3, 0.2), (0.8, 0.95))}
WEIGHTS = {"top": 2.0, "gap": 1.0, "lead": 0.5, "spread": -1.0}


def of_model(fields, **more):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **{**fields, **more})


def bare(fields):
    """A profile with the heads of a method, where it reads any."""
    own = {"scoring": fields.get("scoring", "attention"), "framework": "pointwise",
           "model": "tiny", "shape": Shape.of(tiny_model("llama").config)}  # fmt: skip
    if own["scoring"] == "likelihood":
        return own | {"likelihood": fields.get("likelihood", "query")}
    return own | {"heads": HEADS, "likelihood_weight": 1.5 if own["scoring"] == "mixed" else 0.0}


def maker(folder):
    """Writes a profile for a method, fitted to its scores, and gives its path."""
    made = {}

    def of(fields, calibration=LOGISTIC, weights=WEIGHTS):
        key = json.dumps([fields, calibration, weights])
        if key not in made:
            heads = folder / f"heads{len(made)}.json"
            named = {}
            if fields.get("scoring") != "likelihood":
                Profile(**bare(fields)).save(heads)
                named = {"profile": str(heads)}
            with of_model(fields, score_mode="explained", **named) as ranker:
                basis = ranker.scorer.basis()
            path = folder / f"{len(made)}.json"
            Profile(
                **bare(fields),
                calibration=calibration and Calibration(**calibration, basis=basis),
                abstention=weights and Abstention(intercept=-0.25, weights=weights, basis=basis),
            ).save(path)
            made[key] = str(path)
        return made[key]

    return of


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def line(score):
    return sigmoid(3 * score - 0.5)


def knots(score):
    """The isotonic map, written down piece by piece."""
    if score <= -1:
        return 0.1
    if score <= 0:
        return 0.2 + 0.1 * score
    if score <= 0.3:
        return 0.2
    return 0.95 if score >= 0.8 else 0.2 + 0.75 * (score - 0.3) / 0.5


def chance_of_answer(scores):
    ordered = sorted(scores, reverse=True)
    gap = ordered[0] - ordered[1] if len(ordered) > 1 else 0.0
    lead = ordered[0] - statistics.median(scores)
    spread = statistics.pstdev(scores)
    return sigmoid(-0.25 + 2 * ordered[0] + gap + 0.5 * lead - spread)
