"""A certificate: the heads by which sentences leave the native engine early, and how often that changes a class.

    certificate.read_certificate("build/.../certificate.json")
    {"model": "<sha256>", "eps": 0.005, "confidence": 0.95, "texts": "<sha256>", "calibrated": 4866, "differ": 14,
     "left": [0, 511, 2204, 1240, 402, 509], "sure": 4.35, "heads": [[[0.01, ...], ...], ...]}

tools/cpu/certify.py writes it beside the model.native that it is for; docs/certify.md says what it guarantees.
"""

from pathlib import Path

import numpy as np

from tools.make import cli

SHARE_CONFIDENCE = 0.99  # of a share's interval; where a run's and the calibration's do not meet, the texts are unlike


def read_certificate(path) -> dict:
    """A certificate, its heads as float32 [layers - 1, labels, 2 hidden + 1]. UserError where it is not for model.native."""
    facts, model = cli.read_json(path, 1 << 30), Path(path).with_name("model.native")
    try:
        facts["heads"] = np.array(facts["heads"], np.float32)
        counts = [facts["calibrated"], facts["differ"], *facts["left"]]
        sound = facts["heads"].ndim == 3 and np.isfinite(facts["heads"]).all() and all(type(n) is int for n in counts)
        sound = sound and len(facts["left"]) == len(facts["heads"]) + 1
        sound = sound and all(0 < facts[name] < 1 for name in ("eps", "confidence")) and 0 < facts["sure"] < 1e9
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound or facts.get("model") != cli.sha256(model):
        raise cli.UserError(f"{path}: not a certificate of {model}; make it again")
    return facts


def intervals(counts) -> np.ndarray:
    """Float [2, n]: the Clopper-Pearson interval of each share of n whole numbers."""
    from scipy.stats import beta

    counts, ends, tail = np.asarray(counts), np.array([[0], [1]]), (1 - SHARE_CONFIDENCE) / 2
    bounds = beta.ppf([[tail], [1 - tail]], counts + ends, counts.sum() - counts + 1 - ends)
    return np.where(np.isnan(bounds), ends, bounds)


def facts_of_run(certificate: dict, left) -> dict:
    """What a record says of a run in which left[l] sentences were answered after layer l, from 0. `unlike`: the layers, from
    1, after which more or fewer of them left than in the calibration; the certificate is claimed if there are none."""
    (low, high), (least, most) = intervals(certificate["left"]), intervals(left)
    facts = {name: certificate[name] for name in ("eps", "confidence", "texts", "calibrated", "differ")}
    unlike = (np.flatnonzero((least > high) | (most < low)) + 1).tolist()
    return facts | {"left": [int(n) for n in left], "unlike": unlike, "claimed": not unlike}


def in_words(facts: dict) -> str:
    """The facts of a run in one line."""
    most = f"at most {100 * facts['eps']:g} % differ from the full model, at {100 * facts['confidence']:g} % confidence"
    shares = " ".join(f"{100 * n / max(1, sum(facts['left'])):.1f}" for n in facts["left"])
    claim = f"{most}, by {facts['calibrated']} texts like these; left after each layer: {shares} %"
    if facts["claimed"]:
        return claim
    layers = ", ".join(map(str, facts["unlike"]))
    return f"NOT for these texts: not as many left as of the calibration, after layer {layers}; give TRAIN= texts like these ({claim})"
