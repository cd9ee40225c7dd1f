# SPDX-License-Identifier: Apache-2.0
"""mistralrs with one GGUF file loaded, spoken to like ``ours.py``; runs in the peers' environment.

It counts and times tokens itself (``usage``). Depth is a prompt of as many tokens before.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from answers import peak, say

STARTED = time.time()


def main() -> None:
    """``mistral.py FILE``."""
    from mistralrs import CompletionRequest, Runner, Which

    path = Path(sys.argv[1])
    which = Which.GGUF(quantized_model_id=str(path.parent), quantized_filename=path.name)
    runner = Runner(which, max_seqs=1, prefix_cache_n=0)
    letters = random.Random(0)

    def complete(prompt: int, new: int) -> object:
        text = "".join(letters.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(prompt))
        request = CompletionRequest(prompt=text, model="default", max_tokens=new, temperature=0.0)
        return runner.send_completion_request(request).usage

    complete(8, 1)
    say({"ready": time.time() - STARTED, "peak": peak()})
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["test"] == "pp":
            usage = complete(asked["tokens"], 1)
            rate = usage.avg_prompt_tok_per_sec
        else:
            usage = complete(max(1, asked["depth"]), asked["tokens"])
            rate = usage.avg_compl_tok_per_sec
        say({"rate": rate, "peak": peak()})


if __name__ == "__main__":
    main()
