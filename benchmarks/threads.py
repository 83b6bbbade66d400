"""Processes that share cores: seconds per query by the number of processes and of torch's threads.

    python benchmarks/threads.py        # 1 and 4 processes, each with 1 and with torch's threads
    python benchmarks/threads.py --processes 1 2 4 --threads 1 2 default --queries 3

Every process loads the embedded model, ranks the list once, waits for the others, and then ranks
it ``--queries`` times. "default" leaves OMP_NUM_THREADS unset. A Markdown table on stdout: the
median over all queries of a row, and what all its processes did together per minute. What else
runs on the machine is in the numbers; they are indicative.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

DEFAULT = "default"
QUERY = "How does the tide change when the moon is full?"


def work(documents: int, tokens: int, queries: int) -> None:
    """One process: tell when it is ready, wait for a line, print the seconds of each query."""
    from latency import make_documents

    from icr_rag import Reranker

    with Reranker(dtype="float32") as reranker:
        texts = make_documents(reranker.tokenizer, documents, tokens)
        reranker.rank(QUERY, texts)
        print("ready", flush=True)
        if not sys.stdin.readline():
            return  # Whoever started it is gone.
        for _ in range(queries):
            started = time.perf_counter()
            reranker.rank(QUERY, texts)
            print(time.perf_counter() - started, flush=True)


def measure(processes: int, threads: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of a query, and queries per minute of all processes together."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    if threads != DEFAULT:
        environment["OMP_NUM_THREADS"] = threads
    command = [sys.executable, __file__, "--work", "--documents", str(arguments.documents),
               "--tokens", str(arguments.tokens), "--queries", str(arguments.queries)]  # fmt: skip
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(processes)
    ]
    try:
        for worker in workers:
            if worker.stdout.readline().strip() != "ready":
                raise SystemExit("a process failed before it was ready; see its error above")
        started = time.perf_counter()
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        outputs = [worker.communicate()[0] for worker in workers]
        wall = time.perf_counter() - started
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    seconds = [float(line) for output in outputs for line in output.split()]
    if len(seconds) != processes * arguments.queries:
        raise SystemExit("a process failed while it ranked; see its error above")
    return statistics.median(seconds), 60 * len(seconds) / wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", nargs="+", default=["1", DEFAULT])
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=100, help="of each document")
    parser.add_argument("--queries", type=int, default=3, help="measured, of each process")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.documents, arguments.tokens, arguments.queries)
        return

    import torch

    from icr_rag.evaluation.environment import hardware, versions
    from icr_rag.model.threads import cores

    machine, found = hardware(), versions()
    print(
        f"{machine['cpu']}: {cores()}; torch {found['torch']} (default: "
        f"{torch.get_num_threads()} threads here), transformers {found['transformers']}, Python "
        f"{found['python']}; {arguments.documents} documents of {arguments.tokens} tokens\n"
    )
    print("| processes | threads of each | seconds per query | queries per minute, all |")
    print("|---|---|---|---|")
    for processes in arguments.processes:
        for threads in arguments.threads:
            seconds, rate = measure(processes, threads, arguments)
            print(f"| {processes} | {threads} | {seconds:.1f} | {rate:.1f} |", flush=True)


if __name__ == "__main__":
    main()
