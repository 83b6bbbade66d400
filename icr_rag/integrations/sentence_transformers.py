"""sentence-transformers: `CrossEncoder` by its owner's methods, without a cross-encoder.

``from icr_rag.integrations.sentence_transformers import CrossEncoder``

Needs nothing besides icr_rag itself; sentence-transformers need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icr_rag.arguments import Array
from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError
from icr_rag.integrations._config import Makers, resolve_reranker, without_first_stage
from icr_rag.integrations._pairs import score_pairs
from icr_rag.reranker import Reranker

if TYPE_CHECKING:
    import torch

#: Key of what went wrong, where ``on_error="passthrough"`` let the input order through.
RERANK_ERROR = "rerank_error"

#: Arguments of earlier versions of sentence-transformers that do nothing there any more.
_WITHOUT_EFFECT = ("num_workers", "apply_softmax", "convert_to_numpy", "convert_to_tensor")


class CrossEncoder(Makers):
    """In place of ``sentence_transformers.CrossEncoder``, for `predict` and `rank`.

    A cross-encoder reads each pair by itself; here the texts of one query are read together.
    Scores compare within a query, not across queries, and a query's only text has nothing to be
    compared with. If ``on_error="passthrough"`` let a failure through, scores are 0.0; results of
    `rank` keep their order and have the reason as "rerank_error", `predict` has only the log.

    Args:
        model_name_or_path: a decoder-only model: hub name, folder, GGUF file or "smollm2-135m".
            None: the model of the settings.
        device, cache_folder, trust_remote_code, revision, local_files_only: as there.
        max_length: most tokens of a document; longer ones are cut.
        activation_fn: applied to the scores, as a torch tensor. None: as they are.
        reranker, config: a ready `Reranker`, or settings as an object or mapping.
        **fields: any field of `RerankerConfig`.

    Raises:
        ConfigError: for a setting that is unknown or has a value that is not allowed.
    """

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        device: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool | None = None,
        revision: str | None = None,
        local_files_only: bool | None = None,
        max_length: int | None = None,
        activation_fn: Callable[[torch.Tensor], torch.Tensor] | None = None,
        reranker: Reranker | None = None,
        config: RerankerConfig | Mapping[str, object] | None = None,
        **fields: object,
    ) -> None:
        named = {
            "model": model_name_or_path,
            "device": device,
            "cache_dir": cache_folder,
            "trust_remote_code": trust_remote_code,
            "revision": revision,
            "local_files_only": local_files_only,
            "max_document_tokens": max_length,
        }
        fields |= {name: value for name, value in named.items() if value is not None}
        self._reranker = without_first_stage(resolve_reranker(reranker, config, fields))
        self.activation_fn = activation_fn

    @property
    def reranker(self) -> Reranker:
        """The engine behind this shim."""
        return self._reranker

    def predict(
        self,
        inputs: object = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[torch.Tensor], torch.Tensor] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        **legacy: object,
    ) -> Any:
        """Scores of (query, text) pairs, in their order; higher is better.

        Args:
            inputs: a list (or two-dimensional array) of pairs, or one pair. ``sentences=`` means
                the same, as in earlier versions there.
            prompt_name, prompt: have no counterpart and must be None; see ``instruction``.
            batch_size, show_progress_bar, apply_softmax: accepted for the signature; there are
                no batches, and with one score per pair a softmax changes nothing there either.
            activation_fn: goes before the constructor's; the order in `rank` stays as it is.
            convert_to_numpy, convert_to_tensor: what is returned, as there.
            **legacy: names of earlier versions: sentences, activation_fct, num_workers.

        Returns:
            A float32 numpy array; with ``convert_to_tensor`` a torch tensor; with neither a list
            of torch scalars. For one pair, its score alone.

        Raises:
            InputError: for anything that is not a pair, or a blank query.
        """
        import torch

        _refuse(prompt_name, prompt)
        _check_legacy(legacy, "sentences", "activation_fct")
        pairs = _pairs(legacy.get("sentences", inputs))
        activation = self._activation(legacy.get("activation_fct", activation_fn))
        single = len(pairs) == 2 and all(isinstance(part, str) for part in pairs)
        scores = torch.tensor(score_pairs(self._reranker, [pairs] if single else pairs))
        if activation is not None:
            scores = activation(scores)
        if convert_to_tensor:
            return scores[0] if single else scores
        if convert_to_numpy:
            array = scores.numpy()
            return array[0] if single else array
        return scores[0] if single else list(scores)

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **legacy: object,
    ) -> list[dict[str, Any]]:
        """Rank documents: ``[{"corpus_id": 2, "score": 0.7, "text": "..."}, ...]``, best first.

        Args:
            query: not blank.
            documents: texts, in first-stage order.
            top_k: how many results; None: the configuration's ``top_n``, or all.
            return_documents: with "text" in the results.
            prompt_name, prompt, batch_size, show_progress_bar, activation_fn: as in `predict`.
            **legacy: names of earlier versions: activation_fct, num_workers, apply_softmax,
                convert_to_numpy, convert_to_tensor. Scores are Python floats in any case.

        Raises:
            InputError: for a blank query or a document that is no text.
        """
        _refuse(prompt_name, prompt)
        _check_legacy(legacy, "activation_fct")
        ranking = self._reranker.rank(query, documents, top_k)
        scores = [hit.score for hit in ranking]
        activation = self._activation(legacy.get("activation_fct", activation_fn))
        if activation is not None and scores:
            import torch

            scores = activation(torch.tensor(scores)).tolist()
        told = {} if ranking.error is None else {RERANK_ERROR: ranking.error}
        results: list[dict[str, Any]] = []
        for hit, score in zip(ranking, scores, strict=True):
            text = {"text": documents[hit.index]} if return_documents else {}
            results.append({"corpus_id": hit.index, "score": score, **text, **told})
        return results

    def _activation(self, of_the_call: Any) -> Any:
        return self.activation_fn if of_the_call is None else of_the_call


def _pairs(inputs: object) -> Sequence[object]:
    """Arrays and columns of data sets as lists; whatever else as it is."""
    if isinstance(inputs, (str, bytes, Mapping)) or not isinstance(inputs, Iterable):
        raise InputError(
            f"inputs is a {type(inputs).__name__}; allowed are a list of (query, text) pairs and "
            "one pair"
        )
    pairs = inputs.tolist() if isinstance(inputs, Array) else list(inputs)
    if not isinstance(pairs, list):
        raise InputError("inputs is an array of no dimension; allowed are a list of pairs or one")
    return pairs


def _check_legacy(given: Mapping[str, object], *known: str) -> None:
    unknown = sorted(set(given) - {*known, *_WITHOUT_EFFECT})
    if unknown:
        raise InputError(
            f"unknown argument {', '.join(unknown)}. The owner's device, pool and chunk_size have "
            "no counterpart: set device= where the CrossEncoder is made"
        )


def _refuse(prompt_name: str | None, prompt: str | None) -> None:
    if prompt_name is not None or prompt is not None:
        raise InputError(
            "prompt and prompt_name have no counterpart; set instruction= where the CrossEncoder "
            "is made"
        )
