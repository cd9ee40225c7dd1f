# SPDX-License-Identifier: Apache-2.0
"""What constrained decoding costs: ``python tests/perf/grammar_masks.py [masks | steps] [--shape qwen3-0.6b]``.

``masks`` walks through grammars token by token, bare llguidance and the engine's own book-keeping by turns, and prints
microseconds a token. ``steps`` decodes 8 sequences of a model with random weights, constrained and free runs by turns,
and prints the medians of step times. The vocabulary is Qwen 2's (``../shared/data/tokenizers/qwen2``).
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llguidance
import numpy as np
import tokenizers
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from tramontane.engine import EngineConfig, EngineCore
from tramontane.grammar import Constraint
from tramontane.grammar.compiler import Compiled, GrammarCompiler
from tramontane.grammar.matching import Matching
from tramontane.grammar.trial import Limits, compile_matcher
from tramontane.grammar.vocabulary import Vocabulary
from tramontane.requests import EngineRequest, SamplingParams
from tramontane.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
QWEN = ROOT.parent / "shared" / "data" / "tokenizers" / "qwen2"
VOCABULARY = 151_936
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 40},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
GRAMMARS = {
    "json schema": Constraint.json_schema(PERSON),
    "strings": Constraint.json_schema({"type": "array", "items": {"type": "string"}, "minItems": 40}),
    "regex": Constraint.regex("([A-Z][a-z]{2,9} ){60}"),
    "triggered": Constraint.json_object().triggered("<tool_call>", again=True),
}


def vocabulary() -> Vocabulary:
    """Qwen 2's, from its vocabulary and merges."""
    model = tokenizers.models.BPE.from_file(str(QWEN / "vocab.json"), str(QWEN / "merges.txt"))
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return Vocabulary.of(Tokenizer(backend, eos_ids=[backend.token_to_id("<|im_end|>")]), VOCABULARY)


def walk(first: llguidance.LLMatcher, count: int) -> list[int]:
    """Tokens of a random way through a grammar."""
    matcher, draw, tokens = first.deep_copy(), random.Random(0), []
    while len(tokens) < count and not matcher.is_stopped():
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        tokens.append(int(draw.choice(np.flatnonzero(bits))))
        matcher.consume_token(tokens[-1])
    return tokens


def bare(first: llguidance.LLMatcher, tokens: list[int]) -> tuple[float, float]:
    """Microseconds a token of llguidance alone: a mask, then the token; and the masks alone."""
    matcher, mask = first.deep_copy(), allocate_token_bitmask(1, VOCABULARY)
    filling, start = 0.0, time.perf_counter()
    for token in tokens:
        began = time.perf_counter()
        fill_next_token_bitmask(matcher, mask)
        filling += time.perf_counter() - began
        matcher.consume_token(token)
    return 1e6 * (time.perf_counter() - start) / len(tokens), 1e6 * filling / len(tokens)


def ours(compiled: Compiled, tokens: list[int]) -> tuple[float, float]:
    """The same through the engine's side, with its look for forced tokens; and the masks alone. Nothing overlaps."""
    matching = Matching(VOCABULARY)
    params = SamplingParams(constraint=GRAMMARS["regex"], logprobs=0)
    request = SimpleNamespace(sampling=params)
    sequence: Any = SimpleNamespace(request=request, tokens=[0], prompt_len=1, stop_ids=frozenset(), slot=0)
    matching.start(0, compiled, sequence)
    filling, start = 0.0, time.perf_counter()
    for place, token in enumerate(tokens):
        matching.masks([0], [1 + place])
        filling += matching._places[0].mask_s
        matching.take([0], [1 + place], [token])
    return 1e6 * (time.perf_counter() - start) / len(tokens), 1e6 * filling / len(tokens)


def masks(words: Vocabulary, rounds: int) -> None:
    """Print a row for each grammar."""
    tokenizer = words.build()
    for name, constraint in GRAMMARS.items():
        first = compile_matcher(constraint, tokenizer, words.eos_ids, Limits())
        tokens = walk(first, 200)
        rows = [(*bare(first, tokens), *ours(Compiled(words, first), tokens)) for _ in range(rounds)]
        whole, mask, our_whole, our_mask = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median(row[3] / row[1] for row in rows)
        print(
            f"{name:12s} {len(tokens):4d} tokens  masks {mask:6.1f} us bare, {our_mask:6.1f} us ours, ratio {ratio:.2f}"
            f"; whole {whole:6.1f} us bare, {our_whole:6.1f} us ours"
        )


def steps(words: Vocabulary, shape: str, rounds: int, new: int) -> None:
    """Print the medians of decode steps."""
    from tramontane.load import LoadOptions, load_model
    from tramontane.testing.shapes import write

    path = ROOT / "build" / "shapes" / shape
    if not (path / "config.json").is_file():
        write(shape, path)
    config = EngineConfig(max_num_seqs=8, max_batched_tokens=512, num_blocks=128, prefix_cache=False)
    loaded = load_model(str(path), LoadOptions(engine=config, max_model_len=1024))
    core = EngineCore(loaded.runner, loaded.engine, GrammarCompiler(lambda: words))

    def run(constraint: Constraint | None, number: int) -> float:
        for index in range(8):
            params = SamplingParams(max_tokens=new, ignore_eos=True, seed=index, constraint=constraint)
            core.add(EngineRequest(id=f"{number}-{index}", prompt_token_ids=(5, 6, 7), sampling=params))
        times = []
        while core.has_work:
            start = time.perf_counter()
            tokens = core.step()
            if len(tokens) == 8:
                times.append(time.perf_counter() - start)
        return 1e3 * statistics.median(times[2:])

    run(GRAMMARS["strings"], -1)
    pairs = []
    for number in range(rounds):
        pairs.append((run(None, 2 * number), run(GRAMMARS["strings"], 2 * number + 1)))
        print(f"free {pairs[-1][0]:.2f} ms, constrained {pairs[-1][1]:.2f} ms", flush=True)
    free, held = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"{shape}, 8 sequences: free {free:.2f} ms, constrained {held:.2f} ms a step, ratio {ratio:.3f}")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("masks", "steps"), default="masks")
    parser.add_argument("--shape", default="qwen3-0.6b")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new", type=int, default=16)
    options = parser.parse_args()
    if options.what == "masks":
        masks(vocabulary(), options.rounds)
    else:
        steps(vocabulary(), options.shape, options.rounds, options.new)


if __name__ == "__main__":
    main()
