"""Adapters (PEFT) around a model that was handed in: which of them a view of its layers honours."""

from __future__ import annotations

import sys
from typing import Any

from icr_rag.errors import UnsupportedModelError


def check_adapters(model: Any) -> None:
    """Raise `UnsupportedModelError` for an adapter that is not part of the decoder's layers.

    Those that change weights (LoRA and its kin) are in the layers and come with them. Prompt
    tuning, prefix tuning and p-tuning add tokens outside, which a view of the layers never sees.
    """
    peft: Any = sys.modules.get("peft")
    if peft is None or not isinstance(model, peft.PeftModel):
        return
    for name in _active(model):
        config = model.peft_config.get(name)
        if config is not None and getattr(config, "is_prompt_learning", False):
            raise UnsupportedModelError(
                f"the adapter {name!r} is of type {config.peft_type.value}: it adds virtual tokens "
                "to the prompt, which a re-ranker cannot honour; rank with the base model "
                "(model.get_base_model()), or with an adapter that changes weights (LoRA)"
            )


def _active(model: Any) -> list[str]:
    names = model.active_adapters
    names = names() if callable(names) else names
    return [names] if isinstance(names, str) else list(names)
