"""What is said, and given, where a deadline left something out."""

from __future__ import annotations

from collections.abc import Sequence

from icr_rag.config import RerankerConfig
from icr_rag.deadline import Deadline
from icr_rag.ranking import Scored, compares_texts, present, unread_score
from icr_rag.types import Document, Usage


def sentence(
    due: Deadline, scored: Scored, blank: int, left_out: Sequence[str] = (), why: str = ""
) -> str | None:
    """What a ranking lacks, or how late it is; None if it is whole and in time.

    Args:
        due: when it was due; looked at now.
        scored: the ranking, near-duplicates and thresholds aside.
        blank: how many documents are not read in any case.
        left_out: steps that there was no time for, as clauses.
        why: what took the time, as a clause, where that is known.
    """
    found = []
    readable = len(scored.scores) - blank
    unscored = len(scored.unscored)
    if unscored and unscored == readable:
        found.append(f"none of {readable} documents was scored, all keep their given order")
    elif unscored:
        where = "above" if scored.order and scored.order[0] in scored.unscored else "below"
        found.append(
            f"{readable - unscored} of {readable} documents were scored, the rest keep their "
            f"given order {where} them"
        )
    found += left_out
    late = -due.until
    if late > 0:
        found.append(f"the answer is {1000 * late:.3g} ms late")
    if not found:
        return None
    if why:
        found.append(why)
    return f"deadline of {due.milliseconds:g} ms: {'; '.join(found)}"


def embedding(due: Deadline | None, begin: float) -> str:
    """That an embedder took most of the time, as a clause; "" if it did not.

    Args:
        begin: seconds of the deadline's that were gone before.
    """
    if due is None:
        return ""
    seconds = due.elapsed - begin
    took = seconds > max(0.001, 0.5 * due.seconds)
    return f"the embedder took {1000 * seconds:.0f} ms" if took else ""


def given_order(
    documents: Sequence[Document], config: RerankerConfig
) -> tuple[Scored, int, list[str]]:
    """All documents in their given order, none with a score; blank ones come last, as ever.

    Returns:
        The ranking, how many documents are blank, and what else was left out.
    """
    readable = [n for n, document in enumerate(documents) if document.content.strip()]
    blank = sorted(set(range(len(documents))) - set(readable))
    score, count = unread_score(config), len(documents)
    plain = Scored([*readable, *blank], [score] * count, [-1] * count, unscored=frozenset(readable))
    left_out = [NOT_COMPARED] if compares_texts(config) else []
    left_out += left_out_of(config, compared=False)
    return present(plain, documents, config, compare=False), len(blank), left_out


def left_out_of(config: RerankerConfig, *, compared: bool = True) -> list[str]:
    """What only a whole list allows, as clauses.

    Args:
        compared: whether texts were compared; if not, that is said already.
    """
    judged = [] if config.min_answerable is None else ["whether anything answers was not judged"]
    spread = ["diversity was left aside"] if compared and config.diversity is not None else []
    return [*judged, *spread]


#: That there was no time for it, as a clause.
NOT_COMPARED = "texts were not compared with each other"


def unscored_usage(due: Deadline, scored: Scored) -> Usage:
    """What a call cost that scored nothing."""
    return Usage(unscored=tuple(sorted(scored.unscored)), seconds={"total": due.elapsed})
