"""One forward pass of a view, and what is checked before and after it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from icr_rag.deadline import deadline, in_parts, step
from icr_rag.errors import DeviceMemoryError, NonFiniteScoreError, UnsupportedModelError
from icr_rag.model import tap
from icr_rag.model._transformers import execution_device, takes_positions, with_cache
from icr_rag.model.reading import DocumentReader, TokenReader

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Below this many tokens a smaller chunk saves no memory worth having.
SMALLEST_CHUNK = 16
#: Under a deadline, tokens of the first pass, before it is known how long one takes.
_FIRST_PASS = 64
#: What is read beside what is run, from which on it is what counts.
_MANY = 4


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
        OutOfTime: if it would end behind the deadline of the call.
    """
    tensors: dict[str, torch.Tensor] = {
        "input_ids": torch.tensor([list(row) for row in rows], device=device),
    }
    if takes_positions(model):
        tensors["position_ids"] = torch.tensor([list(row) for row in positions], device=device)
    output: Any = None
    kind, amount = _measured(current, len(rows), len(rows[0]))
    with tap.running(current), step(kind, amount, inner=True):
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
        wait_for(device)
    check_seen(current, model)
    return output


def _measured(current: tap.Pass, rows: int, columns: int) -> tuple[Hashable, int]:
    """What a pass is measured as, and how much of it it is.

    Few tokens that read many take as long as what they read, by the token far longer than others.
    """
    if current.tails and current.prefix_length > _MANY * columns:
        return ("tail", current.last_layer), rows * (current.prefix_length + columns)
    return ("pass", current.last_layer), rows * columns


def wait_for(device: torch.device) -> None:
    """Under a deadline, until an accelerator has done what it was given: else nobody knows how
    long that takes."""
    if deadline() is None or device.type == "cpu":
        return
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def in_time(size: int, last: int | None) -> int:
    """How many tokens to run at once, at most ``size``: fewer under a deadline, so that one pass,
    which cannot be stopped, is short.

    Args:
        last: the layer that the pass ends in; None: it runs to the model's end.
    """
    return in_parts(("pass", last), size, _FIRST_PASS)


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
