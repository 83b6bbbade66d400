"""Everything that can be set, in one validated, immutable object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator, model_validator

from icr_rag.arguments import wrong_instruction
from icr_rag.config_auto import open_to, switched_to_auto
from icr_rag.config_checks import check_scoring, check_together, is_set, meaningless
from icr_rag.config_errors import explain
from icr_rag.config_fields import Fields
from icr_rag.config_scores import ABSOLUTE, checked_weights, written_weights
from icr_rag.config_sources import read_config_file, read_environment
from icr_rag.errors import ConfigError
from icr_rag.method import AUTO
from icr_rag.methods import Method, find_method, frameworks_of, keeps


class RerankerConfig(Fields):
    """Settings of a `Reranker`. Immutable; checked when it is made.

    Raises:
        ConfigError: naming the field, the value received and the values allowed.
    """

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise ConfigError(explain(error, type(self).model_fields)) from error

    @field_validator("model", "cache_dir", "profile", "states_dir", "embedder", mode="before")
    @classmethod
    def _accept_paths(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("scoring")
    @classmethod
    def _check_scoring(cls, value: str) -> str:
        check_scoring(value)
        return value

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError("allowed are 'auto', 'cpu', 'cuda', 'cuda:N' and 'mps'")
        return value

    @field_validator("layers", mode="before")
    @classmethod
    def _parse_layers(cls, value: Any) -> Any:
        """``10-13``, as it is written in files, environment variables and on the command line."""
        match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", value) if isinstance(value, str) else None
        return value if match is None else (int(match[1]), int(match[2]))

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, value: str | tuple[int, int]) -> str | tuple[int, int]:
        if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
            raise ValueError(
                "a layer window is (first, last), 0-indexed, inclusive, 0 <= first <= last"
            )
        return value

    @field_validator("heads", mode="before")
    @classmethod
    def _parse_heads(cls, value: Any) -> Any:
        return "all" if value is None else value

    @field_validator("heads")
    @classmethod
    def _check_heads(
        cls, value: str | tuple[tuple[int, int], ...]
    ) -> str | tuple[tuple[int, int], ...]:
        if not isinstance(value, tuple):
            return value
        if not value:
            raise ValueError("an empty list of heads reads nothing; use 'all' for all heads")
        if any(layer < 0 or head < 0 for layer, head in value):
            raise ValueError("heads are (layer, head) pairs, both counted from 0")
        if len(set(value)) != len(value):
            raise ValueError("a (layer, head) pair is listed twice")
        return value

    @field_validator("rank_fields", mode="before")
    @classmethod
    def _parse_fields(cls, value: Any) -> Any:
        """``name,address``, as it is written in environment variables and on the command line."""
        return tuple(map(str.strip, value.split(","))) if isinstance(value, str) else value

    @field_validator("rank_fields")
    @classmethod
    def _check_fields(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        if not value or any(not name.strip() or "\n" in name for name in value):
            raise ValueError("allowed are names of fields, at least one; None: title and text")
        if len(set(value)) != len(value):
            raise ValueError("a field is listed twice")
        return value

    @field_validator("first_stage_weights", mode="before")
    @classmethod
    def _parse_weights(cls, value: Any) -> Any:
        return written_weights(value)

    @field_validator("first_stage_weights")
    @classmethod
    def _check_weights(
        cls, value: tuple[tuple[str, float], ...] | None
    ) -> tuple[tuple[str, float], ...] | None:
        return checked_weights(value)

    @field_validator("instruction")
    @classmethod
    def _check_instruction(cls, value: str) -> str:
        problem = wrong_instruction(value)
        if problem is not None:
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _check_together(self) -> RerankerConfig:
        check_together(self)
        return self

    @property
    def method(self) -> Method:
        """The method of these settings, `settled`; a profile may still choose another framework."""
        own = self.settled()
        return find_method(own.scoring, own.framework, own.likelihood, own.document_states)

    @property
    def absolute(self) -> bool:
        """Whether scores are of the query and the document alone."""
        return self.score_mode in ABSOLUTE

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RerankerConfig:
        """The configuration that `to_dict` wrote."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types; `from_dict` gives an equal configuration back."""
        return self.model_dump(mode="json")

    def changed(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {name: value for name, value in self if is_set(self, name)}

    def settled(self) -> RerankerConfig:
        """With "auto" for scoring replaced by what it is for a model of which nothing is known:
        attention, where the other settings allow it."""
        return open_to(self)[0] if self.scoring == AUTO else self

    def replace(self, **changes: Any) -> RerankerConfig:
        """A copy with some fields changed, checked again."""
        return type(self)(**{**self.model_dump(), **changes})

    def switched(self, **changes: Any) -> RerankerConfig:
        """A copy for another method: settings that mean nothing to it have their defaults.

        Args:
            **changes: as in `replace`: scoring, framework, likelihood, document_states and others.
        """
        values = {**self.model_dump(), **changes}
        if values["scoring"] == AUTO:
            return switched_to_auto(self, changes)
        fields = type(self).model_fields
        if "framework" not in changes and values["framework"] not in frameworks_of(
            str(values["scoring"])
        ):
            values["framework"] = "auto"
        if "document_states" not in changes and not keeps(
            str(values["scoring"]), values["framework"], values["document_states"]
        ):
            values["document_states"] = fields["document_states"].default
        # Again and again: what is dropped may have been all that another setting was for.
        dropped = {""}
        while dropped:
            useless = meaningless(values) - set(changes)
            dropped = {name for name in useless if values[name] != fields[name].default}
            for name in dropped:
                values[name] = fields[name].default
        return type(self)(**values)

    @classmethod
    def from_file(cls, path: str | Path) -> RerankerConfig:
        """Read a YAML (.yaml, .yml) or TOML (.toml) file whose keys are this class's fields.

        Raises:
            ConfigError: if the file is missing, cannot be parsed, or has a wrong field.
        """
        return cls(**read_config_file(Path(path)))

    @classmethod
    def from_env(
        cls, prefix: str = "ICR_RAG_", environment: Mapping[str, str] | None = None
    ) -> RerankerConfig:
        """Read environment variables: ``ICR_RAG_MODEL``, ``ICR_RAG_LAYERS=10-13``, and so on.

        Args:
            prefix: what the names begin with; the rest is a field's name in capitals.
            environment: where to look; None: the process's own.

        Raises:
            ConfigError: for a name with this prefix that is no field, or a wrong value.
        """
        return cls(**read_environment(cls, prefix, environment))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema of a configuration, for editors and other programs."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **cls.model_json_schema(),
        }
