# SPDX-License-Identifier: Apache-2.0
"""The grammar tells clean, repeatable stories, and the trained model is exactly a Llama."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from training.chat import render
from training.data import IGNORED, Rows, held_out, learned
from training.model import DemoModel, Shape
from training.muon import orthogonalized
from training.storygrammar.engine import Tale, articles, capitalize, parse
from training.storygrammar.generate import HELD_OUT_SEED, PLOTS, story
from training.talkgrammar.generate import Conversation, conversation
from training.talkgrammar.wording import is_held_out
from training.tokenizer import BOS_ID, EOS_ID
from training.train import Plan, check
from training.trials import trials
from tramontane_loader_demo.plugin import FOLDER

FAULTS = re.compile(
    r"[\[\]{}|^@%]|  |\b(\w+) \1\b|\b[aA] [aeiou]|\b[aA]n [^aeiou]|\.\.| [.,!?]|[.!?] [a-z]|[,.!?][,.!?]"
    r'|[a-z]\." [a-z]|[^.!?"]\n\n|\n[a-z]|^[^A-Z]|[^.!?"]$'
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def test_a_seed_always_tells_the_same_story() -> None:
    assert [story(seed) for seed in range(50)] == [story(seed) for seed in range(50)]


def test_the_grammar_is_the_one_that_the_checkpoint_was_trained_on() -> None:
    """Changing a story changes what the README's held-out loss means: train again, then change this."""
    told = "\n".join(story(seed) for seed in range(200))
    assert hashlib.sha256(told.encode()).hexdigest() == (
        "35268e5add391531ccf897bce685e383edd2ba5d880b17d3484832f2cfefa3e2"
    )


def test_stories_are_clean_different_and_short() -> None:
    stories = [story(seed) for seed in range(3000)]
    assert len(set(stories)) == len(stories)
    for seed, text in enumerate(stories):
        fault = FAULTS.search(text)
        assert fault is None, f"seed {seed}: {text[max(0, fault.start() - 30) : fault.end() + 30]!r}"
        assert 80 <= len(text.split()) <= 200, f"seed {seed}"


def test_held_out_stories_are_none_of_training() -> None:
    trained = {story(seed) for seed in range(3000)}
    assert not trained & {story(HELD_OUT_SEED + number) for number in range(300)}


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
def test_every_plot_tells_with_any_hero(plot: Callable[[Tale], None]) -> None:
    for seed in range(60):
        tale = Tale(random.Random(seed))
        plot(tale)
        assert FAULTS.search(tale.text()) is None


def test_templates_choose_agree_and_capitalize() -> None:
    tale = Tale(random.Random(1))
    tale.bind(o="old [hat|owl]")
    first = tale.expand("{a o}")
    assert articles(first).startswith("an old ")
    assert tale.expand("{a o}") == first
    assert capitalize('no. "stop!" said tom. then he ran!" ^he did.') == 'No. "Stop!" said tom. Then he ran!" He did.'


@pytest.mark.parametrize("broken", ["[a", "a]", "a|b", "{no slot}", "}", "[a]]"])
def test_a_broken_template_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match="does not parse"):
        parse(broken)


def test_rows_hold_whole_documents_and_resume(tokenizer: Tokenizer) -> None:
    rows = Rows(tokenizer)
    ids, targets, _ = rows.batch(4, 320)
    assert ids.shape == targets.shape == (4, 320)
    assert (ids[:, 0] == BOS_ID).all()
    learned = targets != IGNORED
    assert torch.equal(ids[:, 1:][learned[:, :-1]], targets[:, :-1][learned[:, :-1]])
    assert 0.2 < learned.float().mean() < 0.8
    for row in ids.tolist():
        ends = [at for at in range(1, len(row)) if row[at] == BOS_ID]
        assert all(row[at - 1] in (EOS_ID, BOS_ID) or tokenizer.decode([row[at - 1]]) == "\n" for at in ends)
    again = Rows(tokenizer, rows.next_seed, list(rows.waiting))
    assert torch.equal(again.batch(2, 320)[0], rows.batch(2, 320)[0])


def test_processes_share_the_seeds(tokenizer: Tokenizer) -> None:
    both = [Rows(tokenizer, rank, stride=2) for rank in range(2)]
    for rows in both:
        rows.batch(2, 320)
    assert {seed % 2 for seed in both[0].waiting} == {0}
    assert {seed % 2 for seed in both[1].waiting} == {1}
    alone = Rows(tokenizer)
    alone.resume([(rows.next_seed, rows.waiting) for rows in both], 0)
    assert alone.next_seed >= max(rows.next_seed for rows in both)


def test_only_what_the_assistant_says_is_learned(tokenizer: Tokenizer) -> None:
    talk = Conversation(
        [
            {"role": "user", "content": "Who are you?"},
            {"role": "assistant", "content": "Me."},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "You."},
        ]
    )
    ids = tokenizer.encode(render(talk), add_special_tokens=False).ids
    said = [token for token, keep in zip(ids, learned(tokenizer, ids), strict=True) if keep]
    assert tokenizer.decode(said, skip_special_tokens=False) == "Me.<|im_end|>You.<|im_end|>"


def test_packed_documents_do_not_see_each_other(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = DemoModel(Shape(num_hidden_layers=1))
    ids, _, positions = Rows(tokenizer).batch(1, 320)
    second = ((positions == 0).cumsum(1) == 2).nonzero()[:, 1]
    alone = model(ids[:, second], positions[:, second])
    assert torch.allclose(model(ids, positions)[:, second], alone, atol=1e-4)
    assert torch.allclose(model(ids[:, second]), model(ids[:, second], torch.arange(len(second))[None]), atol=1e-4)


def test_held_out_prompts_are_never_trained_on() -> None:
    for seed in range(2000):
        talk = conversation(seed)
        users = [str(m["content"]) for m in talk.messages if m["role"] == "user"]
        if not talk.tools and len(users) == 1 and talk.messages[0]["role"] != "system":
            assert not is_held_out(users[0])


def test_every_trial_is_right_about_its_own_answer() -> None:
    found = trials(6)
    assert len({trial.kind for trial in found}) > 25
    for trial in found:
        assert trial.right(trial.answer, trial.calls)
        assert not trial.right(trial.answer + " And more.", trial.calls)
        assert trial.messages[-1]["role"] in ("user", "tool")


def test_held_out_targets_stop_after_the_end(tokenizer: Tokenizer) -> None:
    ids, targets = held_out(tokenizer, 8)
    for row, target in zip(ids, targets, strict=True):
        kept = target[target != IGNORED]
        assert kept[-1] == EOS_ID
        assert torch.equal(row[1 : len(kept)], kept[:-1])


def test_the_plan_warms_up_and_cools_down() -> None:
    plan = Plan(steps=1000)
    rates = [plan.rate(step) for step in range(1000)]
    assert max(rates) == pytest.approx(plan.peak_rate)
    assert rates[0] < rates[10] < rates[29]
    assert rates[-1] < plan.peak_rate / 100


def test_muon_steps_are_orthogonal() -> None:
    x_NAB = torch.randn(3, 64, 256, generator=torch.Generator().manual_seed(0))
    for out_NAB in (orthogonalized(x_NAB), orthogonalized(x_NAB.mT).mT):
        values = torch.linalg.svdvals(out_NAB)
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_the_model_is_exactly_a_llama() -> None:
    pytest.importorskip("transformers")
    assert check(Shape(num_hidden_layers=2)) < 1e-4


@pytest.mark.full
def test_training_leaves_and_finds_its_state(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Six steps at once give the weights of three steps, a stop, and three more."""
    from training import train as script

    shape = Shape(num_hidden_layers=1)

    def weights_after(parts: tuple[int, ...], folder: Path) -> torch.Tensor:
        folder.mkdir()
        for until in parts:
            torch.manual_seed(0)
            model = script.DemoModel(shape)
            plan = Plan(6, rows=1, length=320, warmup=2, held_out=2)
            script.train(model, tokenizer, plan, folder / "state.pt", 3, until=until, compiling=False)
        return torch.cat([weight.flatten() for weight in model.parameters()])

    whole, halves = weights_after((6,), tmp_path / "whole"), weights_after((3, 6), tmp_path / "halves")
    assert torch.equal(whole, halves)
