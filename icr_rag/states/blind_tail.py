"""A tail that never sees the documents; only the reading does.

The query's tokens run behind the head alone. In the layers that are read, their attention is
computed as if the documents' keys stood between: a late-interaction index (as ColBERT's, arXiv
2004.12832) made from any LLM. Of a document only the keys that are read need to be kept, and a
query costs the same however many documents there are, but for the dot products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache

from icr_rag.model import tap
from icr_rag.model.kv_cache import repeat_states, stored_states
from icr_rag.model.passes import check_read, input_device, run_pass
from icr_rag.model.reading import AttentionSettings, DocumentReader, TokenReader
from icr_rag.model.view import make_view
from icr_rag.prompts.layout import IndependentPrompt
from icr_rag.states.document_states import DocumentStates
from icr_rag.states.shared_tail import pack_tails
from icr_rag.states.store import StateStore, StoredStates

if TYPE_CHECKING:
    from icr_rag.model.engine import Engine


class DocumentKeys(DocumentStates):
    """Of each document only the keys that are read.

    Args:
        engine: the model.
        head_ids: the beginning that all prompts share.
        heads: layer -> heads that are read, None for all of that layer.
        open_store: as in `DocumentStates`.
    """

    def __init__(
        self,
        engine: Engine,
        head_ids: Sequence[int],
        heads: Mapping[int, Sequence[int] | None],
        open_store: Callable[[], StateStore],
    ) -> None:
        super().__init__(engine, head_ids, max(heads), open_store)
        self.heads = heads

    def _cut(self, cache: Cache, number: int, tokens: slice) -> StoredStates:
        kept = []
        for layer, heads in sorted(self.heads.items()):
            keys = stored_states(cache, layer)[0][number, :, tokens]
            kept.append(keys[self.groups(heads, len(keys))].clone())
        return StoredStates(tuple(kept), ())

    def groups(self, heads: Sequence[int] | None, count: int) -> list[int]:
        """Which of a layer's ``count`` key/value heads these attention heads share."""
        if heads is None:
            return list(range(count))
        size = self.engine.text_config.num_attention_heads // count
        return sorted({head // size for head in heads})


class DocumentsInserted:
    """Documents' keys that readers see between the prefix and the tails.

    Args:
        keys: layer -> [key/value head, token, dimension].
        places: where the documents' tokens count as standing.
        rows: likewise the tokens of the pass.
    """

    def __init__(
        self, keys: Mapping[int, torch.Tensor], places: Sequence[int], rows: Sequence[int]
    ) -> None:
        self.keys = keys
        self._distance = torch.tensor(list(rows))[:, None] - torch.tensor(list(places))[None]
        self._masks: dict[tuple[int, Any], tuple[torch.Tensor, torch.Tensor]] = {}

    def inserted(
        self,
        current: tap.Pass,
        layer: int,
        key: torch.Tensor,
        mask: torch.Tensor,
        settings: AttentionSettings,
    ) -> tuple[tap.Pass, torch.Tensor, torch.Tensor]:
        """Pass, keys and mask as a reader is to see them; arguments as `Reader.read` has them."""
        at = current.prefix_length
        own = self.keys[layer]
        keys = torch.cat((key[:, :, :at], own[None].to(key.dtype), key[:, :, at:]), dim=2)
        window = settings.get("sliding_window")
        known = self._masks.get((id(mask), window))
        if known is None:
            near = torch.ones_like(self._distance, dtype=torch.bool)
            if window is not None:
                near = self._distance < window
            near = near.to(mask.device).expand(*mask.shape[:2], -1, -1)
            # The mask is kept too, so that its id cannot be given to another one.
            known = mask, torch.cat((mask[..., :at], near, mask[..., at:]), dim=-1)
            self._masks[id(mask), window] = known
        shown = replace(current, prefix_length=at + own.shape[1], insertion=None)
        return shown, keys, known[1]


@torch.inference_mode()
def run_blind_tail(
    engine: Engine,
    states: DocumentKeys,
    prompt: IndependentPrompt,
    layers: Sequence[int],
    reader: TokenReader | DocumentReader,
) -> int:
    """Run the tails behind the head; ``reader`` reads them as if the documents stood between.

    Returns:
        How many tokens were run, for documents that were not in the store included.

    Raises:
        UnsupportedModelError: if a layer did not come by the attention tap.
    """
    tap.register()
    anatomy = engine.anatomy(layers[-1])
    anatomy.check_readable(layers)
    anatomy.check_own_keys(layers)
    found, run = states.states(prompt.bodies)
    before = len(prompt.head_ids)
    cache = repeat_states(states.head(), 1, before + prompt.tail_tokens)
    start = before + max(map(len, prompt.bodies))
    token_ids, positions, packed = pack_tails(prompt, start)
    places = [before + place for body in prompt.bodies for place in range(len(body))]
    current = tap.Pass(
        engine.kernel,
        layers[-1],
        prefix_length=before,
        stem_length=len(prompt.stem_ids),
        start=start,
        tails=packed,
        reader=reader,
        expected=anatomy.expected(layers[-1]),
        insertion=DocumentsInserted(_side_by_side(states, cache, found), places, positions),
    )
    view = make_view(engine.decoder, layers[-1] + 1)
    run_pass(view, current, [token_ids], [positions], cache, input_device(engine.decoder))
    check_read(engine.decoder, layers, reader)
    return sum(run) + prompt.tail_tokens


def _side_by_side(
    states: DocumentKeys, cache: Cache, found: Sequence[StoredStates]
) -> dict[int, torch.Tensor]:
    """Layer -> [key/value head, token, dimension]; zeros for heads that are not kept."""
    result = {}
    for number, (layer, heads) in enumerate(sorted(states.heads.items())):
        keys = torch.cat([document.keys[number] for document in found], dim=1)
        count = stored_states(cache, layer)[0].shape[1]
        groups = states.groups(heads, count)
        if len(groups) < count:
            whole = keys.new_zeros(count, *keys.shape[1:])
            whole[groups] = keys
            keys = whole
        result[layer] = keys
    return result
