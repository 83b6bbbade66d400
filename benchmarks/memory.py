"""Peak memory of a long list on the embedded model, in a fresh process; JSON on stdout.

    python benchmarks/memory.py

Resident memory of the process after loading and warming up, and its peak while a list of about
7,000 tokens is ranked, for all layers and for layers (10, 13). Linux only (reads /proc).
"""

from __future__ import annotations

import json
import subprocess
import sys

_CHILD = """
import sys
sys.path.insert(0, {folder!r})
from latency import QUERY, make_documents
from icr_rag import Reranker

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) / 1024

reranker = Reranker(layers={layers!r}, dtype="float32", device="cpu").warm_up()
documents = make_documents(reranker.tokenizer, 68, 100)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
loaded = status("VmRSS")
usage = reranker.rank(QUERY, documents).usage
weights = sum(p.numel() for n, p in reranker.engine.decoder.named_parameters() if "layers." in n)
import json
print(json.dumps({{"tokens": usage.tokens, "windows": usage.windows, "loaded_mb": round(loaded),
    "peak_mb": round(status("VmHWM")), "growth_mb": round(status("VmHWM") - loaded),
    "layer_parameters": weights}}))
"""


def measure(layers: object) -> dict:
    folder = __file__.rpartition("/")[0]
    code = _CHILD.format(folder=folder, layers=layers)
    output = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(output.stdout)


def main() -> None:
    everything, window = measure("all"), measure((10, 13))
    share = window["layer_parameters"] / everything["layer_parameters"]
    report = {"all": everything, "layers 10-13": window, "share_of_layer_weights": share}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
