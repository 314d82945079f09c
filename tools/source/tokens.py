"""Sentences to int64 model inputs, with the tokenizer files of a checkpoint folder.

    python -m tools.source.tokens --tokenizer_path build/minilm_sst2/default/checkpoint --seq_len 16 "It's great."
    101 2009 1005 1055 2307 1012 102 + 9 x [PAD]
    [CLS] it ' s great . [SEP]

Needs numpy and tokenizers only. The scripts preprocess.py call load, encode and one of the two writers.
"""

import argparse
import json
from pathlib import Path

from tools import cli

# Where an encoding of the tokenizers library keeps it.
FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
PACKED_TOKENS = 8  # a packed row holds at most one sentence per so many tokens (the Makefile counts by it too)
PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def read_vocab(path):
    """The word pieces of a vocab.txt, one a line, id = line number. UserError on a file that is none."""
    try:
        pieces = Path(path).read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as e:
        raise cli.UserError(f"{path}: not UTF-8 at byte {e.start}; take the checkpoint's own file") from e
    if missing := [s for s in SPECIAL if s not in pieces]:
        raise cli.UserError(f"{path}: no line {missing[0]}; take the checkpoint's own file")
    return pieces


def build(pieces, lower_case):
    """BERT's WordPiece tokenizer (tokenizers.Tokenizer) over a list of word pieces.

    The steps are BERT's own: clean, split CJK, lower and strip accents if `lower_case`, split punctuation,
    longest piece first; a word of over 100 characters is [UNK].
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, ids[CLS]), (SEP, ids[SEP])],
    )
    return tokenizer


def near(folder, name):
    """The path of file `name` in a checkpoint folder, or in the clone around a checkpoint-* folder; None if neither."""
    folder = Path(folder)
    folders = [folder, folder.absolute().parent] if folder.name.startswith("checkpoint-") else [folder]
    return next((f / name for f in folders if (f / name).is_file()), None)


def load(folder, lower_case=True):
    """The tokenizer (tokenizers.Tokenizer) of a checkpoint folder: its tokenizer.json, else built from its vocab.txt.

    `lower_case` counts only where neither tokenizer.json nor tokenizer_config.json says it (as for TinyBERT).
    Raises UserError when the folder holds neither file or a broken one.
    """
    from tokenizers import Tokenizer

    if path := near(folder, "tokenizer.json"):
        try:
            return Tokenizer.from_file(str(path))
        except Exception as e:  # the library raises bare Exception
            raise cli.UserError(f"{path}: not a tokenizer ({e}); take the checkpoint's own file") from e
    if not (vocab := near(folder, "vocab.txt")):
        raise cli.UserError(f"{folder}: no tokenizer.json or vocab.txt there; give the checkpoint's folder")
    if path := near(folder, "tokenizer_config.json"):
        try:
            lower_case = json.loads(path.read_bytes()).get("do_lower_case", lower_case)
        except (ValueError, AttributeError) as e:
            raise cli.UserError(f"{path}: not a JSON object ({e}); take the checkpoint's own file") from e
    return build(read_vocab(vocab), lower_case)


def encode(tokenizer, sentences, seq_len, names=("input_ids", "attention_mask")):
    """Tokenise each sentence as [CLS] + at most seq_len-2 pieces + [SEP], then [PAD] up to seq_len.

    Returns {name: int64 array [len(sentences), seq_len]} in the order of `names` (keys of ROLES).
    """
    import numpy as np

    from tools.base import input_files

    check(seq_len, names)
    tokenizer.enable_truncation(seq_len)
    tokenizer.enable_padding(length=seq_len, pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
    rows = tokenizer.encode_batch(list(sentences))
    return {
        name: np.array([getattr(row, FIELDS[input_files.ROLES[name]]) for row in rows], np.int64).reshape(-1, seq_len)
        for name in names
    }


def ragged(tokenizer, sentences, max_len, names=("input_ids", "attention_mask")):
    """`encode` without [PAD]: {name: an int64 row of its own length, at most max_len, for each sentence}."""
    import numpy as np

    from tools.base import input_files

    check(max_len, names)
    tokenizer.enable_truncation(max_len)
    tokenizer.no_padding()
    rows = tokenizer.encode_batch(list(sentences))
    return {name: [np.array(getattr(row, FIELDS[input_files.ROLES[name]]), np.int64) for row in rows] for name in names}


def check(seq_len, names):
    """UserError for a length without room for a token, or an input of unknown meaning."""
    from tools.base import input_files

    if seq_len < 3:
        raise cli.UserError(f"--seq_len {seq_len}: [CLS], one token and [SEP] need at least 3")
    if unknown := [n for n in names if n not in input_files.ROLES]:
        raise cli.UserError(f"input {unknown[0]!r} is not one of {', '.join(input_files.ROLES)}")


def plan(lengths, seq_len, most):
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


def pack(arrays):
    """Several sentences a row (Krell et al. 2021, arXiv 2107.02027; the rows by `plan`): (arrays, plan).

    arrays: {input: int64 [n, seq_len]} of encode. The mask gives way to three inputs, int64: `sentence`
    [rows, seq_len], whose token each is, 1, 2 ... within the row, 0 for padding; `position` [rows, seq_len], counted
    from 0 in each sentence; `first` [rows, seq_len // 8], where in the row each sentence begins, then zeros.
    """
    import numpy as np

    from tools.base import input_files

    mask = arrays[input_files.mask_name(arrays)]
    lengths, seq_len = mask.sum(1), mask.shape[1]
    most = seq_len // PACKED_TOKENS
    planned = plan(lengths, seq_len, most)
    names = [name for name, array in arrays.items() if array is not mask]
    made = {name: np.zeros((len(planned), seq_len), np.int64) for name in (*names, "sentence", "position")}
    made["first"] = np.zeros((len(planned), most), np.int64)
    for r, row in enumerate(planned):
        ends = np.cumsum(lengths[row])
        for k, (i, end) in enumerate(zip(row, ends, strict=True)):
            at = slice(end - lengths[i], end)
            for name in names:
                made[name][r, at] = arrays[name][i, : lengths[i]]
            made["sentence"][r, at] = k + 1
            made["position"][r, at] = np.arange(lengths[i])
            made["first"][r, k] = at.start
    return made, planned


def main():
    from tools.base import input_files

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer_path", required=True, help="folder with tokenizer.json or vocab.txt")
    parser.add_argument("--seq_len", type=int, default=128, help="length of every row (%(default)s)")
    parser.add_argument("sentence", nargs="+")
    args = parser.parse_args()
    tokenizer = load(args.tokenizer_path)
    arrays = encode(tokenizer, args.sentence, args.seq_len)
    for ids, n in zip(arrays["input_ids"], input_files.lengths(arrays), strict=True):
        print(*ids[:n], f"+ {args.seq_len - n} x [PAD]")
        print(*(tokenizer.id_to_token(i) for i in ids[:n]))


if __name__ == "__main__":
    cli.run(main)
