"""What one replica is: one reranker in a process of its own, behind the server's engine, which
ranks together what waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from icr_rag.config import RerankerConfig
from icr_rag.errors import ICRError, InputError, PromptTooLongError
from icr_rag.server.call import Answers, RerankAnswer, RerankCall
from icr_rag.server.engine import Engine
from icr_rag.server.score_choice import load_served
from icr_rag.server.settings import ServerSettings

#: Calls that fail one after the other, by no fault of theirs, before a replica is given up.
_MOST_FAILURES = 3

#: From a model's settings and the server's, what answers its calls in a replica.
MakeAnswers = Callable[[RerankerConfig, Mapping[str, object]], Answers]


class WarmEngine:
    """`icr_rag.server.engine.Engine` over a reranker that is loaded here; it starts with the first
    call, on that call's event loop.

    Args:
        config: of the reranker.
        settings: fields of `ServerSettings`.

    Raises:
        ConfigError: as `load_served`.
        ModelLoadError: if the model cannot be loaded.
    """

    def __init__(self, config: RerankerConfig, settings: Mapping[str, object]) -> None:
        reranker = load_served(config)
        self._engine = Engine(reranker.config, lambda: reranker, ServerSettings(**settings))

    @property
    def model(self) -> str:
        """The name of the model that is served."""
        return self._engine.model

    async def rerank(self, call: RerankCall) -> RerankAnswer:
        """Rank a call's documents; see `Engine.rerank`."""
        self._engine.start()
        return await self._engine.rerank(call)


class RerankerReplica:
    """One reranker that answers calls of the other processes.

    The model is loaded here, so that a replica that is up is warm.

    Args:
        reranker: fields of `RerankerConfig`.
        settings: fields of `ServerSettings`.
        make: from these what answers calls.

    Raises:
        ConfigError: if a setting is wrong.
        ModelLoadError: if the model cannot be loaded.
    """

    def __init__(
        self,
        reranker: dict[str, object],
        settings: dict[str, object],
        make: MakeAnswers = WarmEngine,
    ) -> None:
        self._answers = make(RerankerConfig(**reranker), settings)
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
