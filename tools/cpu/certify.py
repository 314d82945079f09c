"""Fit what lets sentences leave the native engine early, and certify on texts without labels how rarely that changes a class.

    python -m tools.cpu.certify --model model.native --texts build/data/snippets.tsv --checkpoint checkpoint \\
        --percent 0.5 --save_path certificate.json

Each layer but the last gets a linear head on [CLS] and the mean of its rows: ridge regression to the full model's own
probabilities on three eighths of the texts, scaled on another eighth so that scores are log-odds. One number then says for
all layers how far the best score must be above the next. It is chosen on the other half of the texts by fixed-sequence
testing (Learn then Test, Angelopoulos et al., arXiv:2110.01052): from the most cautious number on, each is tested by the exact
binomial p-value of "more than eps of all such texts get another class", and the last before the first failure is taken.
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
SURE = np.arange(240, 0, -1) / 20  # the numbers that are tested, in their order: none depends on a text
RIDGE = 0.01
MOST, CHUNK = 20_000, 1024  # texts in all, and at a time
LONGEST = 1 << 20  # tokens: more than any model has positions


def needed(eps: float) -> int:
    """How many texts certify `eps` where not one of them gets another class."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-eps))


def head(x, logits) -> np.ndarray:
    """Float32 [labels, 2 hidden + 1], of what a layer's head sees of n texts, float32 [n, 2 hidden], and the model's logits."""
    from scipy import optimize, special

    x, cut, best = np.pad(x, ((0, 0), (0, 1)), constant_values=1).astype(np.float64), 3 * len(x) // 4, logits.argmax(1)
    square = x[:cut].T @ x[:cut] + RIDGE * cut * np.diag(np.arange(x.shape[1]) < x.shape[1] - 1)
    weights = np.linalg.solve(square, x[:cut].T @ special.softmax(logits[:cut], axis=1))
    scores, rows = x[cut:] @ weights, np.arange(len(x) - cut)
    loss = lambda power: -special.log_softmax(np.exp(power) * scores, axis=1)[rows, best[cut:]].mean()
    return (weights.T * np.exp(optimize.minimize_scalar(loss, (-6, 6), (-6, 6), method="bounded").x)).astype(np.float32)


def differs(margins, wrong) -> np.ndarray:
    """Bool [SURE, n]: which of n texts get another class by each number; of each layer's head, float [n, layers - 1] how far
    its best score is above the next, bool [n, layers - 1] whether its class is another one than the full model's."""
    made = np.zeros((len(SURE), len(margins)), bool)
    for layer in reversed(range(margins.shape[1])):
        made = np.where(margins[:, layer] >= SURE[:, None], wrong[:, layer], made)
    return made


def passed(counts, n: int, eps: float) -> int:
    """How many of the numbers in SURE pass, before the first that fails; counts: of n texts with another class, by each."""
    from scipy.stats import binom

    fails = binom.cdf(counts, n, eps) > 1 - CONFIDENCE
    return int(fails.argmax()) if fails.any() else len(fails)


class Texts:
    """Tokenised texts and the full model's logits of them, float32 [n, labels]."""

    def __init__(self, model, tokenizer, texts, most: int):
        rows = tokens.encodings(tokenizer, texts, most)
        typed = "token_type_ids" in map(ROLES.get, model.arch["inputs"])
        self.model, self.ids, self.types = model, [r.ids for r in rows], [r.type_ids for r in rows] if typed else None
        self.logits = self.run()

    def run(self) -> np.ndarray:
        return self.model.run(self.ids, self.types)

    def seen(self):
        """Yield float32 [n, layers - 1, 2 hidden] of what the heads see, some texts at a time."""
        arch = self.model.arch
        for start in range(0, len(self.ids), CHUNK):
            some = slice(start, start + CHUNK)
            x = np.empty((len(self.ids[some]), arch["layers"] - 1, 2, native.sizes(arch)["h"]), np.float32)
            self.model.run(self.ids[some], self.types and self.types[some], x)
            yield x[..., : arch["hidden"]].reshape(*x.shape[:2], -1)


def certify(model, fitting: Texts, calibrating: Texts, eps: float) -> dict:
    """A certificate's facts and heads; from here on the model leaves early. Raises UserError where that is worth nothing."""
    seen = np.concatenate(list(fitting.seen()))
    heads = np.stack([head(seen[:, layer], fitting.logits) for layer in range(seen.shape[1])])
    score = lambda x: np.einsum("nld,lcd->nlc", x, heads[..., :-1], optimize=True) + heads[..., -1]
    full, scores = calibrating.logits.argmax(1), np.concatenate(list(map(score, calibrating.seen())))
    best = np.sort(scores, axis=2)
    made = differs(best[..., -1] - best[..., -2], scores.argmax(2) != full[:, None])
    if not (count := passed(made.sum(1), len(full), eps)):
        raise cli.UserError("the heads differ too often where they are surest; leave CERTIFY= out")
    model.leave_early(heads, SURE[count - 1])
    model.left[:] = 0
    differ = int((calibrating.run().argmax(1) != full).sum())
    if not passed(np.array([differ]), len(full), eps):
        raise cli.UserError(f"the engine itself differs in {differ} of {len(full)} texts; leave CERTIFY= out")
    return {
        "eps": eps, "confidence": CONFIDENCE, "fitted": len(fitting.ids), "calibrated": len(full), "differ": differ,
        "left": model.left.tolist(), "sure": SURE[count - 1], "heads": heads.tolist(),
    }  # fmt: skip


def main():
    p = cli.parser(__doc__)
    p.add_argument("--model", type=Path, required=True, help="model.native; the certificate goes beside it")
    p.add_argument("--texts", type=Path, help="TSV, labelled or not")
    p.add_argument("--checkpoint", type=Path, required=True, help="whose tokenizer reads them")
    p.add_argument("--task", default=tasks.DEFAULT, help="what is asked (tools/base/tasks.py, %(default)s)")
    p.add_argument("--percent", type=float, required=True, help="of texts that may get another class")
    p.add_argument("--save_path", type=Path, required=True)
    args = p.parse_args()
    task, eps = tasks.by_name(args.task), args.percent / 100
    if task.score or task.several:
        raise cli.UserError(f"CERTIFY= is for one class a text; the task {args.task} has none")
    if not args.texts:
        raise cli.UserError(f"CERTIFY= needs texts of the task {args.task}, without labels: give TRAIN=, a TSV")
    texts = list(dict.fromkeys(data.read_texts(args.texts, task)))
    if len(texts) // 2 < needed(eps):
        fault = f"{len(texts)} different texts; CERTIFY={args.percent:g} needs {2 * needed(eps)}, half of them to fit"
        raise cli.UserError(f"{args.texts}: {fault}; give more by TRAIN=, or a larger CERTIFY=")
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:MOST]]
    model = native.Model(args.model, cpu.cores())
    if min(model.arch["layers"], model.arch["labels"]) < 2:
        raise cli.UserError(f"{args.model}: one layer or one label: nothing could leave early; leave CERTIFY= out")
    most, tokenizer = tokens.fit(args.checkpoint, LONGEST, cut=True), tokens.load(args.checkpoint)
    tokenizer.no_padding()
    half = len(texts) // 2
    fitting, calibrating = (Texts(model, tokenizer, some, most) for some in (texts[:half], texts[half:]))
    made = certify(model, fitting, calibrating, eps)
    made |= {"model": cli.sha256(args.model), "texts": cli.sha256(args.texts)}
    cli.write(args.save_path, json.dumps(made))
    shares = " ".join(f"{100 * n / made['calibrated']:.1f}" for n in made["left"])
    print(f"{made['differ']} of {made['calibrated']} texts get another class; left after each layer: {shares} %")
    print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
