"""Whether a model and a tokenizer are ones, and go together; told before anything is run."""

from __future__ import annotations

import copy
import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any

from torch import nn

from icr_rag.errors import InputError, MissingDependencyError, ModelLoadError, UnsupportedModelError
from icr_rag.model.view import find_decoder

logger = logging.getLogger(__name__)


def check_given(model: object, tokenizer: object) -> None:
    """Refuse what `Reranker.from_model` cannot take.

    Raises:
        InputError: for something that is no model, no tokenizer, or both in the wrong order.
        UnsupportedModelError: if the model has no list of decoder layers.
        ModelLoadError: if the tokenizer has tokens that the model has no embedding for.
    """
    from transformers import PreTrainedTokenizerBase

    if isinstance(model, PreTrainedTokenizerBase) and isinstance(tokenizer, nn.Module):
        raise InputError(
            f"from_model got {_kind(model)} as model and {_kind(tokenizer)} as tokenizer: they are "
            "swapped; call from_model(model, tokenizer)"
        )
    if not isinstance(model, nn.Module) or _wraps(model):
        raise InputError(f"from_model got {_kind(model)} as model; {_instead_of_model(model)}")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(
            f"from_model got {_kind(tokenizer)} as tokenizer; {_instead_of_tokenizer(tokenizer)}"
        )
    check_vocabulary(type(model).__name__, find_decoder(model), tokenizer)


def check_vocabulary(name: str, decoder: nn.Module, tokenizer: Any) -> None:
    """Refuse a tokenizer that gives ids for which the model has no embedding.

    Special tokens that neither begin a text nor stand in the chat template do no harm: Gemma 3's
    text models lack the embedding of the token for images.

    Raises:
        ModelLoadError: with both numbers.
    """
    rows = embedding_rows(decoder)
    if rows is None:
        return
    beyond = {text: number for text, number in tokenizer.get_vocab().items() if number >= rows}
    if not beyond:
        return
    template = str(getattr(tokenizer, "chat_template", None) or "")
    special = set(tokenizer.all_special_tokens)
    special |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    used = [
        text
        for text in beyond
        if text not in special or text in template or text == tokenizer.bos_token
    ]
    if used:
        worst = max(used, key=lambda text: beyond[text])
        raise ModelLoadError(
            f"{type(tokenizer).__name__} does not go with {name}: it has token ids up to "
            f"{beyond[worst]} ({worst[:40]!r}), the model has embeddings for 0 to {rows - 1}; "
            "take the model's own tokenizer, or call resize_token_embeddings(len(tokenizer)) if "
            "tokens were added and trained"
        )


def embedding_rows(decoder: nn.Module) -> int | None:
    """How many tokens a decoder has an embedding for; None if it does not say."""
    find = getattr(decoder, "get_input_embeddings", None)
    embedding = find() if callable(find) else None
    # Quantised weights are packed: their shape says nothing.
    rows = getattr(embedding, "num_embeddings", None)
    if isinstance(rows, int):
        return rows
    weight = getattr(embedding, "weight", None)
    return None if weight is None else int(weight.shape[0])


def check_config(name: str, config: Any) -> None:
    """Refuse a configuration of an encoder, or one of no layers, no heads or no width.

    Args:
        name: the setting `model`.
        config: of the text decoder, as transformers made it.

    Raises:
        UnsupportedModelError: for an encoder.
        ModelLoadError: naming the field.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        raise UnsupportedModelError(
            f"model={name!r} is an encoder ({config.model_type}); a decoder-only LLM is needed"
        )
    for field in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
        value = getattr(config, field, None)
        if value is not None and (type(value) is not int or value < 1):
            raise ModelLoadError(
                f"model={name!r}: its configuration has {field}={value!r}; a whole number from 1 "
                "is needed -- is config.json damaged?"
            )


def check_size(name: str, folder: Path, config: Any, loader: Any, **hub: Any) -> None:
    """Refuse a configuration of more weights than its files can hold, before memory is taken.

    transformers allocates what the configuration says and finds out when it copies the weights.

    Args:
        name: the setting `model`.
        folder: where the weights are.
        config: of what is to be loaded.
        loader: AutoModel or AutoModelForCausalLM.
        **hub: its arguments about remote code.

    Raises:
        ModelLoadError: with both numbers.
    """
    import torch

    try:
        with torch.device("meta"):
            model = loader.from_config(copy.deepcopy(config), **hub)
    # What cannot be built is told when it is loaded.
    except Exception as error:  # noqa: BLE001
        logger.debug("%s is not built without weights: %s", name, error)
        return
    wanted = sum(parameter.numel() for parameter in model.parameters())
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    # A weight takes a byte at least; quantised ones are packed, down to two bits each.
    packed = getattr(config, "quantization_config", None) is not None
    if wanted > held * (4 if packed else 1):
        raise ModelLoadError(
            f"model={name!r} could not be loaded: its config.json asks for {wanted} weights, which "
            f"its files ({held} bytes) cannot hold; are both of the same model, and whole?"
        )


def check_loaded_tokenizer(name: str, tokenizer: object) -> None:
    """Refuse what AutoTokenizer may give besides tokenizers.

    Raises:
        ModelLoadError: naming what it gave.
    """
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ModelLoadError(
            f"model={name!r}: its tokenizer is {_kind(tokenizer)}, which is no transformers "
            "tokenizer; a tokenizer.json is needed"
        )


def check_kernel(kernel: str) -> None:
    """Refuse an attention kernel whose package is not installed.

    Raises:
        MissingDependencyError: naming the package.
    """
    if kernel == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise MissingDependencyError(
            "attn_implementation='flash_attention_2' needs flash-attn: pip install flash-attn"
        )


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _wraps(model: object) -> bool:
    """Whether it is a SentenceTransformer or CrossEncoder: modules that hold a model."""
    library = sys.modules.get("sentence_transformers")
    kinds = (getattr(library, name, None) for name in ("SentenceTransformer", "CrossEncoder"))
    return isinstance(model, tuple(kind for kind in kinds if isinstance(kind, type)))


def _instead_of_model(model: object) -> str:
    from transformers import Pipeline, PretrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

    if isinstance(model, (str, Path)):
        return f"to load a model by its name call Reranker(model={str(model)!r})"
    if isinstance(model, Pipeline):
        return "take its parts: from_model(pipeline.model, pipeline.tokenizer)"
    if isinstance(model, PretrainedConfig):
        return (
            "a configuration holds no weights; load them with "
            "AutoModelForCausalLM.from_pretrained(name)"
        )
    if isinstance(model, (PreTrainedTokenizerBase, ProcessorMixin)):
        return "call from_model(model, tokenizer) with the loaded model first"
    if _wraps(model):
        return (
            "it wraps a model; where that is a decoder-only LLM, pass it (model[0].auto_model of a "
            "SentenceTransformer, model.model of a CrossEncoder)"
        )
    return "pass a loaded model such as AutoModelForCausalLM.from_pretrained(name) gives"


def _instead_of_tokenizer(tokenizer: object) -> str:
    import tokenizers
    from transformers import ProcessorMixin

    if isinstance(tokenizer, tokenizers.Tokenizer):
        return "wrap it: transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)"
    if isinstance(tokenizer, ProcessorMixin):
        return "take its part: from_model(model, processor.tokenizer)"
    return "pass the model's tokenizer: AutoTokenizer.from_pretrained(name)"
