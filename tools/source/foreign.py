"""Other projects' folders as the hub would have them: fairseq's RoBERTa, lonePatient's albert_pytorch.

    from tools.source import foreign
    folder = foreign.as_hub(Path("checkpoints"), Path("models/roberta_base_sst2"), box)    # made in folder `box`

fairseq: checkpoint.pt; GPT-2's encoder.json and vocab.bpe; dict.txt, the order of fairseq's own token numbers; label/dict.txt,
the order of the outputs (by frequency: in SST-2 output 0 is label 1). albert_pytorch: config.json, pytorch_model.bin, and
30k-clean.model of the model it was trained from. What both lack is taken from the model's folder under models/.
"""

import json
from pathlib import Path

from tools.make import cli
from tools.source import tokenizer
from tools.source.architecture import CONFIGS

GPT2 = ("encoder.json", "vocab.bpe", "dict.txt")
PAIRS = ("vocab.json", "merges.txt")  # the hub's names of the same, already in fairseq's numbers
PIECES = ("spiece.model", "30k-clean.model")


def find_file(places, *names):
    """The first file of one of these names in the folders `places`; None where there is none."""
    return cli.first_file(Path(p, n) for n in names for p in places)


def is_foreign(folder) -> bool:
    """Whether a checkpoint's folder is one of these projects'."""
    if find_file([folder], "checkpoint.pt"):
        return not find_file([folder], *CONFIGS)
    if path := find_file([folder], "config.json"):
        cli.refuse_pointer(path)
    config = cli.read_json(path) if path else {}
    return "model_type" not in config and "num_hidden_groups" in config


def as_hub(folder, model, box, places=(), weights="checkpoint.pt"):
    """A folder in `box` with config, tokenizer and a link to the weights of `folder`; `places`: where else files may lie."""
    hub, places = Path(box) / "hub", [folder, *places]
    tokenizer_files(places, model, hub)
    path = find_file([folder], weights, "pytorch_model.bin", "model.safetensors")
    if path is None:
        raise cli.UserError(f"{folder}: no {weights} there; give the folder that has it")
    (hub / ("checkpoint.pt" if path.suffix == ".pt" else path.name)).symlink_to(path.resolve())
    config = cli.read_json(model / "config.json")
    if path.suffix == ".pt":
        names = list(config["id2label"].values())
        order = [names[number] for number in label_order(places, len(names))]
        config |= {"id2label": dict(enumerate(order)), "label2id": {name: i for i, name in enumerate(order)}}
    else:
        config |= cli.read_json(Path(folder) / "config.json")
    (hub / "config.json").write_text(json.dumps(config), "utf-8")
    return hub


def first_words(path):
    """The first word of each line of a dict.txt: what fairseq counted."""
    return [line.split()[0] for line in tokenizer.read_vocab(path) if line.strip()]


def label_order(places, count):
    """Which label each output of fairseq's classifier is, as numbers; UserError where label/dict.txt does not say it."""
    path = find_file(places, "label/dict.txt")
    if path is None:
        fault = "no label/dict.txt, which says the order of the outputs"
        raise cli.UserError(f"{places[0]}: {fault}; copy it there from the SST-2-bin that the model was trained on")
    order = [word for word in first_words(path) if not word.startswith("madeupword")]
    if sorted(order) != [str(i) for i in range(count)]:
        fault = f"labels {' '.join(order):.60}, not the numbers 0 to {count - 1}"
        raise cli.UserError(f"{path}: {fault}; take the model's own")
    return [int(word) for word in order]


def tokenizer_files(places, model, hub):
    """The tokenizer's files in a new folder `hub` as the hub has them; UserError where one is in none of `places`."""
    hub.mkdir(parents=True)
    for name in ("tokenizer_config.json", "config.json"):
        (hub / name).write_bytes((model / name).read_bytes())
    ready = [path for name in (*PAIRS, "tokenizer.json") if (path := find_file(places, name))]
    encoder, merges, numbers = (find_file(places, name, f"input0/{name}") for name in GPT2)
    if ready:
        for path in ready:
            (hub / path.name).write_bytes(path.read_bytes())
    elif pieces := find_file(places, *PIECES):
        (hub / PIECES[0]).write_bytes(cli.regular(pieces, cli.LARGEST).read_bytes())
    elif encoder and merges and numbers:
        byte_pairs(encoder, merges, numbers, hub)
    else:
        kinds = f"{', '.join(GPT2)}, {', '.join(PAIRS)}, {' or '.join(PIECES)}"
        raise cli.UserError(f"{places[0]}: no tokenizer there (looked for {kinds}); copy its files there")


def byte_pairs(encoder, merges, numbers, hub):
    """vocab.json and merges.txt of GPT-2's encoder.json and vocab.bpe in the numbers of fairseq's dict.txt: that counts
    from 4, behind <s> <pad> </s> <unk>, and has <mask> last."""
    piece = {str(i): text for text, i in cli.read_json(encoder).items()}
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(piece.get(word, word) for word in first_words(numbers)), "<mask>"]
    (hub / PAIRS[0]).write_text(json.dumps({token: i for i, token in enumerate(tokens)}), "utf-8")
    (hub / PAIRS[1]).write_bytes(merges.read_bytes())
