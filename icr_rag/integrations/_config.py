"""What the adapters share: from a constructor's keywords to the engine they stand for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from icr_rag.calls.embedder import apart
from icr_rag.calls.request import WITHOUT_SCORES
from icr_rag.config import RerankerConfig
from icr_rag.config_sources import read_config_file, read_environment
from icr_rag.errors import ConfigError
from icr_rag.reranker import Reranker

if TYPE_CHECKING:
    from typing_extensions import Self


def adapter_settings(
    adapter: type, fields: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Keywords that an adapter's constructor names, and the others, which are the reranker's."""
    named = _keywords(adapter)
    own = {name: value for name, value in fields.items() if name in named}
    return own, {name: value for name, value in fields.items() if name not in named}


def with_own_top_n(
    adapter: type, config: RerankerConfig, fields: Mapping[str, object]
) -> dict[str, object]:
    """Keywords for an adapter, with the ``top_n`` that is set in ``config`` under its own name.

    Adapters that keep their owner's signature have another default than all documents; it must
    not stand against what a file says.
    """
    own = {name: config.top_n for name in ("top_n", "top_k") if name in _keywords(adapter)}
    return {**({} if config.top_n is None else own), **fields}


def _keywords(adapter: Any) -> Mapping[str, object]:
    """What an adapter's constructor names. Of a Haystack component the class itself tells none."""
    return inspect.signature(adapter.__init__).parameters


class Makers:
    """Other ways to make an adapter than by its constructor's keywords."""

    @classmethod
    def from_config(cls, path: str | Path, **fields: object) -> Self:
        """One with the settings of a YAML or TOML file.

        Args:
            path: a file with fields of `RerankerConfig`.
            **fields: keywords of the constructor, which go before the file's.

        Raises:
            ConfigError: if the file is missing, cannot be parsed, or has a wrong field.
        """
        return _made(cls, read_config_file(Path(path)), fields)

    @classmethod
    def from_env(cls, prefix: str = "ICR_RAG_", **fields: object) -> Self:
        """One with the settings in the environment: ``ICR_RAG_MODEL``, ``ICR_RAG_LAYERS``, ...

        Args:
            prefix: what the names begin with.
            **fields: keywords of the constructor, which go before the environment's.

        Raises:
            ConfigError: for a variable with this prefix that is no setting, or a wrong value.
        """
        return _made(cls, read_environment(RerankerConfig, prefix, None), fields)

    @classmethod
    def from_llm(
        cls,
        llm: object,
        *,
        tokenizer: object = None,
        config: RerankerConfig | Mapping[str, object] | None = None,
        **fields: object,
    ) -> Self:
        """One on the weights of an LLM that is loaded already. None is copied or changed.

        Args:
            llm: LlamaIndex's ``HuggingFaceLLM``, LangChain's ``HuggingFacePipeline`` or
                ``ChatHuggingFace``, a transformers pipeline or model.
            tokenizer: for a model that comes alone.
            config: settings; those about loading are not used.
            **fields: as in the constructor.

        Raises:
            ConfigError: if a setting is unknown or has a value that is not allowed.
            UnsupportedModelError: if there is no local decoder-only model in ``llm``.
        """
        from icr_rag.integrations._llm import unwrap_llm

        own, settings = adapter_settings(cls, fields)
        settings, runtime = apart(settings)
        merged = _merged(config, settings)
        reranker = Reranker.from_model(*unwrap_llm(llm, tokenizer), merged, **runtime)
        maker: Callable[..., Self] = cls
        return maker(reranker=reranker, **with_own_top_n(cls, reranker.config, own))


_Made = TypeVar("_Made")


def _made(
    adapter: type[_Made], values: Mapping[str, object], fields: Mapping[str, object]
) -> _Made:
    """An adapter with the settings of a file or the environment, and keywords that go before them.

    Checked together: a setting may be for the method that a keyword asks for.
    """
    own, settings = adapter_settings(adapter, fields)
    settings, runtime = apart(settings)
    named = {name: value for name, value in own.items() if name in RerankerConfig.model_fields}
    # An adapter's own top_n is no setting of the reranker.
    named.pop("top_n", None)
    config = RerankerConfig(**{**values, **settings, **named})
    maker: Callable[..., _Made] = adapter
    return maker(config=config, **with_own_top_n(adapter, config, own), **runtime)


@contextmanager
def named_errors() -> Iterator[None]:
    """Pydantic's findings about an adapter's own fields as the error that all settings raise."""
    try:
        yield
    except ValidationError as error:
        raise ConfigError(
            "; ".join(
                f"{'.'.join(map(str, found['loc']))}={found['input']!r}: {found['msg']}"
                for found in error.errors()
            )
        ) from error


def without_first_stage(reranker: Reranker) -> Reranker:
    """The reranker, for an adapter whose calls have no place for first-stage scores.

    Raises:
        ConfigError: if its settings ask for them.
    """
    if reranker.config.fusion == "weighted":
        raise ConfigError(
            "fusion='weighted' needs the first stage's scores, which do not get here; "
            "fusion='rrf' goes by input order"
        )
    weights = dict(reranker.config.first_stage_weights or ())
    named = [name for name in weights if name not in WITHOUT_SCORES]
    if named:
        raise ConfigError(
            f"first_stage_weights has a weight of {named[0]!r}, and the first stage's scores do "
            f"not get here; allowed are {' and '.join(map(repr, WITHOUT_SCORES))}: leave it out"
        )
    return reranker


def resolve_reranker(
    reranker: Reranker | None,
    config: RerankerConfig | Mapping[str, object] | None,
    fields: Mapping[str, object],
) -> Reranker:
    """The reranker for an adapter's constructor arguments. Loads nothing.

    Args:
        reranker: a ready one, or None.
        config: settings, or None for the defaults.
        fields: single settings, which replace those of ``config``.

    Raises:
        ConfigError: if a ready reranker comes together with settings, or a setting is wrong.
    """
    if reranker is not None:
        if not callable(getattr(reranker, "rank", None)):
            raise ConfigError(f"reranker={reranker!r} is not an icr_rag.Reranker")
        if config is not None or fields:
            given = sorted(fields) or ["config"]
            raise ConfigError(
                f"reranker= comes with settings of its own; {', '.join(given)} cannot be set "
                "beside it. Set them where the Reranker is made"
            )
        return reranker
    settings, runtime = apart(fields)
    return Reranker(_merged(config, settings), **runtime)


def _merged(
    config: RerankerConfig | Mapping[str, object] | None, fields: Mapping[str, object]
) -> RerankerConfig:
    """Settings, and keywords that go before them, checked together."""
    if isinstance(config, RerankerConfig):
        return config.replace(**fields) if fields else config
    return RerankerConfig(**{**(config or {}), **fields})
