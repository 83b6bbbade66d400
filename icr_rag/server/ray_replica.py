"""What one replica is: one reranker in a process of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable

from icr_rag.config import RerankerConfig
from icr_rag.errors import ICRError, InputError, PromptTooLongError
from icr_rag.reranker import Reranker
from icr_rag.server.call import Answers, RerankAnswer, RerankCall
from icr_rag.types import Ranking

logger = logging.getLogger(__name__)

#: Calls that fail one after the other, by no fault of theirs, before a replica is given up.
_MOST_FAILURES = 3


class RerankerAnswers:
    """`icr_rag.server.call.Answers` by one reranker, whose calls take turns.

    The first stage does not count, since calls carry nothing of it.

    Args:
        reranker: is closed by `close`.
    """

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker

    @property
    def model(self) -> str:
        """The name of the model that is served."""
        return self._reranker.config.model

    def warm_up(self) -> None:
        """Load the model and run it once."""
        self._reranker.warm_up()

    async def rerank(self, call: RerankCall) -> RerankAnswer:
        """Rank a call's documents; see `icr_rag.server.call.Answers.rerank`."""
        ranking = await self._reranker.arank(
            call.query,
            call.documents,
            len(call.documents),
            deadline_ms=call.deadline_ms,
            instruction=call.instruction,
            max_tokens_per_doc=call.max_tokens_per_doc,
        )
        return answer_of(ranking, self._reranker.config)

    def close(self) -> None:
        """Let go of the model."""
        self._reranker.close()


def answer_of(ranking: Ranking, config: RerankerConfig) -> RerankAnswer:
    """A ranking as what a call is answered: every document, those that a setting left out last."""
    order = [hit.index for hit in ranking]
    shown = set(order)
    order += [place for place in range(len(ranking.scores)) if place not in shown]
    return RerankAnswer(
        model=config.model,
        scores=ranking.scores,
        order=tuple(order),
        probability=config.score_mode == "probability",
        tokens=ranking.usage.tokens,
        truncated=ranking.usage.truncated,
        degraded=ranking.error or ranking.degraded,
        seconds=tuple(ranking.usage.seconds.items()),
    )


def plain_answers(config: RerankerConfig) -> Answers:
    """A reranker with its model loaded, the first stage out of it, and without a queue."""
    answers = RerankerAnswers(Reranker(config.replace(fusion="none")))
    answers.warm_up()
    return answers


class RerankerReplica:
    """One reranker that answers calls of the other processes.

    The model is loaded here, so that a replica that is up is warm.

    Args:
        settings: fields of `RerankerConfig`.
        make: from the settings what answers calls.

    Raises:
        ConfigError: if a setting is wrong.
        ModelLoadError: if the model cannot be loaded.
    """

    def __init__(
        self,
        settings: dict[str, object],
        make: Callable[[RerankerConfig], Answers] = plain_answers,
    ) -> None:
        self._answers = make(RerankerConfig(**settings))
        self._failures = 0

    async def rerank(self, call: RerankCall, key: str) -> RerankAnswer | ICRError:
        """The answer to a call, or what is wrong with it.

        An error of this library is returned, so that it arrives as what it is, without the stack
        of another process.

        Args:
            call: what to rank.
            key: by which the router chose this replica; of no use here.
        """
        try:
            answer = await self._answers.rerank(call)
        except (InputError, PromptTooLongError) as error:
            return error
        except ICRError as error:
            self._failures += 1
            return error
        except Exception:
            self._failures += 1
            raise
        self._failures = 0
        return answer

    def check_health(self) -> None:
        """Asked by Serve every few seconds, which replaces a replica where this raises.

        A process whose accelerator is broken fails every call, and does not mend itself.
        """
        if self._failures >= _MOST_FAILURES:
            raise RuntimeError(f"the last {self._failures} calls failed; see the replica's log")
