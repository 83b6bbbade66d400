"""Run many short prompts that share their beginning and their end.

Pointwise, pairwise and setwise prompts begin with the same header and end with the same query;
only the documents between differ. The header is run once. The rest is run in batches of prompts
of similar length, padded on the left, so that all tails stand in the same columns.

One pass can give attention readings, the language model's probabilities, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from icr_rag.model import tap
from icr_rag.model.batch_of_one import OneByOneRunner
from icr_rag.model.engine import Engine
from icr_rag.model.passes import in_time, input_device, within_memory
from icr_rag.model.reading import READINGS
from icr_rag.model.runner import BatchResult, Reduce, Runner, Task, causal_view
from icr_rag.model.view import make_view
from icr_rag.prompts.layout import PromptBatch

#: Makes a runner of a task and of how many tokens are run at once.
MakeRunner = Callable[[Task, int], Runner]


@torch.inference_mode()
def run_batch(
    engine: Engine,
    batch: PromptBatch,
    *,
    heads: Mapping[int, Sequence[int] | None] | None = None,
    token_mask: bool = True,
    readings: Collection[str] = READINGS,
    reduce: Reduce | None = None,
    chunk: int | None = None,
    keeping: MakeRunner | None = None,
) -> BatchResult:
    """Run all prompts of a batch.

    Args:
        engine: the model. ``reduce`` needs one that has its LM head.
        batch: the prompts.
        heads: layer -> heads to read, None for all of that layer; None: no attention is read.
        token_mask: for the reading "calibrated".
        readings: which are needed; the others are 0.
        reduce: makes a small result of the logits; None: the LM head is not run, nor any layer
            above the last one read.
        chunk: tokens run at once, padding included; None: the engine's.
        keeping: runs the batch over states that are kept of its bodies; see
            `icr_rag.states.per_document`. None: nothing is kept.

    Raises:
        UnsupportedModelError: for ``reduce`` with weights that have no LM head.
        NonFiniteScoreError: if the model gave NaN or infinity.
        DeviceMemoryError: if the accelerator has too little memory.
    """
    if not batch.bodies:
        return BatchResult()
    tap.register()
    last = None if reduce is not None or not heads else max(heads)
    anatomy = engine.anatomy(last)
    if heads:
        anatomy.check_readable(sorted(heads))
    view = make_view(engine.decoder, last + 1) if last is not None else causal_view(engine)
    device = input_device(engine.decoder)
    what = f"prompts of up to {max(map(len, batch.bodies))} tokens"

    task = Task(engine, view, batch, heads, token_mask, readings, reduce, last)
    make = keeping or Runner
    if anatomy.way != "packed":
        make = OneByOneRunner

    def run(size: int) -> BatchResult:
        return make(task, in_time(size, last)).run()

    with engine.lock if keeping is None else engine.settled():
        result, worked = within_memory(run, engine.chunk if chunk is None else chunk, what, device)
        if chunk is None:
            engine.chunk = min(engine.chunk, worked)
    return result
