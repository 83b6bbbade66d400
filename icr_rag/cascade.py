"""Two readings one after the other: a cheap one of all documents, a costly one of the best.

Reading kept states costs a query's tokens, whatever the list's length; it is spent on all. What
it finds best is read again with nothing kept, so that the documents may see each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from icr_rag.config import RerankerConfig
from icr_rag.frameworks.result import WindowedScores
from icr_rag.inputs import RankInputs
from icr_rag.types import Document

if TYPE_CHECKING:
    from icr_rag.scoring.base import Cost

_SETTINGS = ("document_states", "states_memory", "states_dir", "states_dtype", "cascade",
             "cascade_framework", "profile", "reading", "likelihood")  # fmt: skip
_LISTWISE = ("instruction", "double_query", "order", "window", "stride")


def second_config(config: RerankerConfig) -> RerankerConfig | None:
    """The settings of the second reading: attention with nothing kept; None: there is none."""
    if config.cascade is None:
        return None
    listwise = config.cascade_framework == "listwise"
    changed = _SETTINGS if listwise else (*_SETTINGS, *_LISTWISE)
    fields = type(config).model_fields
    defaults = {name: fields[name].default for name in changed}
    framework = config.cascade_framework
    return config.replace(**{**defaults, "scoring": "attention", "framework": framework})


def read_again(
    scorer: Any,
    config: RerankerConfig,
    ranked: WindowedScores,
    query: str,
    inputs: RankInputs,
    documents: Sequence[Document],
    cost: Cost,
) -> tuple[WindowedScores, set[int]]:
    """The best documents of a ranking in the order of a second reading.

    Args:
        scorer: of `second_config`.
        config: of the first reading.
        ranked: the distinct documents of ``inputs``, ranked by the first.
        documents: the call's input.
        cost: added to.

    Returns:
        The ranking, and the input positions of documents that were cut for the second reading.
    """
    from icr_rag.frameworks.run import rank_inputs

    second = second_config(config)
    if second is None:
        return ranked, set()
    chosen = ranked.order[: config.cascade]
    best = [documents[inputs.owner.index(unique)] for unique in chosen]
    own = RankInputs(scorer, second, query, best)
    again = rank_inputs(scorer, second, own, cost)
    cut = {chosen[place] for place in own.truncated}
    places = {index for index, unique in enumerate(inputs.owner) if unique in cut}
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
