"""From an LLM object of a framework to the transformers model and tokenizer that it holds."""

from __future__ import annotations

from typing import Any

from icr_rag.errors import UnsupportedModelError

#: Under which names wrappers keep a model and its tokenizer.
_PAIRS = (("model", "tokenizer"), ("_model", "_tokenizer"))
#: Under which names wrappers keep another wrapper.
_INNER = ("llm", "_llm", "pipeline", "_pipeline")
#: How many wrappers may lie around each other.
_DEPTH = 4


def unwrap_llm(llm: object, tokenizer: object = None) -> tuple[Any, Any]:
    """The transformers model inside ``llm``, and its tokenizer. Nothing is copied or loaded.

    Known by what an object holds, not by its class: LlamaIndex's ``HuggingFaceLLM``, LangChain's
    ``HuggingFacePipeline`` and ``ChatHuggingFace``, transformers pipelines, and whatever keeps a
    torch module and a tokenizer in the same way.

    Args:
        llm: the object, or a transformers model itself.
        tokenizer: for a model that comes alone.

    Raises:
        UnsupportedModelError: if there is no local model in it, or no tokenizer beside it.
    """
    from torch import nn

    holder = llm
    for _ in range(_DEPTH):
        if isinstance(holder, nn.Module):
            return holder, _tokenizer_or_error(holder, tokenizer)
        for model_name, tokenizer_name in _PAIRS:
            model = _get(holder, model_name)
            if isinstance(model, nn.Module):
                beside = _get(holder, tokenizer_name) if tokenizer is None else tokenizer
                return model, _tokenizer_or_error(llm, beside)
        inner = [found for name in _INNER if (found := _get(holder, name)) is not None]
        if not inner:
            break
        holder = inner[0]
    raise UnsupportedModelError(
        f"{type(llm).__name__} holds no local transformers model, so that its attention cannot be "
        "read; allowed are LlamaIndex's HuggingFaceLLM, LangChain's HuggingFacePipeline and "
        "ChatHuggingFace, a transformers pipeline, or a model with tokenizer=. For a remote LLM, "
        "set model= to local weights instead"
    )


def _get(holder: object, name: str) -> object:
    """An attribute, None where there is none; a private one of a pydantic model too."""
    try:
        return getattr(holder, name, None)
    except (RuntimeError, TypeError, ValueError):
        # A property that needs what this object has not.
        return None


def _tokenizer_or_error(llm: object, tokenizer: object) -> object:
    if not callable(tokenizer):
        raise UnsupportedModelError(
            f"{type(llm).__name__} has no tokenizer beside its model; pass tokenizer="
        )
    return tokenizer
