"""Query likelihood with demonstrations in the prompt's head, and the mean over several prompts.

    python benchmarks/prompts.py DATA TEXTS --out results --queries 10

Of each family's measured queries (`benchmarks/teaching_data.py`) the first; nDCG@10 of shuffled
candidates by the mean log-probability of the query's tokens. Variants:

- one and three demonstrations: short passages, each with a question that it answers, before the
  passage that is scored; kept in one prefix for all documents;
- other sentences between passage and query, and the mean of the standardised scores of all of them.

Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from teaching import Row, table
from teaching_data import PARTS, domains, graded, name_of

from icr_rag import Reranker, RerankerConfig
from icr_rag.evaluation.environment import hardware, versions
from icr_rag.model.engine import Engine
from icr_rag.profiling.curve import measure_ranking
from icr_rag.profiling.resume import Task, read_order
from icr_rag.profiling.samples import standardise
from icr_rag.prompts.query_likelihood import INSTRUCTIONS, QueryLikelihoodPrompts
from icr_rag.scoring.base import Cost
from icr_rag.scoring.likelihood import QueryLikelihoodScorer

#: Of no set that is measured.
DEMONSTRATIONS = (
    ("The tide rises and falls twice a day because the moon pulls at the sea; when sun and moon "
     "stand in line, the difference is largest.", "Why is the tide sometimes higher than usual?"),
    ("To prune an apple tree, cut out crossing and dead branches in late winter, before the buds "
     "open, and never more than a third of the crown.", "when should apple trees be cut back"),
    ("sort -k2,2n orders lines by their second field, read as a number; without n, 10 comes before "
     "9.", "order lines of a file by a numeric column"),
)  # fmt: skip
SENTENCES = {
    "retrieval": "retrieval",
    "question_answering": "question_answering",
    "search": "Please write a search query for which this passage is a good result.",
    "title": "Please say in a few words what this passage is about.",
}


class Demonstrated(QueryLikelihoodPrompts):
    """Query likelihood's prompt behind some demonstrations."""

    def __init__(self, tokenizer: object, count: int) -> None:
        super().__init__(tokenizer)
        after = INSTRUCTIONS["retrieval"]
        shown = "".join(f" {text}{after} {query}\n\nPassage:"
                        for text, query in DEMONSTRATIONS[:count])  # fmt: skip
        self._head_ids = self.start_ids() + self.encode(["Passage:" + shown])[0]


class Shown(QueryLikelihoodScorer):
    """Query likelihood with so many demonstrations."""

    def __init__(self, engine: Engine, config: RerankerConfig, count: int) -> None:
        super().__init__(engine, config, "pointwise")
        self.prompts = Demonstrated(engine.tokenizer, count)


def scorers(config: RerankerConfig) -> dict[str, QueryLikelihoodScorer]:
    """Variant -> what scores; all on one engine."""
    engine = Reranker(config).engine
    found: dict[str, QueryLikelihoodScorer] = {
        name: QueryLikelihoodScorer(engine, config.switched(instruction=sentence), "pointwise")
        for name, sentence in SENTENCES.items()
    }
    return found | {f"{count} demonstrations": Shown(engine, config, count) for count in (1, 3)}


def score(
    scorer: QueryLikelihoodScorer, task: Task, query: str, names: Sequence[str], most: int
) -> list[float]:
    """One per document."""
    prompts = scorer.prompts
    contents = [task.dataset.documents[name].content for name in names]
    ids = [own[:most] for own in prompts.encode_documents(contents)]
    query_ids = prompts.encode_query(task.dataset.queries[query])
    return scorer.score_each(query_ids, ids, Cost())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=10, help="of each family")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-document-tokens", type=int, default=128)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "prompts.jsonl"
    kept = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {(row["query"], row["variant"]): row["scores"] for row in kept}
    variants = scorers(RerankerConfig(scoring="likelihood", dtype=arguments.dtype))
    rows: dict[str, Row] = {}
    measured = {name_of(part): part.family for part in PARTS if part.measured}
    for task in domains(arguments.data, arguments.texts, arguments.queries, 20):
        if task.name not in measured:
            continue
        values: dict[str, list[float]] = {}
        for query in task.queries[: arguments.queries]:
            names = read_order(task, query)
            grades, ideal = graded(task, query, names)
            found: dict[str, np.ndarray] = {}
            for name, scorer in variants.items():
                if (query, name) not in known:
                    known[query, name] = score(
                        scorer, task, query, names, arguments.max_document_tokens
                    )
                    row = {"query": query, "variant": name, "scores": known[query, name]}
                    with path.open("a") as out:
                        out.write(json.dumps(row) + "\n")
                found[name] = standardise(np.array(known[query, name]))
            found["mean of four sentences"] = np.sum([found[name] for name in SENTENCES], axis=0)
            found["mean of all"] = np.sum([found[name] for name in variants], axis=0)
            for name, own in found.items():
                value = measure_ranking(own[:, None], grades, ideal, "nDCG@10")[0]
                values.setdefault(name, []).append(float(value))
        for name, numbers in values.items():
            rows.setdefault(name, {})[measured[task.name]] = np.array(numbers)
        print(f"{task.name}: {len(task.queries[: arguments.queries])}", flush=True)
    lines = table(rows, "retrieval")
    (arguments.out / "prompts.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(json.dumps({"hardware": hardware(), "versions": versions()}))


if __name__ == "__main__":
    main()
