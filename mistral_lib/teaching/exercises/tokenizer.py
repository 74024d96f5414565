"""The exercises of chapter 2, "Tokens"."""

from __future__ import annotations

import functools
from itertools import pairwise

from mistral_lib.teaching.exercises.answers import text
from mistral_lib.teaching.exercises.kinds import (
    BreakingInput,
    Estimate,
    Experiment,
    Function,
    Value,
)
from mistral_lib.tokenizer import MistralTokenizer


def _cuts():
    """Tokens and ranks: without a pair, with one, with several, and with the same pair twice."""
    yield ["a"], {"a": 9}
    yield ["a", "b"], {}
    yield ["a", "b"], {"ab": 0}
    yield ["a", "b", "c"], {"ab": 5, "bc": 1}
    yield ["a", "b", "c"], {"ab": 1, "bc": 5}
    yield ["a", "a", "a"], {"aa": 0}
    yield ["c", "a", "b", "ab"], {"ca": 3, "ab": 2}
    yield ["p", "re", "f", "i", "x"], {"pre": 761, "ref": 373, "ix": 572}
    yield ["x", "long", "er", "t", "o"], {"longer": 4, "to": 2, "xlong": 9}


def _pairs(tokens, ranks):
    """Pairs (rank, index) of the neighbours that can be merged."""
    joined = [left + right for left, right in pairwise(tokens)]
    return [(ranks[piece], index) for index, piece in enumerate(joined) if piece in ranks]


def _best(tokens, ranks):
    return min(_pairs(tokens, ranks), default=(0, -1))[1]


def _longest(tokens, ranks):
    found = [(-len(tokens[i] + tokens[i + 1]), i) for _, i in _pairs(tokens, ranks)]
    return min(found, default=(0, -1))[1]


def _last_of_equals(tokens, ranks):
    found = [(rank, -index) for rank, index in _pairs(tokens, ranks)]
    return -min(found, default=(0, 1))[1]


@functools.cache
def _tokenizer():
    return MistralTokenizer.from_preset("mistral_tiny_en")


def _decoded_whole(text):
    return _tokenizer().decode(_tokenizer().encode(text))


def _decoded_one_by_one(text):
    return "".join(_tokenizer().decode([id]) for id in _tokenizer().encode(text))


def _words():
    """Words, ranks and a number of control tokens: smallest first."""
    letters = {b"a": 0, b"b": 1, b"c": 2}
    accent = {bytes([byte]): rank for rank, byte in enumerate("é".encode())}
    both = {bytes([byte]): rank for rank, byte in enumerate(" théwo".encode())}
    yield ["a"], {b"a": 0}, 0
    yield ["a"], {b"a": 0}, 3
    yield ["ab"], {**letters, b"ab": 3}, 3
    yield ["a", "b"], {**letters, b"ab": 3}, 3
    yield ["é"], accent, 3
    yield ["é"], {**accent, "é".encode(): 2}, 3
    yield ["abc"], {**letters, b"abc": 3}, 3
    yield ["abc"], {**letters, b"bc": 3, b"ab": 4}, 3
    yield ["abc"], {**letters, b"ab": 3, b"bc": 4}, 3
    yield ["abcab"], {**letters, b"bc": 3, b"ab": 4, b"abc": 5}, 20
    merges = (b"th", "é".encode(), b" th", b"the")
    yield ["the", " thé", " two"], {**both, **{m: 7 + i for i, m in enumerate(merges)}}, 20


def _merged(word, ranks, choose):
    """The tokens of a word, if `choose` picks one of the pairs (rank, index) that can be merged."""
    tokens = [word[i : i + 1] for i in range(len(word))]
    while pairs := _pairs(tokens, ranks):
        _, index = choose(pairs)
        tokens[index : index + 2] = [tokens[index] + tokens[index + 1]]
    return tokens


def _longest_from_the_left(words, ranks, controls):
    ids = []
    for word in words:
        rest = word.encode()
        while rest:
            lengths = range(len(rest), 0, -1)
            piece = next(rest[:length] for length in lengths if rest[:length] in ranks)
            ids.append(controls + ranks[piece])
            rest = rest[len(piece) :]
    return ids


def _ids(words, ranks, controls, choose=min):
    rows = (_merged(word.encode(), ranks, choose) for word in words)
    return [controls + ranks[token] for row in rows for token in row]


def _refuse(text):
    """Whether a text can be cut into tokens."""
    if not text:
        return "Give a text of one character or more."
    whole = text.encode(errors="ignore").decode() == text
    return None if whole else "The text has half a character in it, which cannot be written."


EXERCISES = [
    Value(
        name="tokenizer.by_hand",
        kind="trace by hand",
        minutes=4,
        difficulty=1,
        solution="b a na na",
        mistakes=(
            ("ban an a", "that takes the longest piece, or the leftmost. The rank counts first."),
            ("b a nan a", "that merges `nan` while another `na`, of lower rank, is still there."),
            ("b an an a", "that merges `an` first. `na` has the lower rank."),
            ("ba na na", "`ba` is no piece of this vocabulary."),
            ("b a nana", "`nana` is no piece: the two stay apart."),
        ),
        hints=(
            "Which of the pairs in the word has the lowest rank?",
            "Merge that pair everywhere before you look at the next rank.",
            "`na` is merged in two places. Then look up `ana`, `ban` and `nana` in the list.",
        ),
    ),
    Function(
        name="tokenizer.merge",
        kind="missing lines",
        minutes=7,
        difficulty=2,
        solution=_best,
        cases=_cuts,
        mistakes={
            "takes the first pair that can be merged, whatever its rank.": (
                lambda tokens, ranks: min((i for _, i in _pairs(tokens, ranks)), default=-1)
            ),
            "takes the highest rank: the lowest was learned first and goes first.": (
                lambda tokens, ranks: max(_pairs(tokens, ranks), default=(0, -1))[1]
            ),
            "takes the pair that makes the longest piece, not the one of the lowest rank.": (
                _longest
            ),
            "takes the last of equal pairs: the leftmost goes first.": _last_of_equals,
            "gives the rank of the pair: its index in the list is asked for.": (
                lambda tokens, ranks: min(_pairs(tokens, ranks), default=(-1, 0))[0]
            ),
        },
        hints=(
            "Of all neighbours whose pieces together are a piece, which was learned first?",
            "Collect (rank, index) for every index whose joined piece is in `ranks`.",
            "min of these pairs: tuples compare by rank first, then by index. And -1 for none.",
        ),
    ),
    Experiment(
        name="tokenizer.blank",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((6.91, 17.26), "b"),
        within=0.05,
        claims={
            "a": "the word costs the same, since the model reads the same letters.",
            "b": "the word costs about ten bits more, as if it had become a thousand times rarer.",
            "c": "the word costs less, since the blank in front of it is known already.",
        },
        refusals={
            "a": "the second number is more than twice the first.",
            "c": "the second number is larger than the first, not smaller.",
        },
        others=(
            ((17.26, 6.91), "the prompt without the blank comes first."),
            ((6.91, 25.58), "the blank itself was counted too. It belongs to the prompt."),
            ((5.70, 16.98), "those are the documents for looking around. Take the other half."),
            ((13.35, 21.84), "that is the panel's prose. The question is about documents."),
        ),
        hints=(
            "Make two rows of ids that spell the same text. Where does the blank go in each?",
            "Encode each part by itself and add the lists, with start in front. The bits of the "
            "word are the last ones of its row: as many as the word has tokens there.",
            "bits_of takes all rows at once and returns an array for each. Add up the last numbers "
            "of each array, and take the mean over the documents.",
        ),
    ),
    Estimate(
        name="tokenizer.scan",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=sum(range(2_500, 10_000)),
        factor=1.25,
        unit="pairs",
        mistakes=(
            (7_500, "that is how many merges there are. Each looks at every pair."),
            (75_000_000, "the text gets shorter: the last merges look at 2,500 pairs only."),
            (100_000_000, "there are 7,500 merges, and the text gets shorter on the way."),
            (25_000_000, "2,500 is what is left over. The number of merges is 7,500."),
        ),
        hints=(
            "How many merges turn 10,000 tokens into 2,500, and how long is the text at each?",
            "Each merge takes one token away. So the length falls by 1 from look to look.",
            "Add up all lengths from the first to the last: their number times their mean.",
        ),
    ),
    BreakingInput(
        name="tokenizer.stream",
        kind="break this function",
        minutes=4,
        difficulty=2,
        right=lambda text: True,
        broken=lambda text: _decoded_one_by_one(text) == _decoded_whole(text),
        solution=("☃",),
        form='A text, such as "prefix",',
        readers=(text,),
        valid=_refuse,
        mistakes={
            "The vocabulary has a piece for each of these characters, blanks and line feeds too.": (
                str.isascii
            ),
            "The vocabulary has a piece for each of these characters, English or not.": (
                lambda text: True
            ),
        },
        hints=(
            "When does a token alone not say which character it is part of?",
            "The vocabulary was trained on English. Take a character that English does not use.",
            "Print tokenizer.encode of a few characters. Which have more than one token?",
        ),
    ),
    Experiment(
        name="tokenizer.home",
        kind="run an experiment",
        minutes=12,
        difficulty=2,
        solution=((0.89, 0.93), "a"),
        within=0.01,
        claims={
            "a": "each vocabulary is the better one for texts of its own kind.",
            "b": "the vocabulary that was learned from more text is the better one for both kinds.",
            "c": "which text the merges are learned from makes no difference that one could see.",
        },
        refusals={
            "b": "the documents are the longer text, and yet their vocabulary loses on prose.",
            "c": "both ratios are well below 1.",
        },
        others=(
            ((0.78, 0.78), "those are the texts from which the merges were learned."),
            ((1.12, 1.08), "turn the ratios round: the vocabulary of its own kind comes first."),
            ((0.89, 1.08), "in the second ratio the vocabulary of the prose comes first."),
            ((0.93, 0.96), "those are 100 merges. The question is about 300."),
        ),
        hints=(
            "Which half do you learn from, and on which half do you count?",
            "Learn from the words of all texts of the half 'discover' together, and make ranks of "
            "what train returns: a dictionary from pieces to their places in the list.",
            "merge_all(word, ranks) has the tokens of a word. Count them over all words of the "
            "half 'confirm', with both vocabularies, and divide.",
        ),
    ),
    Function(
        name="tokenizer.tekken",
        kind="missing lines",
        minutes=8,
        difficulty=2,
        solution=_ids,
        cases=_words,
        mistakes={
            "leaves out the control tokens, whose ids come first.": (
                lambda words, ranks, controls: _ids(words, ranks, 0)
            ),
            "merges across words: the pattern cuts first, and each word is merged alone.": (
                lambda words, ranks, controls: _ids(["".join(words)], ranks, controls)
            ),
            "takes the first pair that can be merged, whatever its rank.": (
                functools.partial(_ids, choose=lambda pairs: min(pairs, key=lambda pair: pair[1]))
            ),
            "takes the longest token from the left: only a merge makes a token, pair by pair.": (
                _longest_from_the_left
            ),
            "takes the highest rank: the lowest was learned first and goes first.": (
                functools.partial(_ids, choose=max)
            ),
        },
        hints=(
            "It is the merging from above, on each word by itself, and on bytes.",
            "Begin a word with [bytes([byte]) for byte in word.encode()]; `+` joins bytes as well.",
            "Merge the pair of lowest rank until none is left, and add controls to each rank.",
        ),
    ),
    Value(
        name="tokenizer.digits",
        kind="trace by hand",
        minutes=2,
        difficulty=1,
        solution=13,
        mistakes=(
            (10, "that is the digits. The plus sign and the two blanks are tokens too."),
            (11, "a blank goes with letters that follow it, but not with a digit."),
            (3, "a number is not one word: the pattern cuts after each digit."),
            (7, "the pattern takes one digit at a time, not up to three."),
        ),
        hints=(
            "A merge never joins two words, so there are at least as many tokens as words.",
            "Each digit is a word. What about the blanks, when a digit follows?",
            "Write the words down with a bar between them. How many bytes has each?",
        ),
    ),
    Experiment(
        name="tokenizer.price",
        kind="run an experiment",
        minutes=8,
        difficulty=1,
        solution=((4.80, 1.90, 1.07), "b"),
        within=0.02,
        claims={
            "a": "with Tekken all of these languages cost the same.",
            "b": "prices have moved closer together, but some languages still pay far more.",
            "c": "prices are closer together because English pays more than before.",
        },
        refusals={
            "a": "Greek still costs nearly twice as much as English.",
            "c": "English texts have slightly fewer tokens than before, 0.96 times as many.",
        },
        others=(
            ((4.80, 1.82, 1.03), "with Tekken, too, divide by what English has with Tekken."),
            ((4.22, 1.90, 1.07), "the first number is about the one sentence of the train."),
            ((0.21, 0.53, 0.93), "those are the prices of English in Greek and Arabic."),
            ((1.90, 4.80, 2.95), "the first is Greek with Mistral 7B's vocabulary."),
        ),
        hints=(
            "A price is a ratio: the tokens of twelve texts in one language and in English.",
            "Both ratios need the English texts cut by the same vocabulary.",
            "twelve has Mistral 7B's tokens, and recorded_tekken_counts() Tekken's, text by text. "
            "Add up the twelve before you divide.",
        ),
    ),
]
