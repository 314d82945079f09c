"""Sentences to int64 model inputs, with the tokenizer files of a checkpoint folder.

    arrays = tokens.encode(tokens.load("build/minilm_sst2/default/checkpoint"), ["It's great."], 16)

Needs numpy and tokenizers only.
"""

import numpy as np

from tools.base import input_files
from tools.make import cli
from tools.source import architecture
from tools.source.tokenizer import encodings, find_file
from tools.source.tokenizer import load as load

# Where an encoding of the tokenizers library keeps it.
FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
PACKED_TOKENS = 8  # a packed row holds at most one sentence per so many tokens (the Makefile counts by it too)


def encode(tokenizer, sentences, seq_len, names=("input_ids", "attention_mask"), padded=True):
    """Texts, or pairs of texts (the longer one cut first), cut to seq_len tokens with the special ones.

    Returns {name: int64 array [len(sentences), seq_len]} in the order of `names` (keys of ROLES), or where they are not
    `padded`, {name: an int64 row of its own length for each sentence}.
    """
    check(tokenizer, bool(sentences) and not isinstance(sentences[0], str), seq_len, names)
    rows = encodings(tokenizer, sentences, seq_len, tokenizer.padding | {"length": seq_len} if padded else None)
    columns = {name: [getattr(row, FIELDS[input_files.ROLES[name]]) for row in rows] for name in names}
    if padded:
        return {name: np.array(column, np.int64).reshape(-1, seq_len) for name, column in columns.items()}
    return {name: [np.array(row, np.int64) for row in column] for name, column in columns.items()}


def fit(folder, seq_len, cut=False):
    """seq_len, where the checkpoint in `folder` has as many positions; UserError with both numbers where it has fewer.

    cut: sentences are cut to what it has instead, and to tokenizer_config.json's model_max_length. A folder without a
    configuration, of a tokenizer alone, fits any length.
    """
    try:
        path = architecture.config_file(folder)
    except cli.UserError:
        return seq_len
    positions = architecture.read_config(path)["max_position_embeddings"]
    if cut:
        settings = find_file(folder, "tokenizer_config.json")
        most = cli.read_json(settings).get("model_max_length") if settings else None
        return int(min(seq_len, positions, most if isinstance(most, (int, float)) and most >= 3 else positions))
    if seq_len > positions:
        raise cli.UserError(f"{path}: {positions} positions, fewer than SEQ={seq_len}; give SEQ={positions} or less")
    return seq_len


def check(tokenizer, pair, length, names):
    """UserError for a length without room for a token of a text, or of a `pair`, and for an input of unknown meaning."""
    if length < (least := tokenizer.num_special_tokens_to_add(pair) + 1):
        raise cli.UserError(f"rows of {length} tokens: the special ones and one of a text need at least {least}")
    if unknown := [n for n in names if n not in input_files.ROLES]:
        raise cli.UserError(f"input {unknown[0]!r} is not one of {', '.join(input_files.ROLES)}")


def share_rows(lengths, seq_len, most):
    """First-fit decreasing: each sentence, longest first, joins the first row that still holds it.

    lengths: tokens of each sentence, at most seq_len; most: sentences a row may hold. Returns the rows, each a list
    of sentence numbers in the data's order; a sentence without tokens is in none.
    """
    rows, free = [], []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not lengths[i]:
            continue
        fits = (r for r, left in enumerate(free) if left >= lengths[i] and len(rows[r]) < most)
        if (r := next(fits, None)) is None:
            r = len(rows)
            rows.append([])
            free.append(seq_len)
        rows[r].append(i)
        free[r] -= int(lengths[i])
    return [sorted(row) for row in rows]


def pack(arrays, pad=0):
    """Several sentences a row (Krell et al. 2021, arXiv 2107.02027; the rows by `share_rows`): (arrays, rows).

    arrays: {input: int64 [n, seq_len]} of encode. The mask gives way to three inputs, int64: `sentence`
    [rows, seq_len], whose token each is, 1, 2 ... within the row, 0 for padding; `position` [rows, seq_len], counted
    from 0 in each sentence; `first` [rows, seq_len // 8], where in the row each sentence begins, then zeros. pad: the id
    of the padding token.
    """
    mask = input_files.real_tokens(arrays)
    lengths, seq_len = input_files.lengths(arrays), mask.shape[1]
    most = seq_len // PACKED_TOKENS
    rows = share_rows(lengths, seq_len, most)
    names = [name for name, array in arrays.items() if array is not mask]
    fill = {name: pad * (input_files.ROLES.get(name) == "input_ids") for name in (*names, "sentence", "position")}
    packed = {name: np.full((len(rows), seq_len), value, np.int64) for name, value in fill.items()}
    packed["first"] = np.zeros((len(rows), most), np.int64)
    for r, row in enumerate(rows):
        ends = np.cumsum(lengths[row])
        for k, (i, end) in enumerate(zip(row, ends, strict=True)):
            at = slice(end - lengths[i], end)
            for name in names:
                packed[name][r, at] = arrays[name][i, : lengths[i]]
            packed["sentence"][r, at] = (k + 1) * (mask[i, : lengths[i]] != 0)
            packed["position"][r, at] = np.arange(lengths[i])
            packed["first"][r, k] = at.start
    return packed, rows
