"""What is read from attention: per token, or per document.

A reader is handed the queries and keys of a layer, after normalisation and rotary embedding, and
computes in float32 the attention of the *query rows* alone. Two readers:

- `TokenReader`: probability per token, mean over the query rows; ICR's raw material.
- `DocumentReader`: per document and head the four readings of `READINGS`, from which head
  profiles are made; no tensor of tokens leaves the device.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from icr_rag.methods import WITH_NULL
from icr_rag.types import Span

if TYPE_CHECKING:
    from icr_rag.model.tap import Pass

#: What a model passes to its attention function: scaling, softcap, sliding_window, ...
AttentionSettings = Mapping[str, Any]

#: Largest block of attention logits held at once, in elements (float32: 128 MiB).
_MAX_LOGITS = 2**25

#: Readings of a document by one head; higher is meant as more relevant. With m(row) the sum of
#: the row's attention probabilities over the document's tokens:
#: - lift: log of the mean of m over the query rows minus the same for the null query;
#: - log_mass: mean over the query rows of log m;
#: - max: mean over the query rows of the log of the largest probability in the document;
#: - calibrated: ICR's document score from this head alone (arXiv 2410.02642, section 3).
READINGS = ("lift", "log_mass", "max", "calibrated")

#: The logarithm of attention that underflowed.
_LEAST = torch.finfo(torch.float32).tiny


class Reader(Protocol):
    """Reads the layers that it wants."""

    def wants(self, layer: int) -> bool:
        """Whether this layer is read."""

    def read(
        self,
        current: Pass,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        mask: torch.Tensor,
        settings: AttentionSettings,
    ) -> None:
        """Read one layer.

        Args:
            current: the pass, with its tails.
            layer: 0-indexed.
            query: [prompt, head, row, dimension].
            key: [prompt, key/value head, token, dimension].
            mask: bool [prompt, 1, row, token], True where a row sees a token.
            settings: what the model passes to its attention function (scaling, softcap, ...).
        """


class TokenReader:
    """Attention per token, mean over each tail's query rows. For one prompt.

    Args:
        heads: layer -> heads to read, None for all; layers that are absent are not read.
        sum_heads: keep only the sum over heads.

    Attributes:
        readings: layer -> one float32 tensor per tail on the CPU, [head, prefix + tail tokens],
            or [prefix + tail tokens] with ``sum_heads``. Heads not asked for are zero.
    """

    def __init__(self, heads: Mapping[int, Sequence[int] | None], sum_heads: bool = False) -> None:
        self.heads = heads
        self.sum_heads = sum_heads
        self.readings: dict[int, list[torch.Tensor]] = {}

    def wants(self, layer: int) -> bool:
        """Whether this layer is read."""
        return layer in self.heads

    def read(
        self,
        current: Pass,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        mask: torch.Tensor,
        settings: AttentionSettings,
    ) -> None:
        """Read one layer; see `Reader.read`."""
        head_count = query.shape[1]
        chosen = self.heads[layer]
        result = []
        for tail in current.tails:
            rows = tail.rows_of(0)
            total = torch.zeros(
                head_count if chosen is None else len(chosen), key.shape[2], device=query.device
            )
            for _, logits in masked_logits(query[0], key[0], mask[0, 0], rows, settings, chosen):
                total += _softmax(logits, settings, chosen).sum(dim=1)
            total /= rows.stop - rows.start
            # A tail's own axis: the prefix, then its own tokens.
            own = current.prefix_length + tail.start
            shared = current.prefix_length + current.stem_length
            total = torch.cat((total[:, :shared], total[:, own : own + tail.length]), dim=1)
            if self.sum_heads:
                result.append(total.sum(dim=0).cpu())
            elif chosen is None:
                result.append(total.cpu())
            else:
                full = torch.zeros(head_count, total.shape[1])
                full[list(chosen)] = total.cpu()
                result.append(full)
        self.readings[layer] = result


class DocumentReader:
    """`READINGS` of every document by every head that is asked for.

    The first tails of the pass are the queries', the next, if there is one, the null query's.
    Without it ``lift`` is the logarithm of the mean mass and ``calibrated`` is not calibrated.

    Args:
        heads: layer -> heads to read, None for all; layers that are absent are not read.
        spans: per prompt of the batch, one half-open span per document, on the axis of all
            tokens (prefix, stem, padding included).
        queries: how many queries there are.
        needed: which of `READINGS`; the others are 0.

    Attributes:
        readings: layer -> float32 [prompt and query][document, head, reading] on the CPU, heads
            in the order asked for; the queries of a prompt one after the other.
    """

    def __init__(
        self,
        heads: Mapping[int, Sequence[int] | None],
        spans: Sequence[Sequence[Span]],
        token_mask: bool = True,
        queries: int = 1,
        needed: Collection[str] = READINGS,
    ) -> None:
        self.heads = heads
        self.spans = spans
        self.queries = queries
        self.token_mask = token_mask
        self.needed = frozenset(needed)
        self.readings: dict[int, list[torch.Tensor]] = {}

    def wants(self, layer: int) -> bool:
        """Whether this layer is read."""
        return layer in self.heads

    def read(
        self,
        current: Pass,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        mask: torch.Tensor,
        settings: AttentionSettings,
    ) -> None:
        """Read one layer; see `Reader.read`."""
        chosen = self.heads[layer]
        self.readings[layer] = [
            reading
            for prompt in range(query.shape[0])
            for reading in self._read_prompt(
                current, query[prompt], key[prompt], mask[prompt % len(mask), 0], prompt, settings,
                chosen,
            )
        ]  # fmt: skip

    def _read_prompt(
        self,
        current: Pass,
        query: torch.Tensor,
        key: torch.Tensor,
        mask: torch.Tensor,
        prompt: int,
        settings: AttentionSettings,
        chosen: Sequence[int] | None,
    ) -> list[torch.Tensor]:
        """Per query [document, head, reading] of one prompt."""
        spans = self.spans[prompt]
        needed = self.needed
        # Keys that the tails do not see as documents are needed for the softmax only.
        tails: list[_TailSums] = []
        for number, tail in enumerate(current.tails[: self.queries + 1]):
            rows = tail.rows_of(prompt)
            blocks = masked_logits(query, key, mask, rows, settings, chosen)
            attention = (_softmax(logits, settings, chosen) for _, logits in blocks)
            # Of the null query only what is compared with.
            wanted = needed if number < self.queries else needed & WITH_NULL
            tails.append(_sum_rows(attention, spans, wanted, rows.stop - rows.start))
        null = tails[self.queries].tokens if len(tails) > self.queries else None
        found = []
        for sums in tails[: self.queries]:
            parts = {"log_mass": sums.log_mass, "max": sums.largest}
            tokens = sums.tokens
            if tokens is not None and "lift" in needed:
                lift = _log_sum(tokens, spans)
                parts["lift"] = lift if null is None else lift - _log_sum(null, spans)
            if tokens is not None and "calibrated" in needed:
                own = tokens if null is None else tokens - null
                icr = [_masked_sum(own[:, a:b], self.token_mask) for a, b in spans]
                parts["calibrated"] = torch.stack(icr)
            known = next(part for part in parts.values() if part is not None)
            columns = [parts.get(name) for name in READINGS]
            filled = [torch.zeros_like(known) if c is None else c for c in columns]
            found.append(torch.stack(filled, dim=-1).cpu())
        return found


class _TailSums(NamedTuple):
    """Of one tail, means over its query rows; None: not needed.

    Attributes:
        tokens: attention [head, token]. log_mass, largest: as in `READINGS`, [document, head].
    """

    tokens: torch.Tensor | None
    log_mass: torch.Tensor | None
    largest: torch.Tensor | None


def _sum_rows(
    attention: Iterable[torch.Tensor], spans: Sequence[Span], needed: Collection[str], count: int
) -> _TailSums:
    """Means over ``count`` rows, given in blocks [head, row, token]."""
    tokens: list[torch.Tensor] = []
    masses: list[torch.Tensor] = []
    peaks: list[torch.Tensor] = []
    for part in attention:
        if not WITH_NULL.isdisjoint(needed):
            tokens.append(part.sum(dim=1))
        if "log_mass" in needed:
            mass = torch.stack([part[..., a:b].sum(dim=-1) for a, b in spans])
            masses.append(mass.clamp_min(_LEAST).log().sum(dim=-1))
        if "max" in needed:
            peak = torch.stack([part[..., a:b].amax(dim=-1) for a, b in spans])
            peaks.append(peak.clamp_min(_LEAST).log().sum(dim=-1))
    means = [torch.stack(p).sum(dim=0) / count if p else None for p in (tokens, masses, peaks)]
    return _TailSums(*means)


def attention_rows(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor, settings: AttentionSettings
) -> torch.Tensor:
    """Attention probabilities [head, row, token] of every row; arguments as `masked_logits` has
    them. For short texts: nothing is done in blocks."""
    rows = slice(0, query.shape[1])
    blocks = [part for _, part in masked_logits(query, key, mask, rows, settings, None)]
    return _softmax(torch.cat(blocks, dim=1), settings, None)


def masked_logits(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor,
    rows: slice,
    settings: AttentionSettings,
    chosen: Sequence[int] | None,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Blocks of rows with their float32 logits [head, row, token], -inf where not seen.

    Args:
        query: [head, row, dimension]; key: [key/value head, token, dimension].
        mask: bool [row, token].
        rows: which rows.
        settings: the attention function's (scaling, softcap).
        chosen: heads, None for all.
    """
    head_count, key_head_count = query.shape[0], key.shape[0]
    group = head_count // key_head_count
    if chosen is None:
        # Heads of one group share their keys: put them side by side instead of repeating keys.
        grouped_keys = key.float()
    else:
        index = torch.tensor(list(chosen), device=query.device)
        query, group = query[index], 1
        grouped_keys = key[index // (head_count // key_head_count)].float()
    heads_read = query.shape[0]
    scaling = settings.get("scaling")
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    softcap = settings.get("softcap")
    block = max(1, _MAX_LOGITS // (heads_read * key.shape[1]))
    for begin in range(rows.start, rows.stop, block):
        part = slice(begin, min(begin + block, rows.stop))
        count = part.stop - part.start
        packed = query[:, part].float().reshape(-1, group * count, query.shape[-1])
        logits = (packed @ grouped_keys.transpose(1, 2)).mul_(scaling)
        logits = logits.view(heads_read, count, -1)
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        yield part, logits.masked_fill_(~mask[part], float("-inf"))


def _softmax(
    logits: torch.Tensor, settings: AttentionSettings, chosen: Sequence[int] | None
) -> torch.Tensor:
    """Attention probabilities [head, row, token]."""
    sinks = settings.get("s_aux")
    if sinks is None:
        return logits.softmax(dim=-1)
    # A learned sink (gpt-oss) takes part in the softmax and is then dropped.
    sinks = (sinks if chosen is None else sinks[list(chosen)]).float().view(-1, 1, 1)
    with_sink = torch.cat((logits, sinks.expand(-1, logits.shape[1], 1)), dim=-1)
    return with_sink.softmax(dim=-1)[..., :-1]


def _log_sum(tokens: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    """[document, head]: log of the sum over each span of [head, token]."""
    sums = torch.stack([tokens[:, a:b].sum(dim=-1) for a, b in spans])
    return sums.clamp_min(_LEAST).log()


def _masked_sum(tokens: torch.Tensor, token_mask: bool) -> torch.Tensor:
    """[head]: the sum over [head, token] without each head's low outliers, as ICR drops them."""
    if not token_mask or tokens.shape[1] < 2:
        return tokens.sum(dim=-1)
    deviation = tokens.std(dim=-1, keepdim=True)
    kept = (tokens > tokens.mean(dim=-1, keepdim=True) - 2 * deviation) | (deviation == 0)
    return (tokens * kept).sum(dim=-1)
