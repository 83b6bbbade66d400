"""What a profile says, and the JSON file that holds one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from icr_rag.bounded import parse_json, read_text
from icr_rag.errors import ConfigError
from icr_rag.files import write_whole
from icr_rag.methods import Method, methods
from icr_rag.profiles.calibration import Abstention, Calibration
from icr_rag.profiles.held_out import HeldOut

#: Size of the largest file; one with every head of a large model weighted has some megabytes.
_MOST_BYTES = 32 * 2**20

#: What `HeadWeight.reading` may be; `icr_rag.model.reading.READINGS` says what each is.
Reading = Literal["lift", "log_mass", "max", "calibrated"]


#: A weight of the first stage.
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Shape(BaseModel):
    """What tells models apart in their configuration, whatever they are called."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_type: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """The shape of a transformers text configuration."""
        return cls(
            model_type=config.model_type,
            num_hidden_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            num_attention_heads=config.num_attention_heads,
        )


class HeadWeight(BaseModel):
    """One reading of one head, 0-indexed, and its signed weight.

    The reading is standardised over the candidates before it is weighted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    reading: Reading = "lift"
    weight: float = Field(1.0, allow_inf_nan=False)


class Profile(BaseModel):
    """What was learned about one model and one way of scoring: which layers or heads to read, and
    what its absolute scores mean.

    Attributes:
        scoring, framework: what it was made for; it is used for nothing else.
        document_states: how the documents were encoded, of which listwise prompts are made;
            pointwise ones read the same either way.
        layers: window (first, last), 0-indexed, inclusive: the heads of these layers added up
            as ICR does, where there are no ``heads``.
        heads: weighted readings; their sum is the attention score.
        likelihood: for scoring="likelihood": "query" or "yes_no"; "" for methods without variants.
        likelihood_weight: for scoring="mixed": weight of the standardised query likelihood beside
            the standardised attention score.
        first_stage_weight: of the standardised reciprocal rank in the given order, beside the
            standardised score; 0: the order says nothing.
        first_stage: weights of what the first stage said: "scores", standardised, where they are
            alike to cosines, and "order" as ``first_stage_weight``, in whose place it may stand.
            What is not in it has no weight of its own: scores count 1 then.
        model, revision: what the profile was made on, for people.
        shape: of that model; another one is refused.
        data: what it was chosen on: names, numbers of queries and documents, labels or none.
        method: how it was chosen.
        measured: figures of its making, cross-validated where the name says so.
        held_out: figures of the ways of scoring beside each other, on queries that taught nothing.
        curve: per layer, nDCG@10 and its confidence band, as `icr_rag.profiling` makes it.
        calibration: probabilities of relevance for its scores with ``score_mode="explained"``.
            A profile of a method that reads no attention has nothing else, or abstention too.
        abstention: by which a list's scores tell whether anything in it answers.
        created: date, ISO 8601. versions: of what computed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: Literal[1] = 1
    scoring: str = "attention"
    framework: Literal["listwise", "setwise", "pointwise"] = "listwise"
    document_states: Literal["joint", "independent", "blind"] = "joint"
    likelihood: Literal["", "query", "yes_no"] = ""
    layers: tuple[int, int] | None = None
    heads: tuple[HeadWeight, ...] = ()
    likelihood_weight: float = Field(0.0, allow_inf_nan=False)
    first_stage_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    first_stage: dict[Literal["scores", "order"], Weight] = Field(default_factory=dict)
    model: str
    revision: str | None = None
    shape: Shape
    data: dict[str, Any] = Field(default_factory=dict)
    method: str = ""
    measured: dict[str, Any] = Field(default_factory=dict)
    held_out: HeldOut | None = None
    curve: dict[str, Any] | None = None
    calibration: Calibration | None = None
    abstention: Abstention | None = None
    created: str = ""
    versions: dict[str, str | None] = Field(default_factory=dict)

    @field_validator("scoring")
    @classmethod
    def _check_scoring(cls, value: str) -> str:
        known = list(
            dict.fromkeys(row.scoring for row in methods() if row.reads_attention or row.explained)
        )
        if value not in known:
            *others, last = map(repr, known)
            raise ValueError(f"Input should be {', '.join(others)} or {last}")
        return value

    @model_validator(mode="after")
    def _check(self) -> Profile:
        rows = self._rows()
        if self.first_stage_weight not in (0, self.order_weight):
            raise ValueError(
                f"first_stage_weight={self.first_stage_weight} and first_stage={self.first_stage} "
                "both say what the order weighs; leave out one of them"
            )
        if not any(row.reads_attention for row in rows):
            self._check_calibrated_only()
        elif not self.heads and self.layers is None:
            raise ValueError("a profile needs heads or layers")
        if (self.calibration or self.abstention) and not any(row.explained for row in rows):
            raise ValueError(
                f"scoring={self.scoring!r} with framework={self.framework!r} has no absolute "
                "scores, so that there is nothing for calibration and abstention"
            )
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f"layers={self.layers} is not a window (first, last)")
        deepest = self.shape.num_hidden_layers
        if self.layers is not None and self.layers[1] >= deepest:
            raise ValueError(f"layers={self.layers}, but the model has layers 0 to {deepest - 1}")
        for item in self.heads:
            if item.layer >= deepest or item.head >= self.shape.num_attention_heads:
                raise ValueError(f"layer {item.layer}, head {item.head} is not in {self.shape}")
        named = [(item.layer, item.head, item.reading) for item in self.heads]
        if len(set(named)) != len(named):
            raise ValueError("a head's reading is listed twice")
        return self

    def _rows(self) -> list[Method]:
        """The methods that it may be for."""
        own = [row for row in methods() if row.scoring == self.scoring]
        fitting = [row for row in own if row.reads_attention or row.explained]
        frameworks = dict.fromkeys(row.framework for row in fitting)
        if self.framework not in frameworks:
            allowed = " or ".join(map(repr, frameworks))
            raise ValueError(f"scoring={self.scoring!r} goes with framework={allowed} only")
        rows = [row for row in fitting if row.framework == self.framework]
        variants = list(dict.fromkeys(row.variant for row in rows))
        if self.likelihood not in variants:
            allowed = " or ".join(map(repr, variants))
            raise ValueError(
                f"likelihood={self.likelihood!r}; with scoring={self.scoring!r} it is {allowed}"
            )
        return [row for row in rows if row.variant == self.likelihood]

    def _check_calibrated_only(self) -> None:
        if self.calibration is None and self.abstention is None:
            raise ValueError(
                f"a profile for scoring={self.scoring!r} needs a calibration or abstention: "
                "it reads no heads"
            )
        names = ("heads", "layers", "likelihood_weight", "first_stage_weight", "first_stage")
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].get_default(
                call_default_factory=True
            ):
                raise ValueError(f"{name} means nothing with scoring={self.scoring!r}")

    @property
    def order_weight(self) -> float:
        """Weight of the first stage's order; 0: it says nothing."""
        return self.first_stage.get("order", self.first_stage_weight)

    @property
    def scores_weight(self) -> float | None:
        """Weight of the first stage's scores, where they are alike to cosines; None: not said."""
        return self.first_stage.get("scores")

    def serves(self, framework: str, document_states: str) -> bool:
        """Whether it was made for such prompts. Setwise reads the same as listwise."""
        if framework == "auto":
            framework = self.framework
        if (framework == "pointwise") != (self.framework == "pointwise"):
            return False
        if framework == "pointwise":
            return document_states != "blind"
        return self.document_states == document_states

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a JSON file.

        Raises:
            ConfigError: if it cannot be read or is no profile; names what is wrong.
        """
        path = Path(path)
        try:
            path = path.expanduser()
            values = parse_json(read_text(path, _MOST_BYTES))
        # `~name` of nobody is a RuntimeError.
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"profile={str(path)!r} cannot be read: "
                f"{getattr(error, 'strerror', None) or error}; `icr-rag profile` makes one"
            ) from error
        except ValueError as error:
            raise ConfigError(f"profile={str(path)!r} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"profile={str(path)!r} is not a JSON object")
        try:
            return cls(**values)
        except (ValidationError, TypeError) as error:
            raise ConfigError(f"profile={str(path)!r} is no profile: {_first(error)}") from error

    def save(self, path: str | Path) -> None:
        """Write a JSON file that `load` reads; whole or not at all.

        Raises:
            DataError: if it cannot be written.
        """
        values = self.model_dump(mode="json")
        # As files were before there were these, so that those who do not use them see no change.
        for name in ("likelihood", "first_stage", "held_out", "calibration", "abstention"):
            if not values[name]:
                del values[name]
        text = json.dumps(values, indent=1, ensure_ascii=False)
        write_whole(Path(path), [text, "\n"])


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    item = error.errors()[0]
    place = ".".join(map(str, item["loc"]))
    message = item["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
