"""START HERE: a query's way from text to ranking.

`Reranker` checks what it is given, loads the model when it is first needed (`calls.load`), and
hands over to the steps in `calls`: rank, rank many, encode, read attention. `calls.rank` reads as
the steps of one ranking.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icr_rag.arguments import (
    RetrievalScores,
    check_deadline,
    check_instruction,
    check_max_tokens,
    check_query,
    check_top_n,
)
from icr_rag.calls.embedder import carried, maker, replaced, switched, with_embedder
from icr_rag.calls.embedding_models import EmbedderLike
from icr_rag.calls.in_time import answer_in_time, nothing_scored, rank_in_turn
from icr_rag.calls.notices import tell_cuts, tell_degraded
from icr_rag.calls.rank import Ranked
from icr_rag.calls.rank_many import check_lists, rank_lists
from icr_rag.calls.request import FirstStage, Request
from icr_rag.calls.scorers import Scorers
from icr_rag.calls.traces import traced_ranking
from icr_rag.config import RerankerConfig
from icr_rag.deadline import Clock, Deadline, OutOfTime, begun
from icr_rag.errors import ClosedError, ConfigError, brief
from icr_rag.fields import Given, check_given
from icr_rag.frameworks.combine import check_scores
from icr_rag.model.device import release_cached_memory
from icr_rag.ranking import make_ranking, present, unread, unread_score
from icr_rag.types import AttentionReading, DocumentLike, Encoded, Ranking, Usage
from icr_rag.worker import Worker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icr_rag.calls.instructed import Made
    from icr_rag.model.engine import Engine
    from icr_rag.scoring.base import Scorer

logger = logging.getLogger(__name__)


class Reranker:
    """Ranks documents by what an LLM makes of them: its attention, a likelihood, or both.

    Making one is cheap; the model is loaded on first use or by `warm_up`. Rerankers with the same
    model settings share the weights. Safe under threads: calls take turns on the model.

    Args:
        config: settings; None: the defaults.
        embedder: an embedding model of LangChain, LlamaIndex or sentence-transformers; or a name,
            as the setting. Where the first stage gives no scores that are alike to cosines, those
            of its vectors count (``fusion="auto"``). Not changed; its vectors are kept by text.
        **fields: fields of `RerankerConfig` that replace those of ``config``.

    Raises:
        ConfigError: if a field is unknown or has a value that is not allowed.
    """

    def __init__(
        self,
        config: RerankerConfig | None = None,
        *,
        embedder: EmbedderLike | None = None,
        **fields: Any,
    ) -> None:
        self.config, self._embedder = with_embedder(config or RerankerConfig(), embedder, fields)
        self._scorers = Scorers()
        self._worker = Worker()
        # A short list does not wait for a long one.
        self._composers = Worker(threads=4)
        #: What deadlines and paces are read from.
        self._clock: Clock = time.perf_counter

    @classmethod
    def from_model(
        cls, model: Any, tokenizer: Any, config: RerankerConfig | None = None, **fields: Any
    ) -> Reranker:
        """A reranker on weights that are already loaded.

        No weight is copied and nothing in the model is changed, not even during a call: calls
        run on a view of its lower layers, so that it may generate meanwhile.

        Args:
            model: a decoder-only transformers model, with or without LM head.
            tokenizer: its tokenizer.
            config: settings; those about loading are not used, ``model`` is only a name.
            **fields: fields of `RerankerConfig` that replace those of ``config``; ``embedder``.

        Raises:
            InputError: if ``model`` is no model or ``tokenizer`` no tokenizer.
            UnsupportedModelError: if the model has no list of decoder layers.
            ModelLoadError: if the tokenizer has tokens that the model has no embedding for.
        """
        from icr_rag.model.checks import check_given

        check_given(model, tokenizer)
        reranker = cls(config, **fields)
        if reranker.config.model == RerankerConfig.model_fields["model"].default:
            # Traces name the model, and settings that are saved must not stand for other weights.
            name = getattr(model.config, "_name_or_path", "") or type(model).__name__
            reranker.config = reranker.config.replace(model=name)
        reranker._scorers.foreign = (model, tokenizer)
        return reranker

    def with_config(self, **changes: Any) -> Reranker:
        """A reranker with some settings changed, on the same weights where these are the same."""
        return self._with(type(self)(replaced(self.config, changes), **changes), changes)

    def switched(self, **changes: Any) -> Reranker:
        """As `with_config`, for another method: settings that mean nothing to it have their
        defaults; see `RerankerConfig.switched`."""
        return self._with(type(self)(**switched(self.config, changes)), changes)

    def _with(self, other: Reranker, changes: Mapping[str, Any]) -> Reranker:
        if "embedder" not in changes:
            other._embedder = carried(self._embedder, other._embedder, other.config)
        # Another model's name is a wish for other weights.
        if other.config.model == self.config.model:
            other._scorers.foreign = self._scorers.foreign
        return other

    # --- ranking ----------------------------------------------------------------------------

    def rank(
        self,
        query: str,
        documents: Sequence[DocumentLike],
        top_n: int | None = None,
        *,
        retrieval_scores: RetrievalScores | None = None,
        deadline_ms: float | None = None,
        instruction: str | None = None,
        max_tokens_per_doc: int | None = None,
    ) -> Ranking:
        """Rank ``documents`` for ``query``.

        Args:
            query: not blank.
            documents: in first-stage order, best first. Strings, `Document` objects, or mappings
                with "text" (and "title"); with ``rank_fields`` any mappings. Not changed.
            top_n: how many hits to return; None: the configuration's, and if that is None, all.
            retrieval_scores: the first stage's, one per document, higher is better, None where
                there is none; a list, array or tensor, or several by name. The setting ``fusion``
                says how they count: "none" does not look at them, "weighted" needs them, "prior"
                and "rrf" go by the order of ``documents`` where there are none, or one lacks.
            deadline_ms: milliseconds from now on in which to answer with what can be done until
                then; the ranking's ``degraded`` says what could not. None: the configuration's;
                ``math.inf``: none in this call.
            instruction: for this call, as the setting; None: the setting. The latest are kept
                ready, and document states and profiles are those of all instructions.
            max_tokens_per_doc: most tokens of a document that this call reads, its title counted;
                the rest is cut, as by the setting ``max_document_tokens``, the smaller of the two
                counting, and ``usage.truncated`` says of which.

        Returns:
            Hits, best first, and one score per input document; higher is better. Scores are
            relative to this query and this list, unless ``score_mode`` is "explained" or
            "probability". Documents with the same content are read once and share a score; ties
            keep input order. Blank documents come last.

        Raises:
            InputError: for a blank query, a document without text, or a wrong instruction.
            PromptTooLongError: if the query leaves no room for two documents.
            ModelLoadError: if the model cannot be loaded.

        With ``on_error="passthrough"`` only mistakes in settings, ``documents``, ``top_n`` and
        ``instruction`` and ``max_tokens_per_doc`` raise; whatever else goes wrong is in the
        ranking's ``error``.
        """
        due = self._begun(deadline_ms)
        ask = functools.partial(Request.of, self.config, self._clock, query, documents, top_n)
        return self._rank(ask(retrieval_scores, due, instruction, max_tokens_per_doc))

    def _rank(self, request: Request, answered: Scorer | None = None) -> Ranking:
        if self.config.traces == "none":
            return self._ranked(request, answered)
        return traced_ranking(self.config, request, lambda: self._ranked(request, answered))

    def _ranked(self, request: Request, answered: Scorer | None = None) -> Ranking:
        given, top_n = request.documents, request.top_n
        try:
            done = self._score(request, answered)
        except Exception as error:
            if self.config.on_error == "raise" or isinstance(error, (ConfigError, ClosedError)):
                raise
            logger.exception("ranking failed; the documents keep their given order")
            reason = brief(f"{type(error).__name__}: {error}")
            return make_ranking(given, unread(len(given)), Usage(), top_n, reason)
        if done.usage.truncated or done.usage.query_truncated:
            tell_cuts(done.usage, len(given), self.config, done.context, request.max_tokens_per_doc)
        if done.degraded is not None and not request.answered:
            tell_degraded(done.degraded)
        return make_ranking(given, done.scored, done.usage, top_n, degraded=done.degraded)

    def _score(self, request: Request, answered: Scorer | None = None) -> Ranked:
        """Check, load, and go through the steps."""
        started = request.busy
        query, given = request.query, request.read
        check_query(query)
        first_stage = FirstStage(request.first_stage(self.config), self._embedder)
        if not any(document.content.strip() for document in given):
            none = unread(len(given), unread_score(self.config))
            return Ranked(present(none, given, self.config, 0), Usage())
        self._scorers.check_open()
        if self.config.fusion == "weighted":
            check_scores(first_stage.columns)
        try:
            if request.given_up:
                raise OutOfTime
            scorers = self._held(request.due, request.instruction)
        except OutOfTime:
            return nothing_scored(self.config, request, loading=self._scorers.made is None)
        loaded = request.busy - started
        return rank_in_turn(scorers, self.config, request, first_stage, loaded, answered)

    async def arank(
        self,
        query: str,
        documents: Sequence[DocumentLike],
        top_n: int | None = None,
        *,
        retrieval_scores: RetrievalScores | None = None,
        deadline_ms: float | None = None,
        instruction: str | None = None,
        max_tokens_per_doc: int | None = None,
    ) -> Ranking:
        """`rank` in a worker thread; the event loop stays free.

        A cancelled call that has started finishes in its thread and its result is dropped. So does
        one that has not ended at its deadline: the given order is returned then, in time.
        """
        due = self._begun(deadline_ms)
        if due is None:
            # By `rank`, so that a class that has its own is asked on both paths.
            call = functools.partial(
                self.rank, query, documents, top_n, retrieval_scores=retrieval_scores,
                deadline_ms=deadline_ms, instruction=instruction,
                max_tokens_per_doc=max_tokens_per_doc,
            )  # fmt: skip
            return await self._worker.run(call)
        ask = functools.partial(
            Request.of, self.config, self._clock, query, documents, top_n,
            retrieval_scores, due, instruction, max_tokens_per_doc,
        )  # fmt: skip
        return await answer_in_time(self._composers, self._worker, due, ask, self._rank)

    def rank_many(
        self,
        queries: Sequence[str],
        document_lists: Sequence[Sequence[DocumentLike]],
        top_n: int | None = None,
        *,
        deadline_ms: float | None = None,
        instruction: str | None = None,
        max_tokens_per_doc: int | None = None,
    ) -> list[Ranking]:
        """`rank` for each query with its own list of documents; other arguments are for all.

        Queries share passes: over any lists where documents are judged one by one (likelihood,
        pointwise attention, mixed), over the same list where one tail reads kept states. Scores
        are `rank`'s, up to rounding; what fails in a shared pass is read again query by query.

        ``deadline_ms`` is one query's: it counts from when its turn comes, a pass that it shares
        with others included; it shares where earlier calls tell that there is time.

        Raises:
            InputError: if there are not as many lists as queries.
        """
        check_lists(queries, document_lists)
        asked, own = check_top_n(top_n, self.config.top_n), check_instruction(instruction)
        milliseconds = check_deadline(deadline_ms, self.config.deadline_ms)
        most = check_max_tokens(max_tokens_per_doc)
        ask = functools.partial(Request, top_n=asked, clock=self._clock, instruction=own)
        return rank_lists(
            self.config,
            lambda due: self._held(due, own)[0],
            lambda query, given, answered, due: self._rank(
                ask(query, given.documents, due=due, fields=given.read, max_tokens_per_doc=most),
                answered,
            ),
            queries,
            [self._check_given(documents) for documents in document_lists],
            functools.partial(begun, milliseconds, self._clock),
            most,
        )

    def read_attention(
        self, query: str, documents: Sequence[DocumentLike], *, instruction: str | None = None
    ) -> AttentionReading:
        """The readings that `rank` adds up, for one prompt with all documents.

        Where ranking reads no such prompt, the same layers are read, all heads, or all layers.

        Raises:
            ConfigError: with ``passages``, of which no prompt holds whole documents.
            InputError: for a blank query, no documents, or only blank ones.
            PromptTooLongError: if the documents do not fit in one prompt.
        """
        from icr_rag.calls.attention import read_attention

        own = check_instruction(instruction)
        config = self.config if own is None else self.config.replace(instruction=own)
        read = self._check_given(documents).read
        return read_attention(lambda: self._held(instruction=own)[0], config, query, read)

    def encode(
        self,
        documents: Sequence[DocumentLike],
        progress: Callable[[int, int], None] | None = None,
    ) -> Encoded:
        """Encode documents ahead of time, so that ranking them costs the query's tokens only.

        What is stored already is not encoded again; interrupted, the same call goes on.

        Args:
            documents: as in `rank`. Not changed. Blank ones have no states.
            progress: called with (finished, all) distinct documents.

        Raises:
            ConfigError: with ``document_states="joint"``, which keeps nothing.
            InputError: for a document without text.
        """
        from icr_rag.calls.encode import encode_ahead

        read = self._check_given(documents).read
        return encode_ahead(lambda: self.scorer, self.config, read, progress)

    # --- life cycle -------------------------------------------------------------------------

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The transformers tokenizer in use; loads the model if it is not loaded."""
        tokenizer: PreTrainedTokenizerBase = self.engine.tokenizer
        return tokenizer

    @property
    def scorer(self) -> Scorer:
        """What judges windows of documents (`icr_rag.scoring.base`); loads the model if need be."""
        return self._held()[0]

    @property
    def engine(self) -> Engine:
        """The loaded weights, shared with other rerankers; loads them if they are not."""
        return self.scorer.engine

    def warm_up(self) -> Reranker:
        """Load the model now and run it once; returns this reranker."""
        # Not `rank`, which may let a failure through.
        self._score(Request.to_warm_up(self.config, self._clock))
        return self

    def close(self) -> None:
        """Let go of the model. Memory is freed when no other reranker shares it.

        A call that is under way ends as it would have; calls that wait raise `ClosedError`.
        """
        self._scorers.close()
        self._composers.close()
        self._worker.close()
        release_cached_memory()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> Reranker:
        """The same reranker: its configuration is immutable and its weights are to be shared."""
        return self

    def __reduce__(self) -> Any:
        self._scorers.check_portable()
        return maker(type(self), self._embedder), (self.config,)

    def __repr__(self) -> str:
        return self._scorers.told(self.config)

    def _held(self, due: Deadline | None = None, instruction: str | None = None) -> Made:
        return self._scorers.get(self.config, self._make_scorers, due, instruction)

    def _make_scorers(self, due: Deadline | None = None) -> Made:
        return self._scorers.make(self.config, due)

    def _begun(self, deadline_ms: float | None) -> Deadline | None:
        return begun(check_deadline(deadline_ms, self.config.deadline_ms), self._clock)

    def _check_given(self, documents: Sequence[DocumentLike]) -> Given:
        return check_given(documents, self.config.rank_fields, self.config.rank_fields_format)
