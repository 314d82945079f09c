"""A checkpoint of any model's exact architecture with random values, in the files in which the hub has its family.

    from tools.source import seeded
    folder = seeded.write(Path("clone"), Path("models/bert_base_cased_sst2"), uncased_pieces)

For throughput, graph work and tests of the loading code where the real weights cannot be had. The values
are the same on every machine, bit for bit. tools/source/checkpoint.py calls this for --weights seeded.
"""

import json
import string

import numpy as np

from tools.make import cli
from tools.source import architecture, families
from tools.source.tokenizer import MASK

SEED = 5  # with this one each of the three models sees both classes in real sentences
# transformers' tokenizers that have a table of pieces and how likely each is: what theirs begins and ends with.
UNIGRAMS = {
    "AlbertTokenizer": ("<pad> <unk> [CLS] [SEP] [MASK]", ""),
    "XLMRobertaTokenizer": ("<s> <pad> </s> <unk>", "<mask>"),
    "CamembertTokenizer": ("<s>NOTUSED <pad> </s>NOTUSED <unk> <unk>NOTUSED <s> </s>", "<mask>"),
}
ALIKE = {("<s>", "<pad>"): "RobertaTokenizer", ("[CLS]", "<pad>"): "AlbertTokenizer"}
CAPITALISED = 4000  # whole words of the uncased vocabulary that also get a capitalised form


def random_values(bits, shape, std):
    """float32 array of mean 0: each value the sum of four 16-bit numbers of the PCG64 stream `bits`.

    Nearly normal, and integer sums times one float32 factor give the same bytes on every machine.
    """
    raw = bits.random_raw(int(np.prod(shape))).astype("<u8").view("<u2").reshape(*shape, 4)
    steps = raw.sum(-1, dtype=np.int32) - 2 * 65535
    return steps.astype(np.float32) * np.float32(std / (65536 / 3**0.5))


def is_scale(name):
    """Whether a tensor is LayerNorm's weight, whose mean is 1."""
    return "norm" in name.lower() and name.endswith(".weight")


def std(name, shape):
    """Standard deviation of a weight: with BERT's own 0.02 every sentence would get nearly the same logits.

    A linear layer keeps the variance of what it is given; words count for more than positions and types. Biases and
    LayerNorm's weights differ from 0 and 1 as trained ones do: else simplifiers and engines leave them out.
    """
    if is_scale(name) or name.endswith(".bias"):
        return 0.05
    if "_embeddings." in name:
        return 0.05 if "word" in name else 0.02
    return shape[-1] ** -0.5


def write(folder, model, pieces):
    """Write a checkpoint of random values for a folder of models/; returns its folder. pieces: bert-base-uncased's vocabulary."""
    from safetensors.numpy import save

    config, settings = cli.read_json(model / "config.json"), cli.read_json(model / "tokenizer_config.json")
    bits = np.random.PCG64(SEED)
    tensors = {}
    for name, shape in families.shapes(architecture.read_config(model / "config.json")).items():
        tensors[name] = random_values(bits, shape, std(name, shape)) + np.float32(is_scale(name))
    name, size = settings["tokenizer_class"], config["vocab_size"]
    if name == "PreTrainedTokenizerFast":  # by make new-model: whichever has these special tokens
        name = ALIKE.get((settings.get("cls_token"), settings.get("pad_token")), "BertTokenizer")
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes((model / "config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": name}), "utf-8")
    (folder / "model.safetensors").write_bytes(save(tensors))
    if name == "RobertaTokenizer":
        byte_pairs(folder, pieces, size)
    elif name in UNIGRAMS:
        unigrams(folder, pieces, size, name)
    else:
        pieces = vocabulary(pieces, size, settings.get("do_lower_case", True))
        (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), "utf-8")
    return folder


def byte_pairs(folder, pieces, size):
    """vocab.json and merges.txt of RoBERTa's kind: its special tokens, 256 bytes, then words letter by letter.

    A pair of symbols for each prefix of each word, with and without the blank before it, until `size` tokens are there.
    """
    from tokenizers import pre_tokenizers

    tokens = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    merges, most = {}, size - 1
    words = [p.removeprefix("##") if p.startswith("##") else f"\u0120{p}" for p in pieces]
    for word in (w for w in words if w.removeprefix("\u0120").isascii() and w.removeprefix("\u0120").isalpha()):
        for end in range(2, len(word) + 1):
            if len(tokens) < most:
                merges[word[: end - 1], word[end - 1]] = None
                tokens[word[:end]] = None
    words = [*tokens, *(f"<unused{i}>" for i in range(most - len(tokens))), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps(dict(zip(words, range(len(words)), strict=True))), "utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def unigrams(folder, pieces, size, name):
    """tokenizer.json of a class of transformers: its special tokens, printable ASCII, then words, the likelier the earlier."""
    import transformers

    first, last = ([(token, 0.0) for token in tokens.split()] for tokens in UNIGRAMS[name])
    words = [p.removeprefix("##") if p.startswith("##") else f"\u2581{p}" for p in pieces if not p.startswith("[")]
    ordered = dict.fromkeys(["\u2581", *map(chr, range(33, 127)), *words])
    table = [(word, -20.0 if len(word) == 1 else -10.0 - i / 8192) for i, word in enumerate(ordered)]
    table += [(f"<unused{i}>", -30.0) for i in range(size - len(first) - len(table) - len(last))]
    tokenizer = getattr(transformers, name)(vocab=[*first, *table[: size - len(first) - len(last)], *last])
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def vocabulary(pieces, size, lower_case):
    """`size` word pieces made from bert-base-uncased's: itself when uncased, else with capitals added.

    The cased list is not the real one: special tokens at their ids, single letters of both cases, then the
    uncased pieces in their order, each of the first whole words followed by its capitalised form.
    """
    head, rest = pieces[: pieces.index(MASK) + 1], pieces[pieces.index(MASK) + 1 :]
    if not lower_case:
        letters = [p for c in string.ascii_letters for p in (c, f"##{c}")]
        words = [p for p in rest if p.isascii() and p.isalpha() and len(p) > 1][:CAPITALISED]
        rest = [p for p in rest if not p.startswith("[unused")]
        capital = {w: [w, w.capitalize()] for w in words}
        rest = dict.fromkeys(letters + [form for p in rest for form in capital.get(p, [p])])
    pieces = (head + list(rest))[:size]
    return pieces + [f"[unused{i}]" for i in range(1000, 1000 + size - len(pieces))]
