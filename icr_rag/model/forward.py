"""Run a prompt through the lower layers once and read attention from its tails.

The prefix (header, documents, instruction) goes through the model in chunks and leaves its keys
and values in a cache. Then all tails (the query, the null query) are packed side by side into one
short pass over that cache; each sees the prefix and itself.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from icr_rag.errors import DeviceMemoryError, NonFiniteScoreError, UnsupportedModelError
from icr_rag.model import tap
from icr_rag.model._transformers import execution_device, takes_positions, with_cache
from icr_rag.model.anatomy import Anatomy
from icr_rag.model.reading import READINGS, DocumentReader, TokenReader
from icr_rag.model.view import make_view
from icr_rag.types import Span

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Below this many tokens a smaller chunk saves no memory worth having.
SMALLEST_CHUNK = 16


@dataclass(frozen=True)
class Tail:
    """What follows the prefix: token ids, and which of them are the query rows (half-open).

    Tokens behind the last row (the assistant header) belong to the prompt, but no row sees them,
    so they are not run.
    """

    token_ids: Sequence[int]
    rows: slice


@torch.inference_mode()
def read_tails(
    decoder: nn.Module,
    prefix_ids: Sequence[int],
    tails: Sequence[Tail],
    layers: Sequence[int],
    *,
    heads: Mapping[int, Sequence[int] | None] | None = None,
    kernel: str = "sdpa",
    chunk: int,
    sum_heads: bool = False,
    anatomy: Anatomy | None = None,
) -> list[torch.Tensor]:
    """Attention from each tail's query rows to every token before them.

    Args:
        decoder: as `find_decoder` gives it; not changed.
        prefix_ids: tokens shared by all tails; at least one.
        tails: at least one.
        layers: layers to read, ascending; layers above the last are not run.
        heads: layer -> heads to read, None for all of that layer.
        kernel: attention implementation underneath.
        chunk: prefix tokens run at once; less needs less memory.
        sum_heads: add the heads of a layer up.
        anatomy: how the model is run; None: tails are packed.

    Returns:
        One float32 tensor per tail on the CPU, [layer, head, prefix + tail tokens up to the last
        row], or [layer, prefix + tail tokens up to the last row] with ``sum_heads``: attention
        probability, mean over the tail's query rows.

    Raises:
        UnsupportedModelError: if a layer did not come by the attention tap.
        NonFiniteScoreError: if a reading is NaN or infinite.
    """
    reader = TokenReader({layer: heads[layer] if heads else None for layer in layers}, sum_heads)
    run_tails(
        decoder, prefix_ids, tails, layers, reader, kernel=kernel, chunk=chunk, anatomy=anatomy
    )
    results = [
        torch.stack([reader.readings[layer][number] for layer in layers])
        for number in range(len(tails))
    ]
    check_finite(results, decoder, layers)
    return results


@torch.inference_mode()
def read_documents(
    decoder: nn.Module,
    prefix_ids: Sequence[int],
    tails: Sequence[Tail],
    spans: Sequence[Span],
    heads: Mapping[int, Sequence[int] | None],
    *,
    token_mask: bool = True,
    needed: Collection[str] = READINGS,
    kernel: str = "sdpa",
    chunk: int,
    anatomy: Anatomy | None = None,
) -> list[torch.Tensor]:
    """`READINGS` of every document in one prompt.

    Args:
        tails: the query's, then the null query's if there is one.
        spans: one per document, in the prefix.
        heads: layer -> heads to read, None for all of that layer.
        token_mask: for the reading "calibrated".
        needed: which readings; the others are 0.
        anatomy: how the model is run; None: tails are packed.

    Returns:
        Per layer, ascending: float32 [document, head, reading]. Raises as `read_tails` does.
    """
    layers = sorted(heads)
    reader = DocumentReader(heads, [spans], token_mask, needed=needed)
    run_tails(
        decoder, prefix_ids, tails, layers, reader, kernel=kernel, chunk=chunk, anatomy=anatomy
    )
    results = [reader.readings[layer][0] for layer in layers]
    check_finite(results, decoder, layers)
    return results


def run_tails(
    decoder: nn.Module,
    prefix_ids: Sequence[int],
    tails: Sequence[Tail],
    layers: Sequence[int],
    reader: TokenReader | DocumentReader,
    *,
    kernel: str,
    chunk: int,
    anatomy: Anatomy | None = None,
) -> None:
    """Run the prefix in chunks, then the tails, which ``reader`` reads: in one pass, where the
    model allows it."""
    from icr_rag.model.states import make_states

    tap.register()
    last = layers[-1]
    view = make_view(decoder, last + 1)
    device = input_device(decoder)
    if anatomy is not None and anatomy.way != "packed":
        from icr_rag.model.one_by_one import follow

        follow(view, anatomy, kernel, last, prefix_ids, tails, reader, chunk=chunk,
               device=device, config=decoder.config)  # fmt: skip
        check_read(decoder, layers, reader)
        return
    expected = frozenset() if anatomy is None else anatomy.expected(last)
    cache = make_states(len(prefix_ids) + sum(tail.rows.stop for tail in tails))

    for begin in range(0, len(prefix_ids), chunk):
        part = prefix_ids[begin : begin + chunk]
        where = range(begin, begin + len(part))
        run_pass(view, tap.Pass(kernel, last, expected=expected), [part], [where], cache, device)

    packed: list[tap.PackedTail] = []
    token_ids: list[int] = []
    positions: list[int] = []
    for tail in tails:
        run = list(tail.token_ids[: tail.rows.stop])
        packed.append(tap.PackedTail(len(token_ids), len(run), tail.rows))
        token_ids += run
        positions += range(len(prefix_ids), len(prefix_ids) + len(run))
    reading = tap.Pass(
        kernel,
        last,
        prefix_length=len(prefix_ids),
        tails=packed,
        reader=reader,
        expected=expected,
    )
    run_pass(view, reading, [token_ids], [positions], cache, device)
    check_read(decoder, layers, reader)


def check_read(
    decoder: nn.Module, layers: Sequence[int], reader: TokenReader | DocumentReader
) -> None:
    """Raise `UnsupportedModelError` if a layer did not come by the attention tap."""
    missing = [layer for layer in layers if layer not in reader.readings]
    if missing:
        raise UnsupportedModelError(
            f"layers {missing} of {type(decoder).__name__} have no softmax attention to read; "
            f"choose layers among {sorted(reader.readings)}"
        )


def check_finite(
    results: Sequence[torch.Tensor], decoder: nn.Module, layers: Sequence[int]
) -> None:
    """Raise `NonFiniteScoreError` if a reading is NaN or infinite."""
    for result in results:
        if not bool(torch.isfinite(result).all()):
            raise NonFiniteScoreError(
                f"{type(decoder).__name__} gave NaN or infinite attention in layers "
                f"{list(layers)}; load it with dtype='float32' or 'bfloat16'"
            )


def within_memory(
    call: Callable[[int], Result], chunk: int, what: str, device: torch.device
) -> tuple[Result, int]:
    """``call(chunk)``, with the chunk halved while the accelerator has too little memory.

    Args:
        call: computes with at most so many tokens at a time.
        chunk: to begin with.
        what: is run, for the message: "2154 prompt tokens, 14 layers".

    Returns:
        The result and the chunk that worked.

    Raises:
        DeviceMemoryError: when even `SMALLEST_CHUNK` tokens at a time do not fit.
    """
    while True:
        try:
            return call(chunk), chunk
        except torch.OutOfMemoryError as error:
            smaller = chunk // 2
            if smaller < SMALLEST_CHUNK:
                raise DeviceMemoryError(
                    f"out of memory on {device} with {what} and a prefill chunk of {chunk}"
                    f"{_memory_numbers(device)}; set a smaller `window` or "
                    "`token_budget`, read lower `layers`, or use a smaller dtype"
                ) from error
            logger.warning(
                "out of memory with a prefill chunk of %d tokens; trying %d", chunk, smaller
            )
            chunk = smaller
        # Outside the handler, where the failed pass's tensors are no longer referenced.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def run_pass(
    model: nn.Module,
    current: tap.Pass,
    rows: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    cache: Any,
    device: torch.device,
    **arguments: Any,
) -> Any:
    """One forward pass of a view.

    Args:
        model: a view, as `make_view` or `make_causal_view` gives it.
        current: what the pass computes.
        rows: token ids per prompt. positions: likewise.
        cache: earlier tokens' states; added to.
        arguments: further ones of the model.

    Returns:
        The model's output; None if the pass ended in ``current.last_layer``.

    Raises:
        UnsupportedModelError: if it should have ended there and did not.
    """
    tensors: dict[str, torch.Tensor] = {
        "input_ids": torch.tensor([list(row) for row in rows], device=device),
    }
    if takes_positions(model):
        tensors["position_ids"] = torch.tensor([list(row) for row in positions], device=device)
    output: Any = None
    with tap.running(current):
        try:
            output = model(**tensors, **with_cache(model, cache), **arguments)
        except tap.PassComplete:
            output = None
        else:
            if current.last_layer is not None:
                raise UnsupportedModelError(
                    f"layer {current.last_layer} of {type(model).__name__} did not use "
                    "transformers' attention interface, so that its attention cannot be read"
                )
    check_seen(current, model)
    return output


def check_seen(current: tap.Pass, model: nn.Module) -> None:
    """Raise `UnsupportedModelError` if a layer that should have come by the tap did not.

    A layer that goes another way sees tokens that a mask of ours would have hidden.
    """
    missing = sorted(current.expected - current.seen)
    if missing:
        raise UnsupportedModelError(
            f"layers {missing} of {type(model).__name__} did not use transformers' attention "
            "interface in this pass, although they did when the model was loaded; its scores "
            "would be wrong"
        )


def input_device(decoder: nn.Module) -> torch.device:
    """Where the token ids go; with offloaded weights, where they will be run."""
    embedding = decoder.get_input_embeddings()  # type: ignore[operator]
    where = execution_device(embedding)
    if where is not None:
        return where
    device: torch.device = embedding.weight.device
    return device


def _memory_numbers(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f" ({free / 2**30:.1f} of {total / 2**30:.1f} GiB free)"
