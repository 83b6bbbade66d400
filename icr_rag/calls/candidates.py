"""A call's candidates as token ids: each content once, cut where it must be and said so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from icr_rag.errors import InputError, PromptTooLongError, shown
from icr_rag.frameworks.result import WindowedScores
from icr_rag.order import UNREAD, below
from icr_rag.ranking import Scored
from icr_rag.scoring.base import Scorer
from icr_rag.types import Document


class Candidates:
    """A call's query and documents as token ids: each content once, cut where it must be.

    Attributes:
        query_ids: the query rows.
        token_ids: per distinct, non-blank content, in input order.
        owner: per input document, its place in ``token_ids``; None for a blank document.
        budget: most tokens in one prompt.
        context: the model's, in tokens; None if its configuration does not say.
        truncated: input positions of documents that were cut.
        query_truncated: whether the query was.
    """

    def __init__(
        self,
        scorer: Scorer,
        query: str,
        documents: Sequence[Document],
        *,
        within_reach: bool = True,
        most: int | None = None,
    ) -> None:
        """Tokenise and cut.

        Args:
            scorer: by whose prompts and settings inputs are measured.
            query, documents: checked.
            within_reach: documents must be seen by the layers that are read; False: what these
                do not see may be in the prompt.
            most: tokens of a document, where the call limits them beside ``max_document_tokens``.
        """
        config = scorer.config
        self._prompts = scorer.prompts
        place: dict[str, int] = {}
        self.owner: list[int | None] = []
        for document in documents:
            content = document.content
            blank = not content.strip()
            self.owner.append(None if blank else place.setdefault(content, len(place)))
        with scorer.engine.lock:
            query_ids = self._prompts.encode_query(query)
            token_ids = self._prompts.encode_documents(list(place))
        if not query_ids:
            raise InputError(f"the query {shown(query)} has no character that the tokenizer knows")
        if not all(token_ids):
            # Characters that the tokenizer lacks leave nothing to read either.
            kept = [old for old, ids in enumerate(token_ids) if ids]
            new_place = {old: new for new, old in enumerate(kept)}
            self.owner = [None if old is None else new_place.get(old) for old in self.owner]
            token_ids = [token_ids[old] for old in kept]

        limit = config.max_query_tokens
        self.query_truncated = limit is not None and len(query_ids) > limit
        self.query_ids = query_ids[:limit]
        self.context = scorer.reach if within_reach else scorer.engine.context
        limits = [n for n in (config.token_budget, self.context) if n is not None]
        self.budget: int = min(limits) if limits else 2**31
        self._overhead = self._prompts.overhead(self.query_ids)
        # Documents that stand side by side do not use up the model's context.
        self._capacity = self.budget if scorer.capacity is None else scorer.capacity

        # So many documents must fit in one prompt: windows could not slide with fewer than two.
        together = scorer.together
        per_document = (self.budget - self._overhead) // together - self._prompts.document_cost(
            [], max(together, len(token_ids))
        )
        if per_document < scorer.least:
            raise PromptTooLongError(
                f"the query has {len(self.query_ids)} tokens and the prompt around it "
                f"{self._overhead - len(self.query_ids)}, but one prompt holds {self.budget}, "
                "which leaves no room for documents; set max_query_tokens or a larger token_budget"
            )
        per_document = min(
            n for n in (per_document, config.max_document_tokens, most) if n is not None
        )
        self.token_ids = [ids[:per_document] for ids in token_ids]
        self.truncated = tuple(
            index
            for index, unique in enumerate(self.owner)
            if unique is not None and len(token_ids[unique]) > per_document
        )

    def cost(self, items: Sequence[int]) -> int:
        """Tokens of a prompt with these documents."""
        total: int = self._overhead + sum(
            self._prompts.document_cost(self.token_ids[item], len(items)) for item in items
        )
        return total

    def fits(self, items: Sequence[int]) -> bool:
        """Whether these documents fit in one prompt."""
        return self.cost(items) <= self._capacity

    def spread(
        self,
        ranked: WindowedScores,
        *,
        absolute: bool = False,
        owner: Sequence[int | None] | None = None,
    ) -> Scored:
        """The ranking of the distinct contents, for the input documents.

        Args:
            absolute: no document's score may depend on the others, nor that of a blank one.
            owner: per input document, its item in ``ranked``; None: `owner`.
        """
        owners = self.owner if owner is None else owner
        blank_score = UNREAD if absolute else below(ranked.scores)
        unread = {None, *(ranked.unscored if absolute else ())}
        all_scores = [blank_score if u is None or u in unread else ranked.scores[u] for u in owners]
        all_groups = [-1 if u is None else ranked.groups[u] for u in owners]
        last = len(ranked.order)
        above = set(takewhile(ranked.unscored.__contains__, ranked.order))
        rank = {
            # What has no score has one place, so that inputs of one content keep theirs.
            unique: (-1 if unique in above else last - 1) if unique in ranked.unscored else place
            for place, unique in enumerate(ranked.order)
        }
        all_order = sorted(
            range(len(owners)),
            key=lambda index: last if (u := owners[index]) is None else rank[u],
        )
        unscored = frozenset(n for n, u in enumerate(owners) if u in ranked.unscored)
        return Scored(all_order, all_scores, all_groups, unscored=unscored)

    def gather(
        self, scores: Sequence[float | None], owner: Sequence[int | None] | None = None
    ) -> list[float | None]:
        """First-stage scores of the distinct contents: the best of those that share one; None
        where none of these has a score.

        Args:
            scores: one per input document.
            owner: as in `spread`.
        """
        owners = self.owner if owner is None else owner
        count = 1 + max((u for u in owners if u is not None), default=-1)
        best: list[float | None] = [None] * count
        for unique, value in zip(owners, scores, strict=True):
            if unique is not None and value is not None:
                known = best[unique]
                best[unique] = value if known is None else max(known, value)
        return best
