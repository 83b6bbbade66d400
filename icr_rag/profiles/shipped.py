"""The profiles that ship with the library, one JSON file each in this package, and their look-up.

A model is known by the shape in its configuration, so that a local folder, a mirror or a
quantised copy finds the same profile as the hub name.

A file with ``heads`` serves what `Profile.serves` says. One with ``layers`` alone is the window
that ``layers="auto"`` stands for, whatever is scored and however the documents were encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from icr_rag.errors import ConfigError
from icr_rag.profiles.profile import Profile, Shape

#: Width of a window where nothing better is known (Selective-ICR, arXiv 2602.22591).
WINDOW_WIDTH = 4


@cache
def shipped_profiles() -> tuple[Profile, ...]:
    """All of them, read on first use. Of several that serve one model, the best goes first.

    Raises:
        ConfigError: if this installation lacks the files.
    """
    folder = resources.files("icr_rag.profiles")
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".json")),
        key=lambda file: file.name,
    )
    # Bundlers that leave data out would have models read otherwise, and nobody told.
    if not files:
        raise ConfigError(f"{folder} has no profiles; install icr_rag again, with its JSON files")
    found = []
    for file in files:
        with resources.as_file(file) as path:
            found.append(Profile.load(path))
    # framework="auto" takes the first; documents read one by one rank best, docs/study.md.
    return tuple(sorted(found, key=lambda profile: profile.framework != "pointwise"))


def shipped_profile(
    text_config: Any, scoring: str, framework: str, document_states: str = "joint"
) -> Profile | None:
    """The heads that ship for a model of this shape and this way of scoring, if any do.

    Args:
        text_config: a transformers text configuration of the whole model.
        scoring: the setting.
        framework: "auto": the one that serves this model best.
        document_states: "joint", "independent" or "blind".
    """
    shape = Shape.of(text_config)
    for profile in shipped_profiles():
        if (
            profile.heads
            and profile.shape == shape
            and profile.scoring == scoring
            and profile.serves(framework, document_states)
        ):
            return profile
    return None


def shipped_calibrated(text_config: Any, scoring: str, likelihood: str) -> list[Profile]:
    """The profiles that ship for a model of this shape and have a calibration or abstention.

    Args:
        text_config: a transformers text configuration of the whole model.
        scoring: the setting.
        likelihood: the variant; "" where a method has none.
    """
    shape = Shape.of(text_config)
    return [
        profile
        for profile in shipped_profiles()
        if (profile.calibration or profile.abstention)
        and profile.shape == shape
        and (profile.scoring, profile.likelihood) == (scoring, likelihood)
    ]


def shipped_window(shape: Shape) -> Profile | None:
    """The window of layers that ships for models of this shape, if one does."""
    for profile in shipped_profiles():
        if not profile.heads and profile.layers is not None and profile.shape == shape:
            return profile
    return None


def auto_layers(text_config: Any, readable: Sequence[int] = ()) -> tuple[list[int], str]:
    """The layers for ``layers="auto"``, ascending, and the reason for the choice.

    Args:
        text_config: a transformers text configuration of the whole model, not of a truncated one.
        readable: layers that have attention; empty: all.
    """
    profile = shipped_window(Shape.of(text_config))
    if profile is not None and profile.layers is not None:
        first, last = profile.layers
        return list(range(first, last + 1)), profile.method
    count = text_config.num_hidden_layers
    kinds = getattr(text_config, "layer_types", None) or []
    if len(set(kinds)) > 1:
        # Layers that see a sliding window only cannot see documents beyond it.
        middle = range(count // 4, count - count // 4)
        full = [layer for layer in middle if kinds[layer] == "full_attention"]
        if full:
            return full, "no preset for this model: the full-attention layers in the middle half"
    layers = list(readable) or list(range(count))
    width = min(WINDOW_WIDTH, len(layers))
    first = (len(layers) - width) // 2
    among = f"{count}" if len(layers) == count else f"its {len(layers)} with attention"
    chosen = layers[first : first + width]
    return chosen, f"no preset for this model: the middle {width} of {among}"
