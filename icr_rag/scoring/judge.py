"""What a scorer's absolute scores mean: the calibration and the abstention that go with them.

They come from ``profile=FILE``, or else from the profiles that ship. Both are used only on scores
of the basis that they were fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from icr_rag.errors import ConfigError
from icr_rag.profiles import Abstention, Calibration, Profile, Shape
from icr_rag.profiles.shipped import shipped_calibrated
from icr_rag.scoring.base import Scorer
from icr_rag.scoring.basis import differing

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from icr_rag.config import RerankerConfig
    from icr_rag.methods import Method


@dataclass(frozen=True)
class Judge:
    """What the explained scores of one scorer mean.

    Attributes:
        calibration: probabilities of single documents; None: explained scores are shown.
        abstention: the probability that a list has an answer; None: not known.
    """

    calibration: Calibration | None = None
    abstention: Abstention | None = None

    def shown(self, scores: Sequence[float], groups: Sequence[int]) -> list[float]:
        """Scores as they are shown, from explained ones; 0.0 for a document that was not read.

        Args:
            scores: one per document. groups: likewise; below 0: it was not read.
        """
        if self.calibration is None:
            return list(scores)
        of = self.calibration.probability
        pairs = zip(scores, groups, strict=True)
        return [0.0 if group < 0 else of(score) for score, group in pairs]

    def answerable(self, scores: Sequence[float]) -> float | None:
        """The probability that one of the documents with these explained scores answers.

        Args:
            scores: of the distinct documents that were read.
        """
        return None if self.abstention is None else self.abstention.probability(scores)


def check_judged(
    config: RerankerConfig, method: Method, text_config: PreTrainedConfig
) -> list[Profile]:
    """The profiles whose calibration or abstention may be meant; before there are weights.

    Raises:
        ConfigError: if there is none and one is asked for, or a file is for something else.
    """
    if not config.absolute:
        return []
    if config.profile is None:
        found = shipped_calibrated(text_config, method.scoring, method.variant)
    else:
        found = [_of_file(config, method, text_config)]
    if config.score_mode == "probability" and not any(item.calibration for item in found):
        raise ConfigError(_lacking("score_mode='probability'", "calibration", config, method))
    if config.min_answerable is not None and not any(item.abstention for item in found):
        asked = f"min_answerable={config.min_answerable}"
        raise ConfigError(_lacking(asked, "abstention", config, method))
    return found


def find_judge(scorer: Scorer, method: Method) -> Judge | None:
    """What a scorer's scores mean; None where scores are relative to the list.

    Raises:
        ConfigError: if what is asked for was fitted on scores of another basis.
    """
    config = scorer.config
    found = check_judged(config, method, scorer.engine.text_config)
    if not config.absolute:
        return None
    basis = scorer.basis()
    calibration = abstention = None
    if config.score_mode == "probability":
        calibrations = [item.calibration for item in found if item.calibration]
        calibration = _fitting(calibrations, basis, config, "score_mode='probability'")
    abstentions = [item.abstention for item in found if item.abstention]
    # A file that is given for nothing else must be of use; else it is told where it can be.
    named = config.profile is not None and calibration is None and not method.reads_attention
    if config.min_answerable is not None or named:
        asked = "profile" if config.min_answerable is None else "min_answerable"
        abstention = _fitting(abstentions, basis, config, asked)
    else:
        abstention = next((item for item in abstentions if item.basis == basis), None)
    return Judge(calibration, abstention)


_Fitted = TypeVar("_Fitted", Calibration, Abstention)


def _fitting(
    found: Sequence[_Fitted], basis: dict[str, str], config: RerankerConfig, asked: str
) -> _Fitted:
    for item in found:
        if item.basis == basis:
            return item
    where = "what ships" if config.profile is None else f"profile={config.profile!r}"
    other = ", ".join(differing(found[0].basis, basis))
    raise ConfigError(
        f"{asked} cannot be had: {where} was fitted on scores of other {other}; "
        f"leave these as they were, or {_way_out(config)}"
    )


def _of_file(config: RerankerConfig, method: Method, text_config: PreTrainedConfig) -> Profile:
    profile = Profile.load(str(config.profile))
    shape = Shape.of(text_config)
    if profile.shape != shape:
        raise ConfigError(
            f"profile={config.profile!r} was made for {profile.model} ({profile.shape}), but "
            f"{config.model} is {shape}; make one with `icr-rag profile`"
        )
    if (profile.scoring, profile.likelihood) != (method.scoring, method.variant):
        made = f"scoring={profile.scoring!r}"
        made += f", likelihood={profile.likelihood!r}" if profile.likelihood else ""
        raise ConfigError(
            f"profile={config.profile!r} was made for {made}, not for {method.label}; set these, "
            "or make another one with `icr-rag profile`"
        )
    if not method.reads_attention and config.score_mode == "explained" and not profile.abstention:
        raise ConfigError(
            f"profile={config.profile!r} means nothing here: it has a calibration only, and "
            "score_mode='explained' shows none; set score_mode='probability', or leave it out"
        )
    return profile


def _lacking(asked: str, what: str, config: RerankerConfig, method: Method) -> str:
    where = (
        f"no profile that ships has one for {method.label} and {config.model}"
        if config.profile is None
        else f"profile={config.profile!r} has none"
    )
    return f"{asked} needs {what}, and {where}; {_way_out(config)}"


def _way_out(config: RerankerConfig) -> str:
    """How to get what is missing."""
    options = f"--scoring {config.scoring}"
    if config.method.reads_attention:
        heads = "--method none" if config.profile is None else f"--profile {config.profile}"
        options += f" --framework pointwise {heads}"
    elif config.likelihood != "query":
        options += f" --likelihood {config.likelihood}"
    return (
        f"make one on queries of yours with `icr-rag profile DATA {options} --calibrate logistic` "
        "and set profile=FILE, or choose another score_mode"
    )
