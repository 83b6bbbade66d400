"""The key of a score: a digest of everything that the score depends on.

Most of that is the same for every request of a server and is put together once (`ScoreKeys.of`):
the weights, the tokenizer, versions, settings, calibration. A request adds its query, its document,
its instruction and how much of a document is read. Every part stands behind its own length, so that
no two lists of parts are one text.

A setting counts unless it is listed here as one that no score depends on: new ones count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import icr_rag
from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.types import Document

if TYPE_CHECKING:
    from icr_rag.model.engine import Engine
    from icr_rag.reranker import Reranker
    from icr_rag.scoring.base import Scorer

#: Of keys and of what absolute scores are; another number makes other keys.
FORMAT = 1
_DIGEST = 20

#: What is done with scores when they are there, or how long they may take.
_AFTERWARDS = {
    "top_n", "score_threshold", "min_answerable", "near_duplicates", "diversity", "deadline_ms",
    "on_error", "traces",
}  # fmt: skip
#: The first stage, which counts nowhere in absolute scores.
_FIRST_STAGE = {"fusion", "fusion_weight", "first_stage_weights", "embedder"}
#: Where things are kept; that which is kept comes back as it was, or is made anew.
_PLACES = {"states_memory", "states_dir", "cache_dir", "local_files_only"}
#: What stands in the key in another form: as part of the weights, as what is chosen by it, as what
#: is read of a document, or as a part of the request.
_TOLD_OTHERWISE = {
    "device", "device_map", "dtype", "profile", "prefer", "rank_fields", "rank_fields_format",
    "instruction", "max_document_tokens",
}  # fmt: skip

#: Settings that no score depends on beyond what its key says.
WITHOUT = frozenset({*_AFTERWARDS, *_FIRST_STAGE, *_PLACES, *_TOLD_OTHERWISE})


def score_key(
    basis: bytes, query: str, document: Document, instruction: str, max_tokens: int | None
) -> bytes:
    """The key of one score, twenty bytes.

    Args:
        basis: what does not change from request to request.
        document: what is read of it: title and text, apart.
        instruction: as it is in effect.
        max_tokens: most tokens of a document that are read, as it is in effect; None: all.
    """
    most = "" if max_tokens is None else str(max_tokens)
    # No title and an empty one are read the same.
    texts = (query, document.title or "", document.text, instruction, most)
    return _digest(basis, *(text.encode("utf-8", "surrogatepass") for text in texts))


@dataclass(frozen=True)
class ScoreKeys:
    """Makes the keys of one reranker's scores, for its weights as they were when this was made.

    Attributes:
        basis: digest of what does not change from request to request.
        instruction: that of the settings.
        max_tokens: ``max_document_tokens`` of the settings.
        whole: whether title and text are read as one text, so that it does not matter where one
            ends.
    """

    basis: bytes
    instruction: str
    max_tokens: int | None
    whole: bool

    @classmethod
    def of(cls, reranker: Reranker) -> ScoreKeys:
        """Those of a reranker; loads the model if it is not loaded, and reads its weights once.

        Raises:
            ConfigError: if its scores are relative to a list, so that they cannot be cached.
            ModelLoadError: if the model cannot be loaded.
        """
        check_cacheable(reranker.config)
        scorer = reranker.scorer
        return cls(
            basis_of(scorer),
            reranker.config.instruction,
            reranker.config.max_document_tokens,
            reranker.config.passages == "none",
        )

    def __call__(
        self,
        query: str,
        document: Document | str,
        instruction: str | None = None,
        max_tokens: int | None = None,
    ) -> bytes:
        """The key of a query and a document.

        Args:
            document: what is read of it. With the setting ``passages`` its title must stand apart
                from its text, because it is read before each passage.
            instruction: of the call; None: that of the settings.
            max_tokens: of the call; the smaller of this and the setting counts.
        """
        if isinstance(document, str):
            document = Document(document)
        elif self.whole:
            document = Document(document.content)
        given = [number for number in (max_tokens, self.max_tokens) if number is not None]
        own = self.instruction if instruction is None else instruction
        return score_key(self.basis, query, document, own, min(given, default=None))


def check_cacheable(config: RerankerConfig) -> None:
    """Raise `ConfigError` for scores that mean nothing beside other documents."""
    if not config.absolute:
        raise ConfigError(
            f"score_mode={config.score_mode!r} gives scores relative to a list, which cannot be "
            "cached; set score_mode='probability' or 'explained', or use no score cache"
        )


def basis_of(scorer: Scorer) -> bytes:
    """Digest of all that one scorer's absolute scores depend on beside the texts of a request."""
    with scorer.engine.lock:
        parts = {
            **_of_library(),
            **_of_weights(scorer.engine, scorer),
            "tokenizer": _of_tokenizer(scorer.engine.tokenizer),
            "basis": scorer.basis(),
            "calibration": _of_calibration(scorer),
            "settings": settings_that_count(scorer.config),
        }
    return _digest(json.dumps(parts, sort_keys=True).encode())


def settings_that_count(config: RerankerConfig) -> dict[str, object]:
    """The settings that are part of a key, as JSON types."""
    return {name: value for name, value in config.to_dict().items() if name not in WITHOUT}


def _of_library() -> dict[str, object]:
    import torch
    import transformers

    return {
        "format": FORMAT,
        "icr_rag": icr_rag.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _of_weights(engine: Engine, scorer: Scorer) -> dict[str, object]:
    from icr_rag.model.fingerprint import head_fingerprint

    whole = scorer.config.method.needs_lm_head or not scorer.layers
    depth = engine.text_config.num_hidden_layers if whole else scorer.layers[-1] + 1
    head = whole and engine.causal is not None
    return {
        "weights": engine.fingerprint(depth),
        "head": head_fingerprint(engine.causal, engine.decoder) if head else None,
        "device": engine.device.partition(":")[0],
        "dtype": engine.dtype.dtype,
        "kernel": engine.kernel,
    }


def _of_tokenizer(tokenizer: object) -> str:
    """Digest of what makes token ids of a text, and prompts of a chat."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary: dict[str, int] = getattr(tokenizer, "get_vocab", dict)()
    given: dict[str, object] = getattr(tokenizer, "init_kwargs", {})
    told = {
        "class": type(tokenizer).__qualname__,
        "backend": None if backend is None else backend.to_str(),
        "vocabulary": sorted(vocabulary.items()) if backend is None else None,
        # Not where it came from, nor objects, which are told by an address.
        "settings": {
            name: value
            for name, value in given.items()
            if isinstance(value, (str, bool, int, float)) and not name.endswith(("_path", "_file"))
        },
        "template": getattr(tokenizer, "chat_template", None),
    }
    return _digest(json.dumps(told, sort_keys=True).encode()).hex()


def _of_calibration(scorer: Scorer) -> Mapping[str, object] | None:
    """The numbers of the calibration in use; None where explained scores are shown."""
    calibration = None if scorer.judge is None else scorer.judge.calibration
    if calibration is None:
        return None
    return calibration.model_dump(mode="json", include={"kind", "slope", "intercept", "knots"})


def _digest(*parts: bytes) -> bytes:
    """Digest of parts, each behind its length."""
    digest = hashlib.blake2b(digest_size=_DIGEST, person=b"icr_rag.score")
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
