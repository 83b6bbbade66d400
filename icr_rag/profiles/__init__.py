"""Profiles: which layers and heads to read, with which weights, found by profiling a model; and
what scores mean, as probabilities.

A profile is a JSON file that says where it comes from. ``profile=FILE`` makes a reranker read it;
the JSON files of this package ship with the library, see `icr_rag.profiles.shipped`.
"""

from icr_rag.profiles.calibration import Abstention, Calibration, Proposal
from icr_rag.profiles.held_out import HeldOut
from icr_rag.profiles.profile import HeadWeight, Profile, Reading, Shape

__all__ = [
    "Abstention", "Calibration", "HeadWeight", "HeldOut", "Profile", "Proposal", "Reading", "Shape",
]  # fmt: skip
