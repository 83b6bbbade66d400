"""Greedy text generation with transformers' own `generate`, on a twin of the model.

Of the model's own generation settings only the tokens that end an answer are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from icr_rag.deadline import in_parts
from icr_rag.model import tap
from icr_rag.model.anatomy import Way
from icr_rag.model.passes import check_seen, input_device, within_memory
from icr_rag.model.runner import causal_view
from icr_rag.model.token_by_token import PROMPTS, token_by_token
from icr_rag.prompts.layout import PromptBatch


@dataclass(frozen=True)
class Generated:
    """Answers, one per prompt.

    Attributes:
        texts: without control tokens.
        tokens: how many were generated, all prompts together.
    """

    texts: list[str]
    tokens: int


@torch.inference_mode()
def generate(
    engine: Any, batch: PromptBatch, new_tokens: int, chunk: int | None = None
) -> Generated:
    """Continue every prompt, always with the likeliest token.

    Args:
        engine: the model, with its LM head.
        batch: prompts; tails are not run.
        new_tokens: most tokens of one answer.
        chunk: prompt tokens run at once; None: the engine's.

    Raises:
        UnsupportedModelError: if the weights have no LM head.
        DeviceMemoryError: if the accelerator has too little memory.
        OutOfTime: if the next token would come behind the deadline of the call.
    """
    tap.register()
    view = causal_view(engine)
    anatomy = engine.anatomy(None)
    device = input_device(engine.decoder)
    prompts = [[*batch.head_ids, *body] for body in batch.bodies]
    # Through the tap, which reads nothing here, but knows what to do where the kernel cannot.
    current = tap.Pass(
        engine.kernel,
        None,
        adds_masks=anatomy.own_attention,
        expected=anatomy.expected(None),
    )
    with engine.lock, tap.running(current):
        size = engine.chunk if chunk is None else chunk
        what = f"prompts of up to {max(map(len, prompts))} tokens"
        result, _ = within_memory(
            lambda most: _generate(
                view, engine.tokenizer, prompts, new_tokens, most, device, anatomy.way
            ),
            size,
            what,
            device,
        )
    check_seen(current, view)
    return result


def _generate(
    view: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    size: int,
    device: torch.device,
    way: Way,
) -> Generated:
    from transformers import GenerationConfig

    own = getattr(view, "generation_config", None)
    ends = getattr(own, "eos_token_id", None)
    if ends is None:
        ends = tokenizer.eos_token_id
    stop = set(ends if isinstance(ends, (list, tuple)) else [] if ends is None else [ends])
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = min(stop, default=0)
    settings = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=pad,
        use_cache=way != "whole",
    )
    # `generate` fills what is not set from the model's own settings: a repetition penalty there
    # would make it write other than the likeliest tokens. The twin gets ours in their place, and
    # so does every model inside it (an adapter's wrapper calls the one that it wraps).
    for module in view.modules():
        if "generation_config" in vars(module):
            module.generation_config = settings
    texts: dict[int, str] = {}
    count = 0
    longest_first = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    while longest_first:
        # What cannot be padded is continued by itself.
        most = in_parts(PROMPTS, size, size)
        room = max(1, most // len(prompts[longest_first[0]])) if way == "packed" else 1
        members, longest_first = longest_first[:room], longest_first[room:]
        width = len(prompts[members[0]])
        ids = [[pad] * (width - len(prompts[i])) + list(prompts[i]) for i in members]
        mask = [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in members]
        with token_by_token(width * len(members), len(members), new_tokens, stop) as criteria:
            output = view.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=settings,
                **criteria,
            )
        for member, row in zip(members, output[:, width:].tolist(), strict=True):
            end = next((place for place, token in enumerate(row) if token in stop), len(row))
            count += min(len(row), end + 1)
            texts[member] = tokenizer.decode(row[:end], skip_special_tokens=True)
    return Generated([texts[i] for i in range(len(prompts))], count)
