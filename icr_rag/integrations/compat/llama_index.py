"""LlamaIndex's re-rankers under their own names, with their constructors.

To swap one, change where it is imported from, and the model that it is given. Each is an
`ICRRerank`, with everything that one has, and takes its settings as keywords besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icr_rag.errors import ConfigError, require

require("llama_index.core", "llama-index", "icr_rag.integrations.compat.llama_index")

from icr_rag.integrations._config import adapter_settings  # noqa: E402
from icr_rag.integrations._llm import unwrap_llm  # noqa: E402
from icr_rag.integrations.llama_index import ICRRerank  # noqa: E402
from icr_rag.reranker import Reranker  # noqa: E402

__all__ = ["LLMRerank", "RankGPTRerank", "SentenceTransformerRerank"]


class SentenceTransformerRerank(ICRRerank):
    """In place of ``llama_index.core.postprocessor.SentenceTransformerRerank``.

    Args:
        top_n: how many nodes to return.
        model: a decoder-only model: hub name, local folder, GGUF file or "smollm2-135m".
        device: as there; None chooses one.
        keep_retrieval_score: as there, but hidden from embedders and LLMs.
        trust_remote_code: off unless set, unlike there.
        **fields: settings of `ICRRerank`.

    Raises:
        ConfigError: for a setting that is unknown or has a value that is not allowed.
    """

    def __init__(
        self,
        top_n: int | None = 2,
        model: str = "smollm2-135m",
        device: str | None = None,
        keep_retrieval_score: bool = False,
        trust_remote_code: bool = False,
        **fields: Any,
    ) -> None:
        chosen = {"model": model, "trust_remote_code": trust_remote_code}
        defaults = {"model": "smollm2-135m", "trust_remote_code": False}
        # What is left at its default must not stand against a reranker= or config= given.
        fields |= {name: value for name, value in chosen.items() if value != defaults[name]}
        if device is not None:
            fields["device"] = device
        super().__init__(top_n=top_n, keep_retrieval_score=keep_retrieval_score, **fields)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises this class."""
        return "SentenceTransformerRerank"


class LLMRerank(ICRRerank):
    """In place of ``llama_index.core.postprocessor.LLMRerank``.

    The LLM reads instead of writing: there is no prompt to choose, no batch, and no answer to
    parse.

    Args:
        llm: a local LLM that is loaded already, such as ``HuggingFaceLLM``; its weights are
            shared. None: the model of the settings. Never LlamaIndex's global default.
        choice_select_prompt, format_node_batch_fn, parse_choice_select_answer_fn: have no
            counterpart, and must be None; see ``instruction``.
        choice_batch_size: documents per prompt, as ``window``. None: as many as fit, which ranks
            best.
        top_n: how many nodes to return.
        **fields: settings of `ICRRerank`.

    Raises:
        ConfigError: for a setting that is unknown or has a value that is not allowed.
        UnsupportedModelError: if the LLM holds no local model.
    """

    def __init__(
        self,
        llm: object = None,
        choice_select_prompt: object = None,
        choice_batch_size: int | None = None,
        format_node_batch_fn: object = None,
        parse_choice_select_answer_fn: object = None,
        top_n: int | None = 10,
        **fields: Any,
    ) -> None:
        _refuse(
            choice_select_prompt=choice_select_prompt,
            format_node_batch_fn=format_node_batch_fn,
            parse_choice_select_answer_fn=parse_choice_select_answer_fn,
        )
        if choice_batch_size is not None:
            if choice_batch_size < 2:
                raise ConfigError(
                    f"choice_batch_size={choice_batch_size!r}: a prompt needs two documents to "
                    "compare; leave it out to have as many as fit"
                )
            fields["window"] = choice_batch_size
        super().__init__(top_n=top_n, **_on(llm, fields))

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises this class."""
        return "LLMRerank"


class RankGPTRerank(ICRRerank):
    """In place of ``llama_index.core.postprocessor.rankGPT_rerank.RankGPTRerank``.

    Args:
        top_n: how many nodes to return.
        llm: a local LLM that is loaded already, such as ``HuggingFaceLLM``; its weights are
            shared. None: the model of the settings.
        verbose: accepted for the signature; there is no generated order to print.
        rankgpt_rerank_prompt: has no counterpart, and must be None; see ``instruction``.
        **fields: settings of `ICRRerank`.

    Raises:
        ConfigError: for a setting that is unknown or has a value that is not allowed.
        UnsupportedModelError: if the LLM holds no local model.
    """

    def __init__(
        self,
        top_n: int | None = 5,
        llm: object = None,
        verbose: bool = False,
        rankgpt_rerank_prompt: object = None,
        **fields: Any,
    ) -> None:
        _refuse(rankgpt_rerank_prompt=rankgpt_rerank_prompt)
        super().__init__(top_n=top_n, **_on(llm, fields))

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises this class."""
        return "RankGPTRerank"


def _on(llm: object, fields: Mapping[str, object]) -> dict[str, Any]:
    """The keywords of `ICRRerank`, on the weights of ``llm`` if there is one."""
    if llm is None:
        return dict(fields)
    own, settings = adapter_settings(ICRRerank, fields)
    model, tokenizer = unwrap_llm(llm)
    return {**own, "reranker": Reranker.from_model(model, tokenizer, None, **settings)}


def _refuse(**settings: object) -> None:
    given = [name for name, value in settings.items() if value is not None]
    if given:
        raise ConfigError(
            f"{', '.join(given)} cannot be set: attention is read, no text is generated or parsed. "
            "Leave it out; instruction= is the sentence that the model reads before the query"
        )
