"""The scorers of one reranker: made when they are first asked for, let go of when it closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from icr_rag.calls.instructed import Instructed
from icr_rag.config import RerankerConfig
from icr_rag.deadline import Deadline
from icr_rag.errors import ClosedError, InputError
from icr_rag.method import AUTO
from icr_rag.model.forking import check_process, computing
from icr_rag.model.turns import Turns, turn

if TYPE_CHECKING:
    from icr_rag.calls.instructed import Made


class Scorers:
    """Makes scorers, which may load the model, and keeps them. Safe under threads.

    Attributes:
        foreign: model and tokenizer that are loaded already; None: the configuration names them.
        made: the scorer and that of a second reading; None: none are made yet.
        instructed: those for the instructions of calls.
        making: held while they are made, never on an event loop.
    """

    def __init__(self) -> None:
        self.foreign: tuple[Any, Any] | None = None
        self.made: Made | None = None
        self.instructed = Instructed()
        self.making = Turns()
        self._closed = False

    def get(
        self,
        config: RerankerConfig,
        make: Callable[[Deadline | None], Made],
        due: Deadline | None = None,
        instruction: str | None = None,
    ) -> Made:
        """Both scorers, or an error: a cascade whose second one cannot be made does not rank.

        Loading cannot be stopped; only waiting for others, which load or hold the model, ends at a
        deadline.

        Args:
            config: of the reranker, the same in every call.
            make: makes both until the deadline, as `make` does.
            due: when the answer is; None: there is no deadline.
            instruction: of the call; None: that of the settings.

        Raises:
            OutOfTime: if others take too long.
            ClosedError: if they were let go of.
        """
        found = self.made
        if found is None:
            with turn(self.making.lock, due):
                found = self.made or make(due)
                self.check_open()
                self.made = found
        self.check_open()
        check_process(found[0].engine.device)
        if instruction is None or instruction == config.instruction:
            return found
        found = self.instructed.get(found, config, instruction, due)
        self.check_open()
        return found

    def check_open(self) -> None:
        """Raise `ClosedError` if they were let go of."""
        if self._closed:
            raise ClosedError("this Reranker was closed; make a new one")

    def check_portable(self) -> None:
        """Raise `InputError` if they are on weights that only this process has."""
        if self.foreign is not None:
            raise InputError(
                "a Reranker made by from_model cannot be pickled: its weights live in this "
                "process; make one there from a configuration"
            )

    def told(self, config: RerankerConfig) -> str:
        """A reranker as its repr says it: its settings and, once the model is known, what
        scoring="auto" stands for."""
        settings = ", ".join(f"{name}={value!r}" for name, value in config.changed().items())
        made = f"Reranker({settings})"
        if config.scoring != AUTO or self.made is None:
            return made
        scorer, _ = self.made
        return f"{made}  # scoring={scorer.config.scoring!r}: {scorer.reason}"

    def close(self) -> None:
        """Let go of them. Takes no turn: a call that is loading finds out when it is done."""
        self._closed = True
        self.made = None
        self.instructed.clear()
        self.foreign = None

    def make(self, config: RerankerConfig, due: Deadline | None = None) -> Made:
        """Both scorers, made anew; loads the model unless others share it.

        Raises:
            OutOfTime: if other rerankers load or hold the same model for too long.
        """
        from icr_rag.calls.load import load_scorers, scorers_on
        from icr_rag.model.loading import engine_from_model

        self.check_open()
        check_process("cpu")
        computing()
        if self.foreign is None:
            return load_scorers(config, due)
        engine = engine_from_model(*self.foreign, config.attn_implementation)
        return scorers_on(engine, config, due)
