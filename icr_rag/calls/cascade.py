"""Two readings one after the other: a cheap one of all documents, a costly one of the best.

Reading kept states costs a query's tokens, whatever the list's length; it is spent on all. What
it finds best is read again with nothing kept, so that the documents may see each other; of a
document that was split, its best passage.
"""

from __future__ import annotations

from collections.abc import Sequence

from icr_rag.calls.candidates import Candidates
from icr_rag.calls.passages import Folded
from icr_rag.config import RerankerConfig
from icr_rag.deadline import OutOfTime, step
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.run import rank_windows
from icr_rag.scoring.base import Cost, Scorer

#: What is measured, without a deadline too: a second reading, by the tokens of what it reads.
_AGAIN = "again"


def second_config(config: RerankerConfig) -> RerankerConfig | None:
    """The settings of the second reading: attention with nothing kept; None: there is none."""
    if config.cascade is None:
        return None
    return config.switched(
        scoring="attention",
        framework=config.cascade_framework,
        document_states="joint",
        cascade=None,
        cascade_framework="listwise",
        profile=None,
        reading="auto",
        passages="none",
    )


def read_again(
    scorer: Scorer,
    ranked: WindowedScores,
    query: str,
    folded: Folded,
    count: int,
    cost: Cost,
    most: int | None = None,
) -> tuple[WindowedScores, set[int]]:
    """The best documents of a ranking in the order of a second reading.

    Args:
        scorer: of `second_config`.
        ranked: the distinct documents, numbered as in ``folded``.
        folded: their best passages.
        count: how many are read again.
        cost: added to.
        most: tokens of a document, where the call limits them.

    Returns:
        The ranking, and the input positions of documents that were cut for the second reading.

    Raises:
        OutOfTime: if there is not time for all of them.
    """
    chosen = ranked.order[:count]
    own = Candidates(scorer, query, [folded.best[unique] for unique in chosen], most=most)
    tokens = len(own.query_ids) + sum(map(len, own.token_ids))
    # Half a second reading would mix its scores with the first one's, and so is not begun.
    with step(_AGAIN, tokens):
        read = rank_windows(scorer, own.query_ids, own.token_ids, own.fits, cost, whole=True)
        if read.unscored:
            raise OutOfTime
    # Two documents may have the same best passage, which is read once.
    found = own.spread(read)
    again = WindowedScores(found.order, found.scores, found.groups)
    cut = {chosen[place] for place in own.truncated}
    places = {index for index, unique in enumerate(folded.owner) if unique in cut}
    return on_top(ranked, chosen, again), places


def on_top(ranked: WindowedScores, chosen: Sequence[int], again: WindowedScores) -> WindowedScores:
    """The first ranking, with its best items in the order of the second.

    Args:
        ranked: of all items.
        chosen: items of it, as they were numbered for ``again``: 0 to len(chosen) - 1.
        again: of these.

    Returns:
        Scores of the chosen items are the second reading's; the others' are the first's, lowered
        by one constant where they would contradict the order.
    """
    order = [chosen[place] for place in again.order]
    rest = [item for item in ranked.order if item not in set(order)]
    scores, groups = list(ranked.scores), list(ranked.groups)
    later = max(groups, default=0) + 1
    for place, item in enumerate(chosen):
        scores[item] = again.scores[place]
        groups[item] = later + again.groups[place]
    if order and rest:
        last = scores[order[-1]]
        drop = max(0.0, scores[rest[0]] - last + 1e-6 * max(1.0, abs(last)))
        for item in rest:
            scores[item] -= drop
    return WindowedScores([*order, *rest], scores, groups)
