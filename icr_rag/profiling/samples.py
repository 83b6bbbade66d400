"""What is read of a query and its candidates by every head: the raw material of a profile."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from icr_rag.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One query.

    Attributes:
        query_id: its id.
        group: the data that it is from, for transfer between data sets.
        readings: float32 [document, layer, head, reading], `icr_rag.model.reading.READINGS`.
        grades: int64 [document], graded relevance of the candidates, 0 where not relevant.
        ideal: int64, grades of all relevant documents of the query, highest first, also of those
            that are not among the candidates.
        likelihood: float32 [document], query likelihood; None where it was not computed.
        key: what it was read from, as `icr_rag.profiling.resume` tells; "": not known.
        documents: ids of the candidates; empty where they are not known.
        scores: teacher -> float64 [document], higher is better. Not part of the file, for they
            are computed by others: `icr_rag.profiling.teacher_scores` keeps them.
    """

    query_id: str
    group: str
    readings: np.ndarray
    grades: np.ndarray
    ideal: np.ndarray
    likelihood: np.ndarray | None = None
    key: str = ""
    documents: tuple[str, ...] = ()
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether any document is known to be relevant, so that rankings can be measured."""
        return bool(self.ideal.max(initial=0) > 0)


def standardise(readings: np.ndarray) -> np.ndarray:
    """z-scores over the first axis (documents), float64; what does not vary becomes 0."""
    values = readings.astype(np.float64)
    centred = values - values.mean(axis=0)
    deviation = values.std(axis=0)
    varies = deviation > 1e-9 * np.maximum(np.abs(values).max(axis=0), 1e-30)
    return np.where(varies, centred / np.where(varies, deviation, 1.0), 0.0)


def save_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write samples as an .npz file of plain arrays; whole or not at all.

    Raises:
        DataError: if it cannot be written.
    """
    arrays: dict[str, np.ndarray] = {
        "ids": np.array([[sample.query_id, sample.group, sample.key] for sample in samples])
    }
    for number, sample in enumerate(samples):
        arrays[f"{number}.readings"] = sample.readings
        arrays[f"{number}.grades"] = sample.grades
        arrays[f"{number}.ideal"] = sample.ideal
        arrays[f"{number}.documents"] = np.array(sample.documents, dtype=np.str_)
        if sample.likelihood is not None:
            arrays[f"{number}.likelihood"] = sample.likelihood
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as out:
            np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_samples(path: Path) -> list[Sample]:
    """Read what `save_samples` wrote; nothing is unpickled.

    Raises:
        DataError: if it cannot be read or is no such file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return [
                Sample(
                    str(query_id),
                    str(group),
                    stored[f"{number}.readings"],
                    stored[f"{number}.grades"],
                    stored[f"{number}.ideal"],
                    stored.get(f"{number}.likelihood"),
                    # Files of before have no keys.
                    key=str(*key),
                    documents=tuple(map(str, stored.get(f"{number}.documents", ()))),
                )
                for number, (query_id, group, *key) in enumerate(stored["ids"])
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} holds no readings that can be used: {error}") from error


def fold_of(query_id: str, folds: int) -> int:
    """Which of ``folds`` parts a query is in: by a hash, so that more queries move none."""
    return int.from_bytes(hashlib.sha256(query_id.encode()).digest()[:4], "big") % folds
