"""Likelihood of short answers: by the tokens that the tokenizer emits for them after the prompt.

Most labels are one token. Where one is several, their likelihoods are multiplied: the tokens
before the last are run as tails side by side, each seeing the prompt and itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from icr_rag.prompts.encoding import Encoder
from icr_rag.prompts.layout import Tail


class LabelTokens:
    """Log-likelihoods of ``labels`` after a prompt.

    Args:
        encoder: of the tokenizer in use.
        labels: at least one, none empty.
        before: the text that the prompt ends with, if it can merge with a label.
    """

    def __init__(self, encoder: Encoder, labels: Sequence[str], before: str = "") -> None:
        alone = encoder.encode([before])[0] if before else []
        self.ids: list[list[int]] = []
        for label in labels:
            together = encoder.encode([before + label])[0]
            kept = together[: len(alone)] == alone
            self.ids.append(together[len(alone) :] if kept else encoder.encode([label])[0])
        #: What to run behind the prompt.
        self.tails = [Tail(ids[:-1], slice(0, len(ids) - 1)) for ids in self.ids if len(ids) > 1]

    def __call__(self, logits: torch.Tensor, prompts: Sequence[int] = ()) -> torch.Tensor:
        """[prompt, label]: natural logarithm of each label's probability.

        Args:
            logits: [prompt, 1 + tail tokens, vocabulary], as `icr_rag.model.batch.Reduce` has it.
            prompts: which they are does not matter: the labels are all prompts'.
        """
        probabilities = logits.log_softmax(dim=-1)
        result = []
        row = 1
        for ids in self.ids:
            total = probabilities[:, 0, ids[0]]
            for token in ids[1:]:
                total = total + probabilities[:, row, token]
                row += 1
            result.append(total)
        return torch.stack(result, dim=1)
