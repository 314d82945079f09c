"""A certificate: what lets sentences leave the native engine early, and what is known of their answers.

    said = certificate.read("build/.../certificate.json")
    {"model": "<sha256>", "eps": 0.005, "confidence": 0.95, "texts": "<sha256>", "calibrated": 4866, "differ": 14,
     "left": [0, 511, 2204, 1240, 402, 509], "sure": 4.35, "heads": [[[0.01, ...], ...], ...]}

tools/cpu/certify.py makes it, beside the model.native that it is of; docs/certify.md says what it guarantees.
"""

from pathlib import Path

import numpy as np

from tools.make import cli

INTERVAL = 0.99  # of a share that left: where that of a run does not meet the calibration's, the texts are others


def read(path) -> dict:
    """A certificate, its heads as float32 [layers - 1, labels, 2 hidden + 1]. UserError where it is none of its model."""
    said, model = cli.read_json(path), Path(path).with_name("model.native")
    try:
        said["heads"] = np.array(said["heads"], np.float32)
        whole = [said["calibrated"], said["differ"], *said["left"]]
        sound = said["heads"].ndim == 3 and np.isfinite(said["heads"]).all() and all(type(v) is int for v in whole)
        sound = sound and all(0 < said[name] < 1 for name in ("eps", "confidence")) and 0 < said["sure"] < 1e9
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound or said.get("model") != cli.sha256(model):
        raise cli.UserError(f"{path}: not a certificate of {model}; make it again")
    return said


def interval(counts) -> np.ndarray:
    """Float [2, n]: the Clopper-Pearson interval of each share of n whole numbers."""
    from scipy.stats import beta

    counts, tail = np.asarray(counts), (1 - INTERVAL) / 2
    low = beta.ppf(tail, counts, counts.sum() - counts + 1)
    high = beta.ppf(1 - tail, counts + 1, counts.sum() - counts)
    return np.array([np.nan_to_num(low, nan=0), np.nan_to_num(high, nan=1)])


def told(said: dict, left) -> dict:
    """What a record says of a run in which left[l] sentences were answered after layer l, from 0; `unlike`: the layers, from
    1, after which more or fewer of them left than of the calibration. The certificate is claimed where there is none."""
    (low, high), (least, most) = interval(said["left"]), interval(left)
    facts = {name: said[name] for name in ("eps", "confidence", "texts", "calibrated", "differ")}
    unlike = (np.flatnonzero((least > high) | (most < low)) + 1).tolist()
    return facts | {"left": [int(n) for n in left], "unlike": unlike, "claimed": not unlike}


def line(told: dict) -> str:
    """`told` in words."""
    most = f"at most {100 * told['eps']:g} % differ from the full model, at {100 * told['confidence']:g} % confidence"
    shares = " ".join(f"{100 * n / max(1, sum(told['left'])):.1f}" for n in told["left"])
    by = f"{most}, by {told['calibrated']} texts like these; left after each layer: {shares} %"
    if told["claimed"]:
        return by
    layers = ", ".join(map(str, told["unlike"]))
    return f"NOT for these texts: not as many left as of the calibration, after layer {layers}; give TRAIN= texts like these ({by})"
