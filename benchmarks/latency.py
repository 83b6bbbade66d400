"""Latency on the embedded model: 20 documents of about 100 tokens, JSON on stdout.

    python benchmarks/latency.py                 # the comparison
    python benchmarks/latency.py --plot docs/images/latency.svg

In one run, interleaved, so that a busy machine disturbs all alike:

- plain: what the papers' code does on a CPU: eager attention maps of every layer, LM head, one
  full pass for the query and one for the null query;
- all: this library, all layers (ICR);
- window: this library, layers (10, 13) (Selective-ICR).

It also measures this machine's float32 matrix-product rate and counts the multiply-adds that must
be done, so that the share of the machine that is used can be stated.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time

import torch
import transformers

from icr_rag import Reranker
from icr_rag.model.embedded import ensure_embedded_model

QUERY = "How does the tide change when the moon is full?"
WINDOW = (10, 13)
_WORDS = (
    "tide", "moon", "harbour", "sand", "cliff", "boat", "rope", "gull", "salt", "wave",
    "depth", "current", "anchor", "storm", "pier", "light", "stone", "shell", "crab", "fog",
)  # fmt: skip


def make_documents(tokenizer, count: int, tokens: int) -> list[str]:
    """Different documents of exactly ``tokens`` tokens (with the leading blank)."""
    documents = []
    for number in range(count):
        words = [_WORDS[(number * 7 + i * (number + 3)) % len(_WORDS)] for i in range(tokens * 2)]
        text = f" No {number}: {' '.join(words)}"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]
        documents.append(tokenizer.decode(ids).strip())
    return documents


def measure_matmul_rate() -> float:
    """Median float32 rate of a large square matrix product, in multiply-adds per second."""
    size = 2048
    left, right = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - start)
    return size**3 / statistics.median(seconds)


def needed_multiply_adds(config, prefix: int, rows: int, tail: int, last: int, read: int) -> int:
    """Multiply-adds that any implementation must do, in exact causal attention.

    Args:
        prefix: tokens shared by both tails; tail: tokens of both; rows: query rows of both.
        last: the last layer read; read: how many layers are read.
    """
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    size = config.hidden_size // heads
    width = config.hidden_size
    full_layer = width * size * (2 * heads + 2 * key_heads) + 3 * width * config.intermediate_size
    keys_only = width * size * key_heads
    attention = 2 * heads * size * (prefix * (prefix + 1) // 2 + tail * prefix)
    # The last layer: keys for all, queries and logits for the rows alone.
    last_layer = (prefix + tail) * keys_only + rows * width * size * heads
    logits = heads * size * rows * prefix
    return last * ((prefix + tail) * full_layer + attention) + last_layer + (read) * logits


@torch.inference_mode()
def plain(model, reading) -> float:
    """Seconds for the papers' way on the same token ids."""
    start = time.perf_counter()
    for ids, rows in (
        (reading.token_ids, reading.query_rows),
        (reading.null_token_ids, reading.null_query_rows),
    ):
        maps = model(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
        sum(layer[0, :, rows].mean(dim=1).sum(dim=0) for layer in maps)
    return time.perf_counter() - start


def timed_rank(reranker, documents) -> float:
    start = time.perf_counter()
    reranker.rank(QUERY, documents)
    return time.perf_counter() - start


def compare(repeats: int) -> dict:
    folder = ensure_embedded_model("smollm2-135m")
    settings = {"model": "smollm2-135m", "dtype": "float32", "device": "cpu"}
    everything = Reranker(layers="all", **settings)
    window = Reranker(layers=WINDOW, **settings)
    documents = make_documents(everything.tokenizer, 20, 100)
    reading = everything.read_attention(QUERY, documents)
    eager = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    everything.rank(QUERY, documents)
    window.rank(QUERY, documents)

    seconds: dict[str, list[float]] = {"plain": [], "all": [], "window": []}
    rates = []
    for turn in range(repeats):
        rates.append(measure_matmul_rate())
        for _ in range(3):
            seconds["all"].append(timed_rank(everything, documents))
            seconds["window"].append(timed_rank(window, documents))
        if turn < 2:
            seconds["plain"].append(plain(eager, reading))
        rates.append(measure_matmul_rate())
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rate = statistics.median(rates)

    config = everything.engine.text_config
    prefix = reading.query_rows.start
    rows = [s.stop - s.start for s in (reading.query_rows, reading.null_query_rows)]
    work = {
        "all": needed_multiply_adds(config, prefix, sum(rows), sum(rows), 29, 30),
        "window": needed_multiply_adds(config, prefix, sum(rows), sum(rows), WINDOW[1], 4),
    }
    return {
        "documents": 20,
        "tokens": everything.rank(QUERY, documents).usage.tokens,
        "median_seconds": median,
        "runs": {name: len(values) for name, values in seconds.items()},
        "speedup_over_plain": {n: median["plain"] / median[n] for n in ("all", "window")},
        "speedup_of_window_over_all": median["all"] / median["window"],
        "matmul_gflops": 2 * rate / 1e9,
        "needed_gflop": {name: 2 * value / 1e9 for name, value in work.items()},
        "share_of_matmul_rate": {n: work[n] / median[n] / rate for n in ("all", "window")},
        "machine": machine(),
    }


def machine() -> dict:
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def curves() -> dict:
    """Seconds over the number of documents and over tokens per document."""
    settings = {"model": "smollm2-135m", "dtype": "float32", "device": "cpu"}
    rerankers = {
        "all layers": Reranker(layers="all", **settings),
        "layers 10-13": Reranker(layers=WINDOW, **settings),
    }
    shapes = {
        "documents": [(n, 100) for n in (5, 10, 20, 40, 60)],
        "tokens per document": [(20, n) for n in (25, 50, 100, 200, 300)],
    }
    result: dict = {}
    for axis, points in shapes.items():
        for name, reranker in rerankers.items():
            line = []
            for count, tokens in points:
                documents = make_documents(reranker.tokenizer, count, tokens)
                took = statistics.median(timed_rank(reranker, documents) for _ in range(3))
                line.append((count if axis == "documents" else tokens, took))
                print(f"{axis} {name} {line[-1]}", file=sys.stderr)
            result.setdefault(axis, {})[name] = line
    return result


def plot(data: dict, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "icr_rag"
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    fixed = {"documents": "100 tokens each", "tokens per document": "20 documents"}
    for panel, (axis, lines) in zip(panels, data.items(), strict=True):
        for (name, line), style in zip(lines.items(), ("o-", "s--"), strict=True):
            panel.plot(*zip(*line, strict=True), style, label=name)
        panel.set_xlabel(f"{axis} ({fixed[axis]})")
        panel.set_ylim(bottom=0)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds per query")
    panels[0].legend(frameon=False)
    figure.suptitle("SmolLM2-135M, float32, 2 CPU threads", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith("svg") else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plot", help="draw the curves into this SVG or PNG file")
    arguments = parser.parse_args()
    if arguments.plot:
        data = curves()
        plot(data, arguments.plot)
        print(json.dumps({"curves": data, "machine": machine()}, indent=2))
    else:
        print(json.dumps(compare(arguments.repeats), indent=2))


if __name__ == "__main__":
    main()
