"""One tail over documents that were encoded independently: it sees all of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from icr_rag.model import tap
from icr_rag.model.engine import Engine
from icr_rag.model.passes import check_read, input_device, run_pass
from icr_rag.model.reading import DocumentReader, TokenReader
from icr_rag.model.view import make_view
from icr_rag.prompts.layout import IndependentPrompt
from icr_rag.states.document_states import DocumentStates
from icr_rag.states.gather import gather_list

if TYPE_CHECKING:
    pass


@torch.inference_mode()
def run_shared_tail(
    engine: Engine,
    states: DocumentStates,
    prompt: IndependentPrompt,
    layers: Sequence[int],
    reader: TokenReader | DocumentReader,
) -> int:
    """Run the tails over the documents' states; ``reader`` reads them.

    Every document begins where the head ends, and the tails begin where the longest document
    ends: with one document this is the prompt as it is read from left to right.

    Returns:
        How many tokens were run, for documents that were not in the store included.

    Raises:
        UnsupportedModelError: if a layer did not come by the attention tap.
    """
    tap.register()
    anatomy = engine.anatomy(layers[-1])
    anatomy.check_readable(layers)
    last = layers[-1]
    found, run = states.states(prompt.bodies)
    before = len(prompt.head_ids)
    cache = gather_list(states.head(), found, prompt.tail_tokens, states.in_one_buffer)
    longest = max(map(len, prompt.bodies))
    places = list(range(before))
    for body in prompt.bodies:
        places += range(before, before + len(body))

    start = before + longest
    token_ids, positions, packed = pack_tails(prompt, start)
    current = tap.Pass(
        engine.kernel,
        last,
        prefix_length=prompt.length,
        stem_length=len(prompt.stem_ids),
        places=places,
        start=start,
        tails=packed,
        reader=reader,
        expected=anatomy.expected(layers[-1]),
    )
    view = make_view(engine.decoder, last + 1)
    run_pass(view, current, [token_ids], [positions], cache, input_device(engine.decoder))
    check_read(engine.decoder, layers, reader)
    return sum(run) + prompt.tail_tokens


def pack_tails(
    prompt: IndependentPrompt, start: int
) -> tuple[list[int], list[int], list[tap.PackedTail]]:
    """Token ids of stem and tails, their positions with the stem at ``start``, and the tails."""
    token_ids = list(prompt.stem_ids)
    positions = list(range(start, start + len(token_ids)))
    after = start + len(token_ids)
    packed = []
    for tail in prompt.tails:
        part = list(tail.token_ids[: tail.rows.stop])
        packed.append(tap.PackedTail(len(token_ids), len(part), tail.rows))
        token_ids += part
        positions += range(after, after + len(part))
    return token_ids, positions, packed
