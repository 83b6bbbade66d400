"""What document states save: seconds per query, cold and warm, on the embedded model.

    python benchmarks/states.py --json states.json --plot docs/images/states.svg

In one run, interleaved, so that a busy machine disturbs all alike:

- joint: ICR over all layers, every document run again for every query;
- shared, all layers: the same reading over kept states, one tail that sees all documents;
- shared: one such tail with the embedded model's profile, which ends in layer 21;
- blind: a tail that does not see the documents, with its profile;
- per document: one short tail per document, with its profile;
- files: as shared, with the states in files (which the system's cache holds) and none in memory;
- likelihood: query likelihood over kept states, against the same without; also over the length of
  the documents, since a query costs the same for long ones.

Cold is the first call on new documents, warm a call whose documents all have states in memory. The
floor is the larger of the multiply-adds that must be done over this machine's measured rate and the
bytes that must be read (weights and states) over its measured bandwidth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from latency import machine, make_documents, measure_matmul_rate

from icr_rag import Reranker

QUERY = "How does the tide change when the moon is full?"
#: Lists of new documents.
COLD = 3
SETTINGS = {"model": "smollm2-135m", "dtype": "float32", "device": "cpu"}
KEPT = {**SETTINGS, "document_states": "independent", "states_memory": 8192}


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure_bandwidth() -> float:
    """Median bytes per second of reading a block that no cache holds."""
    block = torch.ones(2**28)
    return block.numel() * 4 / statistics.median(seconds(block.sum) for _ in range(5))


def ways(folder: str) -> dict[str, dict[str, Any]]:
    """Name -> settings."""
    return {
        "joint": {**SETTINGS, "framework": "listwise", "layers": "all"},
        "shared, all layers": {**KEPT, "framework": "listwise", "layers": "all"},
        "shared": {**KEPT, "framework": "listwise"},
        "blind": {**KEPT, "framework": "listwise", "document_states": "blind"},
        "per document": {**KEPT, "framework": "pointwise"},
        "files": {**KEPT, "framework": "listwise", "states_memory": 0, "states_dir": folder},
        "likelihood, nothing kept": {**SETTINGS, "scoring": "likelihood"},
        "likelihood": {**KEPT, "scoring": "likelihood"},
    }


def floor(
    config: Any, run: int, keys: int, last: int, blind: bool, rate: float, band: float
) -> float:
    """Seconds that any implementation needs for a warm query.

    Args:
        run: tokens that are run; keys: document tokens that each of them sees.
        last: the last layer, of which only queries, keys and logits are computed.
        blind: whether the layers' own attention leaves the documents out.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    groups, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    layer = width * size * (2 * heads + 2 * groups) + 3 * width * config.intermediate_size
    # Logits, and the sum of values where documents are seen.
    attention = (1 if blind else 2) * heads * size * run * keys
    products = last * (run * layer + attention) + heads * size * run * keys
    states = (1 if blind else 2) * groups * size * keys
    return max(products / rate, 4 * last * (layer + states) / band)


#: Ways that have a floor, and the last layer that each runs.
FLOORS = {"shared, all layers": 29, "shared": 21, "blind": 21, "per document": 21}


def least(name: str, reranker: Reranker, documents: list[str], rate: float, band: float) -> float:
    """The floor of a warm query over these documents."""
    run = reranker.rank(QUERY, documents).usage.tokens
    total = sum(map(len, reranker.tokenizer(documents)["input_ids"]))
    keys = total // len(documents) if name == "per document" else total
    return floor(reranker.engine.text_config, run, keys, FLOORS[name], name == "blind", rate, band)


def table(count: int, tokens: int, repeats: int, folder: str) -> dict[str, Any]:
    """Median seconds of every way, for one list of documents."""
    rows: dict[str, Any] = {}
    rerankers = {name: Reranker(**settings) for name, settings in ways(folder).items()}
    tokenizer = rerankers["joint"].tokenizer
    lists = make_documents(tokenizer, (1 + COLD) * count, tokens)
    warm_documents = lists[:count]
    times: dict[str, list[float]] = {}
    for reranker in rerankers.values():
        reranker.warm_up()
        reranker.rank(QUERY, warm_documents)
    for turn in range(1, 1 + COLD):
        new = lists[turn * count :][:count]
        for name, reranker in rerankers.items():
            took = seconds(lambda r=reranker, d=new: r.rank(QUERY, d))
            times.setdefault(f"{name}, cold", []).append(took)
    for turn in range(repeats):
        for name, reranker in rerankers.items():
            if turn < 3 or name not in ("joint", "likelihood, nothing kept"):
                took = seconds(lambda r=reranker: r.rank(QUERY, warm_documents))
                times.setdefault(name, []).append(took)
    for name, values in times.items():
        rows[name] = round(statistics.median(values), 4)
    rows["ratios"] = {
        "joint / shared": round(rows["joint"] / rows["shared"], 1),
        "joint / shared, all layers": round(rows["joint"] / rows["shared, all layers"], 1),
        "joint / blind": round(rows["joint"] / rows["blind"], 1),
        "joint / per document": round(rows["joint"] / rows["per document"], 1),
        "joint / shared, all layers, both cold": round(
            rows["joint, cold"] / rows["shared, all layers, cold"], 2
        ),
        "likelihood, nothing kept / kept": round(
            rows["likelihood, nothing kept"] / rows["likelihood"], 1
        ),
        "likelihood, nothing kept / kept, both cold": round(
            rows["likelihood, nothing kept, cold"] / rows["likelihood, cold"], 2
        ),
    }
    rate, band = measure_matmul_rate(), measure_bandwidth()
    for name in FLOORS:
        rows[f"{name}, floor"] = round(least(name, rerankers[name], warm_documents, rate, band), 4)
    for reranker in rerankers.values():
        reranker.close()
    return rows


def curve(counts: list[int], tokens: int) -> dict[str, list[list[float]]]:
    """Median seconds over the number of documents."""
    lines: dict[str, list[list[float]]] = {}
    rate, band = measure_matmul_rate(), measure_bandwidth()
    for name in ("joint", "shared", "blind", "per document"):
        with Reranker(**ways("")[name]) as reranker:
            for count in counts:
                documents = make_documents(reranker.tokenizer, count, tokens)
                # Beyond its context the joint prompt goes through windows, and takes minutes.
                if name == "joint" and count > 100:
                    continue
                reranker.rank(QUERY, documents)
                turns = 1 if name == "joint" else 3
                took = statistics.median(
                    seconds(lambda d=documents: reranker.rank(QUERY, d)) for _ in range(turns)
                )
                lines.setdefault(name, []).append([count, took])
                if name in FLOORS:
                    lowest = least(name, reranker, documents, rate, band)
                    lines.setdefault(f"{name}, floor", []).append([count, lowest])
                print(name, count, f"{took:.3f}", file=sys.stderr, flush=True)
    return lines


def likelihood_over_length(lengths: list[int], count: int) -> list[dict[str, float]]:
    """Seconds of query likelihood per query, over tokens per document."""
    rows = []
    settings = ways("")
    with (
        Reranker(**settings["likelihood"]) as kept,
        Reranker(**settings["likelihood, nothing kept"]) as nothing,
    ):
        for tokens in lengths:
            documents = make_documents(kept.tokenizer, count, tokens)
            kept.rank(QUERY, documents)
            turns = range(3)
            without = statistics.median(
                seconds(lambda d=documents: nothing.rank(QUERY, d)) for _ in turns
            )
            warm = statistics.median(
                seconds(lambda d=documents: kept.rank(QUERY, d)) for _ in turns
            )
            rows.append({"tokens": tokens, "nothing kept": round(without, 3),
                         "kept": round(warm, 3), "ratio": round(without / warm, 1)})  # fmt: skip
    return rows


def plot(lines: dict[str, list[list[float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    text = "#7a7f87"
    colours = {"joint": "#e08a1e", "shared": "#2f8fd0", "blind": "#b0609b",
               "per document": "#3a9d5d"}  # fmt: skip
    with matplotlib.rc_context({"text.color": text, "axes.labelcolor": text, "xtick.color": text,
                                "ytick.color": text, "axes.edgecolor": text,
                                "svg.hashsalt": "icr_rag"}):  # fmt: skip
        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axes = figure.subplots()
        for name, line in lines.items():
            way, _, least = name.partition(", ")
            style = {"ls": "--", "lw": 1} if least else {"ls": "-", "lw": 2, "marker": "o", "ms": 4}
            axes.plot(*zip(*line, strict=True), color=colours[way], label=name, **style)
        axes.set(xscale="log", yscale="log", xlabel="documents", ylabel="seconds per query")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.25, color=text, which="both")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8, labelcolor=text)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "gflops": 2 * measure_matmul_rate() / 1e9,
                              "GB/s": measure_bandwidth() / 1e9}  # fmt: skip
    for count, tokens in ((20, 100), (100, 60)):
        with tempfile.TemporaryDirectory() as folder:
            rows = table(count, tokens, arguments.repeats, folder)
        report[f"{count} documents of {tokens} tokens"] = rows
        print(json.dumps(report, indent=1), flush=True)
    report["likelihood, 20 documents"] = likelihood_over_length([50, 100, 200, 400], 20)
    if arguments.plot:
        report["curve"] = curve([10, 20, 50, 100, 200, 500, 1000], 60)
        plot(report["curve"], arguments.plot)
    arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
