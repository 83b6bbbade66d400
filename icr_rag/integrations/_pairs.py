"""Pairs of a query and a text, as cross-encoders take them, for a re-ranker that reads lists."""

from __future__ import annotations

from collections.abc import Sequence

from icr_rag.errors import ConfigError, InputError, shown
from icr_rag.reranker import Reranker


def check_all_scored(reranker: Reranker) -> None:
    """Raise `ConfigError` for a setting by which a text may have no score, or another place than
    its score says, where every text gets its score and nothing else."""
    config = reranker.config
    for name, why in (
        ("min_answerable", "leaves out documents"),
        ("deadline_ms", "leaves documents without a score"),
        ("diversity", "orders documents otherwise than by their scores"),
    ):
        value = getattr(config, name)
        if value is not None:
            raise ConfigError(
                f"{name}={value} {why}, and here each text gets a score and nothing else; leave it "
                "out, or use rank"
            )


def score_pairs(reranker: Reranker, pairs: Sequence[object]) -> list[float]:
    """One score per pair, in the order of the pairs; higher is better.

    Texts of one query are read together, in the order of their pairs. Scores are relative to the
    query and its texts: they compare within a query, not across queries.

    Args:
        reranker: the engine.
        pairs: (query, text) pairs. Those of one query need not stand together.

    Raises:
        ConfigError: with ``min_answerable``, ``deadline_ms`` or ``diversity``.
        InputError: for anything that is not a pair, a blank query, or a text that is no str.
    """
    check_all_scored(reranker)
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Sequence):
        raise InputError(f"pairs is a {type(pairs).__name__}; give a list of (query, text) pairs")
    places: dict[str, list[int]] = {}
    texts: list[str] = []
    for place, pair in enumerate(pairs):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"pairs[{place}] is {shown(pair)}; allowed are (query, text) pairs")
        for what, part in zip(("query", "text"), pair, strict=True):
            if not isinstance(part, str):
                raise InputError(
                    f"pairs[{place}] has a {what} of type {type(part).__name__}; it must be str"
                )
        places.setdefault(pair[0], []).append(place)
        texts.append(pair[1])
    scores = [0.0] * len(pairs)
    for query, members in places.items():
        ranking = reranker.rank(query, [texts[place] for place in members])
        for place, score in zip(members, ranking.scores, strict=True):
            scores[place] = score
    return scores
