"""Writing under a deadline: transformers' `generate`, given up between two tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from icr_rag.deadline import deadline, step
from icr_rag.model.passes import wait_for

#: What is measured: prompts up to their first token, and each further token of so many answers.
PROMPTS, _TOKEN = "prompts", "token"


@contextmanager
def token_by_token(
    tokens: int, answers: int, most: int, stop: Collection[int]
) -> Iterator[dict[str, Any]]:
    """Arguments for `generate` inside the block; none without a deadline.

    Args:
        tokens: of all prompts, padding included.
        answers: that are written side by side.
        most: tokens of one answer.
        stop: tokens that end an answer.

    Raises:
        OutOfTime: if the prompts, or a token, would take longer than there is time.
    """
    if deadline() is None:
        yield {}
        return
    with ExitStack() as under_way:
        under_way.enter_context(step(PROMPTS, tokens, inner=True))
        yield {"stopping_criteria": StoppingCriteriaList([_Watch(under_way, answers, most, stop)])}


class _Watch(StoppingCriteria):
    """Sees each token when it is written. It never ends an answer: it measures, or raises."""

    def __init__(
        self, under_way: ExitStack, answers: int, most: int, stop: Collection[int]
    ) -> None:
        self._under_way = under_way
        self._answers = answers
        self._left = most
        self._stop = torch.tensor(sorted(stop))
        self._ended: torch.Tensor | None = None

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **unused: Any
    ) -> torch.BoolTensor:
        """False for every answer."""
        wait_for(input_ids.device)
        # The step that this token ends; where it was the last one, none begins.
        self._under_way.close()
        self._left -= 1
        ends = torch.isin(input_ids[:, -1], self._stop.to(input_ids.device))
        self._ended = ends if self._ended is None else self._ended | ends
        if self._left > 0 and not bool(self._ended.all()):
            self._under_way.enter_context(step(_TOKEN, self._answers))
        return torch.zeros_like(ends)  # type: ignore[return-value]
