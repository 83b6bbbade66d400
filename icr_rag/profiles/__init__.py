"""Profiles: which layers and heads to read, with which weights, found by profiling a model.

A profile is a JSON file that says where it comes from. ``profile=FILE`` makes a reranker read it;
the JSON files of this package ship with the library, see `icr_rag.profiles.shipped`.
"""

from icr_rag.profiles.profile import HeadWeight, Profile, Reading, Shape

__all__ = ["HeadWeight", "Profile", "Reading", "Shape"]
