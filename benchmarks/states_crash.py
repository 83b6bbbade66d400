"""Kill a writer of document states a hundred times at random moments; nothing wrong is ever read.

    python benchmarks/states_crash.py

Each writer encodes the same 1,000 documents with a small model of random weights, into one
folder; it is killed up to 0.3 seconds after it began. Then every stored state is read and compared
with one that is made anew; and two writers encode the same documents at once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker

KILLS, DOCUMENTS = 100, 1000
WAY = {"framework": "pointwise", "layers": (1, 2), "document_states": "independent"}


def texts() -> list[str]:
    return [f"document {number} " + "tide and moon " * (number % 7) for number in range(DOCUMENTS)]


#: The first one says that a writer is at work.
ALL = ["the first document", *texts()]


def make(folder: str | None) -> Reranker:
    options = {} if folder is None else {"states_dir": folder, "states_memory": 0}
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **WAY, **options)


def start(folder: str) -> int:
    """A writer in a process of its own; its number, once it has begun to encode."""
    begun, tell = os.pipe()
    process = os.fork()
    if process == 0:
        reranker = make(folder)
        reranker.encode(ALL[:1])
        os.write(tell, b"x")
        reranker.encode(ALL)
        os._exit(0)
    os.read(begun, 1)
    os.close(begun)
    os.close(tell)
    return process


def main() -> None:
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(KILLS):
            process = start(folder)
            time.sleep(chance.uniform(0.0, 0.3))
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        reranker = make(folder)
        store = reranker.scorer.states.store
        left, _ = store.disk.size()
        fresh = make(None)
        query = "which tide?"
        wrong = 0
        for begin in range(0, DOCUMENTS, 100):
            part = ALL[1:][begin : begin + 100]
            wrong += reranker.rank(query, part).scores != fresh.rank(query, part).scores
        print(f"{KILLS} kills: {left} of {len(ALL)} stored, {store.disk.rejected} rejected, "
              f"{wrong} of {DOCUMENTS // 100} lists with other scores")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for process in [start(folder), start(folder)]:
            os.waitpid(process, 0)
        stored, size = make(folder).scorer.states.store.disk.size()
        print(f"two writers at once: {stored} of {len(ALL)} stored, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
