# SPDX-License-Identifier: Apache-2.0
"""From a seed to a story, and from the command line to a page of them.

Seeds from `HELD_OUT_SEED` on are never used in training.
"""

from __future__ import annotations

import argparse
import random

from training.storygrammar import plots_friends, plots_growth, plots_help, plots_right, plots_wild, plots_wonder
from training.storygrammar.engine import Tale

PLOTS = (
    plots_friends.PLOTS
    + plots_growth.PLOTS
    + plots_help.PLOTS
    + plots_right.PLOTS
    + plots_wild.PLOTS
    + plots_wonder.PLOTS
)
HELD_OUT_SEED = 1_000_000_000


def tale(seed: int) -> Tale:
    """The tale of `seed`, told to its end; who is in it can be looked up."""
    t = Tale(random.Random(seed))
    t.pick(PLOTS)(t)
    return t


def story(seed: int) -> str:
    """The text of the tale of `seed`: always the same for the same seed and the same grammar."""
    return tale(seed).text()


def main() -> None:
    """Print stories: ``python -m training.storygrammar.generate --seed 7 --count 3``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3)
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.count):
        print(story(seed), end="\n\n---\n\n")


if __name__ == "__main__":
    main()
