"""Run a prompt through the lower layers once and read attention from its tails.

The prefix (header, documents, instruction) goes through the model in chunks and leaves its keys
and values in a cache. Then all tails (the query, the null query) are packed side by side into one
short pass over that cache; each sees the prefix and itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from icr_rag.model import tap
from icr_rag.model.anatomy import Anatomy
from icr_rag.model.kv_cache import make_states
from icr_rag.model.one_by_one import follow
from icr_rag.model.passes import check_finite, check_read, input_device, run_pass
from icr_rag.model.reading import READINGS, DocumentReader, TokenReader
from icr_rag.model.view import make_view
from icr_rag.prompts.layout import Tail
from icr_rag.types import Span


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
    tap.register()
    last = layers[-1]
    view = make_view(decoder, last + 1)
    device = input_device(decoder)
    if anatomy is not None and anatomy.way != "packed":
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
