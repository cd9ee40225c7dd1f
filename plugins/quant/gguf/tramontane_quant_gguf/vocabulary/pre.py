# SPDX-License-Identifier: Apache-2.0
"""How byte-level BPE cuts a text into words, by the name in ``tokenizer.ggml.pre``.

Patterns are those of the models' own tokenizers. Each is applied to what the one before it left, and every match and
every rest becomes a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from attrs import evolve, frozen

_ENGLISH = "'s|'t|'re|'ve|'m|'ll|'d"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = f"(?i:{_ENGLISH})?"
_THREES = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
"""Digits in groups of three, counted from the end of the number."""
_ASCII = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_HAN_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
GPT2 = rf"{_ENGLISH}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
"""What GPT-2 cuts by, and the library's byte level where nothing else is said."""
_STOPS = " ?[^(\\s|.,!?…。，、।۔،)]+"
_ALPHABETS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ\u1f5f-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌ"
    "ῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
"""Letters of alphabets that have upper and lower case."""


def _words(
    digits: str,
    *,
    start: str = f"(?i:{_ENGLISH})|",
    letters: str = r"\p{L}+",
    other: str = r"[^\s\p{L}\p{N}]+[\r\n]*",
    lines: str = r"\s*[\r\n]+",
    spaces: str = r"\s+(?!\S)|\s+",
) -> str:
    """The pattern that GPT-4 began and many share: contractions, words, digits, other characters, lines, spaces."""
    return rf"{start}[^\r\n\p{{L}}\p{{N}}]?{letters}|{digits}| ?{other}|{lines}|{spaces}"


def _cased(digits: str, *, ending: str = "", upper: str = _UPPER, lower: str = _LOWER, slash: str = "/") -> str:
    """The pattern of GPT-4o: words are also cut where a capital follows a small letter."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    words = f"{lead}{upper}*{lower}+{ending}|{lead}{upper}+{lower}*{ending}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n{slash}]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _deepseek(lines: str) -> str:
    """Words with marks, after punctuation was told from symbols; ``lines``: what follows symbols, and line breaks."""
    return (
        rf"{_ASCII}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+{lines}"
        r"|\s+(?!\S)|\s+"
    )


@frozen
class Pre:
    """One way to cut, and what llama.cpp knows of the vocabularies that use it."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    """A word that is a token is taken as it is, whatever the merges would make of it."""
    adds_bos: bool = False
    """Whether a text begins with BOS where the file does not say."""
    byte_level: bool = True
    """Tokens are written in GPT-2's byte alphabet; otherwise as text with marked spaces, bytes as ``<0x0A>``."""


_LLAMA3 = Pre((_words(r"\p{N}{1,3}"),))
_QWEN2 = Pre((_words(r"\p{N}"),))
_PLAIN = Pre((GPT2,))
_DIGITS = Pre((r"\p{N}", GPT2))
_GPT4O = Pre((_cased(r"\p{N}{1,3}", ending=_ENDING),))
_DEEPSEEK3 = Pre((r"\p{N}{1,3}", _HAN_KANA, _deepseek(r"[\r\n]*|\s*[\r\n]+")))
_MARKED = Pre((r"[^\n]+|[\n]+",), byte_level=False, adds_bos=True)
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_EXAONE_MOE = _words(
    r"\p{N}",
    letters=r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
    other=r"[^\s\p{L}\p{N}]+[\r\n/]?",
    lines=r"\s*[\r\n]",
)
_AND_NOT_HAN = r"&&[^\p{Han}]]"
_KIMI = r"[\p{Han}]+|" + _cased(
    r"\p{N}{1,3}", ending=_ENDING, upper=_UPPER[:-1] + _AND_NOT_HAN, lower=_LOWER[:-1] + _AND_NOT_HAN, slash=""
)
_YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _HAN_KANA
_ASIAN = "[一-鿿㐀-䶿\uf900-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdfเ-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+"
_RUNS = "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4)) + r"|\s{1,2}(?!\S)|\s{1}"
_JAIS2 = _words(r"\p{N}{1,3}", spaces=_RUNS)
_LLAMA_NAMES = "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"
_QWEN_NAMES = "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan megrez grok-2 solar-open"
_GPT2_NAMES = (
    "gpt-2 phi-2 mpt olmo jais trillion granite-docling gigachat a.x-4.0 mellum exaone4 modern-bert "
    "jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe"
)
_DIGITS_NAMES = "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"


def _table() -> Iterator[tuple[Pre, str]]:
    yield evolve(_LLAMA3, whole_words=True, adds_bos=True), _LLAMA_NAMES
    yield _LLAMA3, "dbrx smaug-bpe glm4 chatglm-bpe"
    yield _QWEN2, _QWEN_NAMES
    yield Pre((_words(r"\p{N}", letters=r"[\p{L}\p{M}]+", other=r"[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),)), "qwen35"
    yield Pre((_words(r"\p{N}", start=""),)), "ufakzeka"
    yield _PLAIN, _GPT2_NAMES
    yield _DIGITS, _DIGITS_NAMES
    yield Pre((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")), "falcon"
    yield Pre((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")), "default"
    yield _DEEPSEEK3, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"
    yield Pre((r"\p{N}{1,3}", _HAN_KANA, _deepseek(r"|[\r\n]"), r"\p{N}")), "spark2_5"
    yield Pre((_THREES, _ASIAN, _deepseek(r"[\r\n]*|\s*[\r\n]+"))), "afmoe"
    yield (
        Pre(
            (
                r"[\r\n]",
                rf"\s?[{_ALPHABETS}]+",
                r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
                r"\s+$",
                "[一-龥ࠀ-一가-퟿]+",
                r"\p{N}+",
            )
        ),
        "deepseek-llm",
    )
    yield Pre((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")), "deepseek-coder"
    yield Pre((_STOPS,)), "poro-chat bloom gpt3-finnish"
    yield Pre((_STOPS, r"\p{N}")), "viking"
    yield Pre((_cased(r"\p{N}"),), whole_words=True, adds_bos=True), "tekken"
    yield _GPT4O, "gpt-4o llama4 kanana2 talkie minimax-m2"
    yield evolve(_GPT4O, whole_words=True), "granite-embed-multi-97m"
    yield Pre((r"\d{1,3}(?=(?:\d{3})*\b)", *_GPT4O.patterns)), "tiny_aya cohere2moe"
    yield Pre((_YOUTU, _cased(r"\p{N}", ending=_ENDING)), whole_words=True), "youtu"
    yield Pre((_KIMI,)), "kimi-k2"
    yield Pre((r"\p{N}+", _THREES)), "superbpe"
    yield Pre((_BAILING,)), "bailingmoe bailingmoe2 llada-moe"
    yield Pre((_words(r"\p{N}", other=r"[^\s\p{L}\p{N}\r\n]+"),)), "seed-coder"
    yield Pre((_EXAONE_MOE,)), "exaone-moe"
    yield Pre((r"\p{N}{1,3}", _words(r"\p{N}+")), whole_words=True), "minicpm5"
    yield Pre((r"[^\n]+|[\n]+", *_QWEN2.patterns)), "laguna"
    yield Pre((_JAIS2,)), "jais-2"
    yield (
        Pre(
            (
                "<sentinel:[0-9]+>",
                "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                "([\t\n]|    |  )",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                GPT2,
            ),
            adds_bos=True,
        ),
        "chameleon",
    )
    yield _MARKED, "gemma4 granite-embed-multi-311m"
    yield evolve(_MARKED, adds_bos=False), "sarvam-moe"


PRE: Mapping[str, Pre] = MappingProxyType({name: pre for pre, names in _table() for name in names.split()})
"""Every known way to cut, by name."""
EOS_AFTER = frozenset({"jina-v1-en", "jina-v2-code", "roberta-bpe"})
"""Vocabularies of encoders: a text ends with the separator where the file does not say."""
