"""Fit the heads by which sentences leave the native engine early, and certify on texts without labels how rarely that
changes a class.

    python -m tools.cpu.certify --model model.native --texts build/data/snippets.tsv --checkpoint checkpoint \\
        --percent 0.5 --save_path certificate.json

docs/certify.md says how. A head is a ridge regression to the full model's own probabilities on three eighths of the texts,
scaled on another eighth so that scores are log-odds; the threshold is chosen on the other half.
"""

import json
import math
from pathlib import Path

import numpy as np

from tools.base import tasks
from tools.base.input_files import ROLES
from tools.cpu.native import model as native
from tools.make import cli, cpu
from tools.source import data, tokens

CONFIDENCE = 0.95
THRESHOLDS = np.arange(240, 0, -1) / 20  # in the order in which they are tested: none depends on a text
RIDGE = 0.01
MOST = 20_000  # texts, half of them to fit; more to calibrate where so many are needed
CHUNK = 1024  # texts at a time
LONGEST = 1 << 20  # tokens: more than any model has positions


def texts_needed(eps: float) -> int:
    """How many texts certify `eps` if none of them gets another class."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-eps))


def fit_head(x, logits) -> np.ndarray:
    """A layer's head, float32 [labels, 2 hidden + 1], from its inputs for n texts, float32 [n, 2 hidden], and the model's logits."""
    from scipy import optimize, special

    x, cut, best = np.pad(x, ((0, 0), (0, 1)), constant_values=1).astype(np.float64), 3 * len(x) // 4, logits.argmax(1)
    square = x[:cut].T @ x[:cut] + RIDGE * cut * np.diag(np.arange(x.shape[1]) < x.shape[1] - 1)
    weights = np.linalg.solve(square, x[:cut].T @ special.softmax(logits[:cut], axis=1))
    scores, rows = x[cut:] @ weights, np.arange(len(x) - cut)
    loss = lambda power: -special.log_softmax(np.exp(power) * scores, axis=1)[rows, best[cut:]].mean()
    return (weights.T * np.exp(optimize.minimize_scalar(loss, (-6, 6), (-6, 6), method="bounded").x)).astype(np.float32)


def other_classes(margins, wrong) -> np.ndarray:
    """Bool [THRESHOLDS, n]: which of n texts get another class at each threshold.

    margins: float [n, layers - 1], how far the best score of each layer's head is above the next; wrong: bool of that shape,
    whether the head's class differs from the full model's.
    """
    other = np.zeros((len(THRESHOLDS), len(margins)), bool)
    for layer in reversed(range(margins.shape[1])):
        other = np.where(margins[:, layer] >= THRESHOLDS[:, None], wrong[:, layer], other)
    return other


def count_passing(counts, n: int, eps: float) -> int:
    """How many thresholds pass before the first that fails. counts: how many of n texts get another class at each."""
    from scipy.stats import binom

    fails = binom.cdf(counts, n, eps) > 1 - CONFIDENCE
    return int(fails.argmax()) if fails.any() else len(fails)


class Texts:
    """Tokenised texts and the full model's logits of them, float32 [n, labels]."""

    def __init__(self, model, tokenizer, texts, most: int):
        rows = tokens.encodings(tokenizer, texts, most)
        typed = "token_type_ids" in map(ROLES.get, model.arch["inputs"])
        self.model, self.ids, self.types = model, [r.ids for r in rows], [r.type_ids for r in rows] if typed else None
        self.logits = model.run(self.ids, self.types)

    def head_inputs(self):
        """Yield the inputs of the heads, float32 [n, layers - 1, 2 hidden], for CHUNK texts at a time."""
        arch = self.model.arch
        for start in range(0, len(self.ids), CHUNK):
            chunk = slice(start, start + CHUNK)
            x = np.empty((len(self.ids[chunk]), arch["layers"] - 1, 2, native.sizes(arch)["h"]), np.float32)
            self.model.run(self.ids[chunk], self.types and self.types[chunk], x)
            yield x[..., : arch["hidden"]].reshape(*x.shape[:2], -1)


def certify(model, fitting: Texts, calibrating: Texts, eps: float) -> dict:
    """A certificate's facts and heads; afterwards the model leaves early. UserError where no threshold can be certified."""
    x = np.concatenate(list(fitting.head_inputs()))
    heads = np.stack([fit_head(x[:, layer], fitting.logits) for layer in range(x.shape[1])])
    score = lambda x: np.einsum("nld,lcd->nlc", x, heads[..., :-1], optimize=True) + heads[..., -1]
    full, scores = calibrating.logits.argmax(1), np.concatenate(list(map(score, calibrating.head_inputs())))
    best = np.sort(scores, axis=2)
    other = other_classes(best[..., -1] - best[..., -2], scores.argmax(2) != full[:, None])
    if not (count := count_passing(other.sum(1), len(full), eps)):
        raise cli.UserError("the heads differ too often where they are surest; leave CERTIFY= out")
    model.leave_early(heads, THRESHOLDS[count - 1])
    model.left[:] = 0
    differ = int((model.run(calibrating.ids, calibrating.types).argmax(1) != full).sum())
    if not count_passing(np.array([differ]), len(full), eps):
        raise cli.UserError(f"the engine itself differs in {differ} of {len(full)} texts; leave CERTIFY= out")
    return {
        "eps": eps, "confidence": CONFIDENCE, "fitted": len(fitting.ids), "calibrated": len(full), "differ": differ,
        "left": model.left.tolist(), "sure": THRESHOLDS[count - 1], "heads": heads.tolist(),
    }  # fmt: skip


def main():
    p = cli.parser(__doc__)
    p.add_argument("--model", type=Path, required=True, help="model.native; the certificate goes beside it")
    p.add_argument("--texts", type=Path, help="a TSV of texts; labels in it are not read")
    p.add_argument("--checkpoint", type=Path, required=True, help="the checkpoint whose tokenizer reads the texts")
    p.add_argument("--task", default=tasks.DEFAULT, help="the task, of tools/base/tasks.py (%(default)s)")
    p.add_argument("--percent", type=float, required=True, help="how many percent of the texts may get another class")
    p.add_argument("--save_path", type=Path, required=True)
    args = p.parse_args()
    task, eps = tasks.by_name(args.task), args.percent / 100
    if not 0 < eps < 1:
        p.error(f"--percent {args.percent:g} is not between 0 and 100")
    if task.score or task.several:
        raise cli.UserError(f"CERTIFY= is for one class a text; the task {args.task} has none")
    if not args.texts:
        raise cli.UserError(f"CERTIFY= needs texts of the task {args.task}, without labels: give TRAIN=, a TSV")
    texts = list(dict.fromkeys(data.read_texts(args.texts, task)))
    if len(texts) // 2 < texts_needed(eps):
        needs = f"CERTIFY={args.percent:g} needs {2 * texts_needed(eps)}, half of them to fit"
        advice = "give more by TRAIN=, or a larger CERTIFY="
        raise cli.UserError(f"{args.texts}: {len(texts)} different texts; {needs}; {advice}")
    count = max(MOST, 2 * texts_needed(eps))
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:count]]
    model = native.Model(args.model, cpu.cores())
    if min(model.arch["layers"], model.arch["labels"]) < 2:
        raise cli.UserError(f"{args.model}: one layer or one label: nothing could leave early; leave CERTIFY= out")
    most, tokenizer = tokens.fit(args.checkpoint, LONGEST, cut=True), tokens.load(args.checkpoint)
    tokenizer.no_padding()
    half = len(texts) // 2
    parts = texts[: min(half, MOST // 2)], texts[half:]
    fitting, calibrating = (Texts(model, tokenizer, part, most) for part in parts)
    facts = certify(model, fitting, calibrating, eps)
    facts |= {"model": cli.sha256(args.model), "texts": cli.sha256(args.texts)}
    cli.write(args.save_path, json.dumps(facts))
    shares = " ".join(f"{100 * n / facts['calibrated']:.1f}" for n in facts["left"])
    print(f"{facts['differ']} of {facts['calibrated']} texts get another class; left after each layer: {shares} %")
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
