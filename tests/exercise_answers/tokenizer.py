"""Answers to the exercises of chapter 2, "Tokens"."""

from itertools import pairwise

import numpy as np


def best_by_loop(tokens, ranks):
    best, best_rank = -1, None
    for i in range(len(tokens) - 1):
        rank = ranks.get(tokens[i] + tokens[i + 1])
        if rank is not None and (best_rank is None or rank < best_rank):
            best, best_rank = i, rank
    return best


def best_by_sorting(tokens, ranks):
    pieces = [a + b for a, b in pairwise(tokens)]
    order = sorted(range(len(pieces)), key=lambda i: ranks.get(pieces[i], float("inf")))
    return order[0] if order and pieces[order[0]] in ranks else -1


def first_from_the_left(tokens, ranks):
    for i in range(len(tokens) - 1):
        if tokens[i] + tokens[i + 1] in ranks:
            return i
    return -1


def tokens_themselves(tokens, ranks):
    return min(range(len(tokens)), key=lambda i: ranks.get(tokens[i], 10**9))


def changes_the_list(tokens, ranks):
    i = best_by_loop(tokens, ranks)
    if i >= 0:
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens


def falls_off_the_end(tokens, ranks):
    return min(range(len(tokens)), key=lambda i: ranks.get(tokens[i] + tokens[i + 1], 10**9))


def never_minus_one(tokens, ranks):
    pieces = [a + b for a, b in pairwise(tokens)]
    return min(range(len(pieces)), key=lambda i: ranks.get(pieces[i], 10**9), default=-1)


def tekken_by_words(words, ranks, controls, join=False, add=True):
    ids = []
    for word in ["".join(words)] if join else words:
        tokens = [bytes([b]) for b in word.encode()]
        while True:
            found = [
                (ranks[a + b], i) for i, (a, b) in enumerate(pairwise(tokens)) if a + b in ranks
            ]
            if not found:
                break
            i = min(found)[1]
            tokens = [*tokens[:i], tokens[i] + tokens[i + 1], *tokens[i + 2 :]]
        ids.extend(ranks[t] + (controls if add else 0) for t in tokens)
    return ids


def tekken_with_the_chapter(words, ranks, controls):
    ids = []
    for word in words:
        tokens = [word.encode()[i : i + 1] for i in range(len(word.encode()))]
        while (i := best_by_loop(tokens, ranks)) >= 0:
            tokens[i : i + 2] = [b"".join(tokens[i : i + 2])]
        ids += [controls + ranks[token] for token in tokens]
    return np.array(ids)


def tekken_recursive(words, ranks, controls):
    def cut(tokens):
        i = best_by_sorting(tokens, ranks)
        return tokens if i < 0 else cut([*tokens[:i], tokens[i] + tokens[i + 1], *tokens[i + 2 :]])

    pieces = [piece for word in words for piece in cut([bytes([b]) for b in word.encode()])]
    return [ranks[piece] + controls for piece in pieces]


def one_merge_only(words, ranks, controls):
    ids = []
    for word in words:
        tokens = [bytes([b]) for b in word.encode()]
        i = best_by_loop(tokens, ranks)
        if i >= 0:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
        ids += [controls + ranks[t] for t in tokens]
    return ids


def characters_not_bytes(words, ranks, controls):
    return [controls + ranks[c.encode()] for word in words for c in word]


def longest_piece_first(words, ranks, controls):
    ids = []
    for word in words:
        rest = word.encode()
        while rest:
            piece = next(rest[:n] for n in range(len(rest), 0, -1) if rest[:n] in ranks)
            ids.append(controls + ranks[piece])
            rest = rest[len(piece) :]
    return ids


ANSWERS = {
    "tokenizer.by_hand": (
        ["ban an a", "b a nan a", "b an an a", "ba na na", "banana", "b a n a n a", "ba nana", 4],
        ["b a na na", "B A NA NA", ["b", "a", "na", "na"], ("b", "a", "na", "na"), "b, a, na, na"],
    ),
    "tokenizer.merge": (
        [
            first_from_the_left,
            tokens_themselves,
            changes_the_list,
            falls_off_the_end,
            never_minus_one,
            lambda tokens, ranks: min(ranks.values(), default=-1),
            lambda tokens, ranks: best_by_loop(tokens, ranks) + 1,
            lambda tokens, ranks: best_by_loop(tokens[::-1], ranks),
            lambda tokens, ranks: max(range(len(tokens) - 1), default=-1),
            lambda tokens: 0,
        ],
        [
            best_by_loop,
            best_by_sorting,
            lambda tokens, ranks: (
                min(
                    (
                        (ranks[a + b], i)
                        for i, (a, b) in enumerate(pairwise(tokens))
                        if a + b in ranks
                    )
                )[1]
                if any(a + b in ranks for a, b in pairwise(tokens))
                else -1
            ),
            lambda tokens, ranks: np.int64(best_by_loop(tokens, ranks)),
        ],
    ),
    "tokenizer.stream": (
        ["prefix", "two  blanks\n", ("",), "", 7, "<0xE2>", ["a", "b"], None, "  \t  ", "a — b"],
        ["☃", ("☃",), "naïve", "火车", ["a €5 note"], "😀"],
    ),
    "tokenizer.scan": (
        [7500, 10_000 * 7500, 10_000**2, 2500 * 10_000, 10_000, 2500, 12_500, None],
        [46_875_000, 47e6, 7500 * 6250, "46,875,000", "47 million", sum(range(2500, 10_000))],
    ),
    "tokenizer.blank": (
        [
            ((6.91, 17.26), "a"),
            ((6.91, 17.26), "c"),
            ((17.26, 6.91), "b"),
            ((6.91, 25.58), "b"),
            ((5.7, 16.98), "b"),
            ((13.35, 21.84), "b"),
            ((6.91, 6.91), "a"),
            ((6.91, 10.35), "b"),
            (10.35, "b"),
            ((6.91, 17.26), "twice as many"),
            (np.zeros((26, 2)), "b"),
            "b",
        ],
        [
            ((6.91, 17.26), "b"),
            ([6.9059, 17.2581], "B"),
            (np.array([6.91, 17.26]), "(b)"),
            ("6.9, 17.3", "b"),
        ],
    ),
    "tokenizer.home": (
        [
            ((0.89, 0.93), "b"),
            ((0.89, 0.93), "c"),
            ((0.78, 0.78), "a"),
            ((1.12, 1.08), "a"),
            ((0.89, 1.08), "b"),
            ((0.93, 0.96), "a"),
            ((0.46, 0.44), "a"),
            (0.89, "a"),
            ((0.89, 0.93), True),
            ((0.89, 0.93, 1.0), "a"),
            None,
        ],
        [
            ((0.89, 0.93), "a"),
            ([0.8895, 0.9264], " A "),
            (np.float32([0.89, 0.93]), "(a)"),
            ("0.89 and 0.93".split(" and "), "a"),
        ],
    ),
    "tokenizer.price": (
        [
            ((4.8, 1.9, 1.07), "a"),
            ((4.8, 1.9, 1.07), "c"),
            ((4.8, 1.82, 1.03), "b"),
            ((4.22, 1.9, 1.07), "b"),
            ((0.21, 0.53, 0.93), "b"),
            ((1.9, 4.8, 2.95), "b"),
            ((4.8, 1.9), "b"),
            ((4.8, 4.8, 2.95), "b"),
            ("Greek", "b"),
            ((4.8, 1.9, 1.07), "d"),
            ((..., 1.9, 1.07), "b"),
        ],
        [
            ((4.8, 1.9, 1.07), "b"),
            ([4.7963, 1.8968, 1.0749], "(B)"),
            (np.array([4.8, 1.9, 1.075]), "b"),
            ("4.8 1.9 1.07".split(), "b"),
        ],
    ),
    "tokenizer.tekken": (
        [
            one_merge_only,
            characters_not_bytes,
            longest_piece_first,
            lambda words, ranks, controls: tekken_by_words(words, ranks, controls, join=True),
            lambda words, ranks, controls: tekken_by_words(words, ranks, controls, add=False),
            lambda words, ranks, controls: [tekken_by_words([w], ranks, controls) for w in words],
            lambda words, ranks, controls: [
                controls + ranks[bytes([b])] for word in words for b in word.encode()
            ],
            lambda words, ranks, controls: [ranks[word.encode()] + controls for word in words],
            lambda words, ranks, controls: tekken_by_words(words, ranks, controls)[::-1],
            lambda words, ranks, controls: [
                *range(controls),
                *tekken_by_words(words, ranks, controls),
            ],
        ],
        [tekken_by_words, tekken_with_the_chapter, tekken_recursive],
    ),
    "tokenizer.digits": (
        [10, 11, 3, 7, 12, 14, 4, "thirteen", 5],
        [13, "13", len("+49 30 901820"), 13.0, np.int64(13)],
    ),
}
