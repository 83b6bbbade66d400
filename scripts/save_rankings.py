"""Rankings by every method, written down to the last bit, to compare two versions of the code.

    python scripts/save_rankings.py save before.json      # with the one
    python scripts/save_rankings.py compare before.json   # with the other, on the same machine

Two models: one with random weights, one the embedded. Scores are compared as hexadecimal numbers;
other processors, threads or versions of torch give other ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker

ATTENTION = {"scoring": "attention"}
LISTWISE = {**ATTENTION, "framework": "listwise"}
POINTWISE = {**ATTENTION, "framework": "pointwise"}
SHARED = {**LISTWISE, "document_states": "independent"}
BLIND = {**LISTWISE, "document_states": "blind"}
LIKELIHOOD = {"scoring": "likelihood"}
GENERATION = {"scoring": "generation"}
MIXED = {"scoring": "mixed"}
SOME = ((1, 0), (1, 2), (3, 1))

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "all layers": {"layers": "all"},
    "window of layers": {"layers": (1, 3)},
    "heads": {"heads": SOME},
    "lift": {**LISTWISE, "layers": (1, 2), "reading": "lift"},
    "log mass": {**LISTWISE, "layers": (1, 2), "reading": "log_mass"},
    "max": {**LISTWISE, "layers": (1, 2), "reading": "max"},
    "calibrated by none": {"layers": (1, 2), "calibration": "none"},
    "other null": {"layers": (1, 2), "null_query": "nothing at all"},
    "no mask": {"layers": (1, 2), "token_mask": False},
    "mean": {"layers": (1, 2), "aggregation": "mean"},
    "double": {"layers": (1, 2), "double_query": True},
    "given order": {"layers": (1, 2), "order": "given"},
    "question answering": {"layers": (1, 2), "instruction": "question_answering"},
    "windows": {"layers": (1, 2), "window": 3, "stride": 1},
    "score lift": {"layers": (1, 2), "score_mode": "lift"},
    "share": {"layers": (1, 2), "score_mode": "share"},
    "rank": {"layers": (1, 2), "score_mode": "rank"},
    "prior": {"layers": (1, 2), "fusion": "prior"},
    "rrf": {"layers": (1, 2), "fusion": "rrf"},
    "weighted": {"layers": (1, 2), "fusion": "weighted", "fusion_weight": 0.3},
    "cut": {"layers": (1, 2), "max_document_tokens": 9, "max_query_tokens": 4},
    "near duplicates": {"layers": (1, 2), "near_duplicates": 0.6},
    "small chunk": {"layers": (1, 2), "prefill_chunk": 7},
    "setwise": {**ATTENTION, "framework": "setwise", "layers": (1, 2)},
    "setwise, bubble": {**ATTENTION, "framework": "setwise", "sort": "bubble", "set_size": 3},
    "pointwise": POINTWISE,
    "pointwise, layers": {**POINTWISE, "layers": (1, 3)},
    "pointwise, lift": {**POINTWISE, "heads": SOME, "reading": "lift"},
    "pointwise, kept": {**POINTWISE, "document_states": "independent"},
    "shared": SHARED,
    "shared, layers": {**SHARED, "layers": (1, 3)},
    "shared, windows": {**SHARED, "layers": (1, 3), "window": 3},
    "shared, score lift": {**SHARED, "layers": (1, 3), "score_mode": "lift"},
    "shared, heads": {**SHARED, "heads": SOME, "reading": "log_mass"},
    "shared, double": {**SHARED, "layers": (1, 3), "double_query": True},
    "shared, int8": {**SHARED, "layers": (1, 3), "states_dtype": "int8"},
    "blind": BLIND,
    "blind, layers": {**BLIND, "layers": (1, 3)},
    "blind, heads": {**BLIND, "heads": SOME, "reading": "lift"},
    "cascade": {**SHARED, "layers": (1, 3), "cascade": 3},
    "cascade, pointwise": {**BLIND, "layers": (1, 3), "cascade": 3,
                           "cascade_framework": "pointwise"},
    "likelihood": LIKELIHOOD,
    "likelihood, kept": {**LIKELIHOOD, "document_states": "independent"},
    "likelihood, cascade": {**LIKELIHOOD, "document_states": "independent", "cascade": 3},
    "yes or no": {**LIKELIHOOD, "likelihood": "yes_no"},
    "yes or no, Qwen": {**LIKELIHOOD, "likelihood": "yes_no",
                        "yes_no_template": "qwen3_reranker"},
    "labels, listwise": {**LIKELIHOOD, "framework": "listwise"},
    "labels, windows": {**LIKELIHOOD, "framework": "listwise", "window": 3},
    "labels, setwise": {**LIKELIHOOD, "framework": "setwise"},
    "labels, pairwise": {**LIKELIHOOD, "framework": "pairwise"},
    "labels, all pairs": {**LIKELIHOOD, "framework": "pairwise", "sort": "all_pairs"},
    "written list": {**GENERATION, "framework": "listwise"},
    "written label": {**GENERATION, "framework": "setwise", "set_size": 3},
    "written pairs": {**GENERATION, "framework": "pairwise", "sort_top": 2},
    "written yes or no": {**GENERATION, "framework": "pointwise"},
    "mixed": MIXED,
    "mixed, lift": {**MIXED, "layers": (1, 3), "reading": "lift"},
    "mixed, explained": {**MIXED, "layers": (1, 3), "score_mode": "explained"},
    "pointwise, explained": {**POINTWISE, "heads": SOME, "score_mode": "explained"},
    "likelihood, explained": {**LIKELIHOOD, "score_mode": "explained"},
    "yes or no, explained": {**LIKELIHOOD, "likelihood": "yes_no", "score_mode": "explained"},
    "mixed, kept": {**MIXED, "document_states": "independent"},
}  # fmt: skip

QUERY = "Which metal melts first when it is heated?"
DOCUMENTS = [
    "Tin melts at 232 degrees, long before copper does.",
    "Oaks carry acorns in autumn.",
    "Lead is soft and heavy. It melts at 327 degrees and has been used for pipes.",
    "",
    "Copper conducts heat and electricity well.",
    "Oaks carry acorns in autumn.",
    "Oaks carry acorns in the autumn.",
    "Iron melts late.",
    "The shop opens at nine.",
]


#: For a fusion: no content twice, and a score for each.
DISTINCT = list(dict.fromkeys(DOCUMENTS))
SCORES = [0.3, 0.9, 0.5, 0.1, 0.8, 0.2, 0.7, 0.4]


def rankings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of a case and what came of it."""
    torch.set_num_threads(1)
    makers = {
        "tiny": lambda **fields: Reranker.from_model(
            tiny_model("llama"), byte_tokenizer(), **fields
        ),
        "embedded": lambda **fields: Reranker(dtype="float32", **fields),
    }
    for model, make in makers.items():
        for name, fields in CASES.items():
            with make(**fields) as reranker:
                # Twice: with kept states the second time finds them.
                fused = "fusion" in fields
                given = DISTINCT if fused else DOCUMENTS
                scores = SCORES if fused else None
                for turn in ("cold", "warm"):
                    ranking = reranker.rank(QUERY, given, retrieval_scores=scores)
                    yield f"{model}: {name}: {turn}", told(ranking)
        with make(document_states="independent", framework="listwise", layers=(1, 3)) as reranker:
            queries = [QUERY, "What do oaks carry?"]
            for number, ranking in enumerate(reranker.rank_many(queries, [DOCUMENTS] * 2)):
                yield f"{model}: many: {number}", told(ranking)
        with make(layers=(1, 2)) as reranker:
            reading = reranker.read_attention(QUERY, DOCUMENTS)
            sums = [float(s).hex() for s in reading.query.double().sum(dim=-1).flatten()]
            yield f"{model}: attention", {"sums": sums, "tokens": len(reading.token_ids)}


def told(ranking: Any) -> dict[str, Any]:
    """A ranking as JSON types."""
    usage = ranking.usage
    return {
        "order": [hit.index for hit in ranking],
        "scores": [score.hex() for score in ranking.scores],
        "groups": list(ranking.score_groups),
        "usage": [usage.tokens, usage.windows, usage.calls, usage.generated_tokens, usage.repairs],
        "layers": list(usage.layers),
        "truncated": list(usage.truncated),
    }


def main(command: str, path: Path) -> int:
    """Save, or compare with what was saved; the exit status."""
    found = dict(rankings())
    if command == "save":
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{len(found)} rankings in {path}")
        return 0
    saved = json.loads(path.read_text(encoding="utf-8"))
    differing = [name for name in saved if found.get(name) != saved[name]]
    for name in differing:
        print(f"{name}:\n  {saved[name]}\n  {found.get(name)}")
    print(f"{len(saved) - len(differing)} of {len(saved)} rankings are equal to the last bit")
    return 1 if differing else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("save", "compare"):
        sys.exit("usage: python scripts/save_rankings.py save|compare FILE")
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
