"""Two configurations on the same sentences: exact McNemar test, difference, and every flip.

    python -m tools.results.compare A B

    A  tiny seq64 bs8 cpu onnxruntime fp32 (2026-11-21): 48.85 % (426/872)  [seeded weights: not the model's accuracy]
    B  tiny seq64 bs8 cpu onnxruntime fp16-sim (2026-11-21): 48.85 % (426/872)  [seeded weights: not the model's ...]
    only A right: 0; only B right: 0
    B - A: 0 points: no sentence that only one of them has right
    exact McNemar test: p = 1: no difference that this set could show (at 5 %)

A and B are accuracy records, or folders build/.../<chip>-<engine>-<precision> that hold an accuracy.json. The test is
the exact (binomial) one on the sentences that only one of the two has right: scipy.stats.binomtest, two-sided,
p = 1/2 (McNemar 1947, Psychometrika 12:153). The interval of the difference is its Clopper-Pearson interval, given
how many such sentences there are.
"""

from pathlib import Path

from tools.make import cli, parameters
from tools.results import record

DEV = Path("build/data/dev.tsv")
own_texts = lambda r: f"build/data/{r['model']}/dev.tsv"


def read_accuracy(path: Path) -> dict:
    """An accuracy record from its file or its folder. Raises UserError if there is none."""
    path = path / "accuracy.json" if path.is_dir() else path
    if not path.exists():
        raise cli.UserError(f"{path}: no such record; give one that `make accuracy` made, or its folder")
    if (value := record.read_record(path))["kind"] != "accuracy":
        raise cli.UserError(f"{path}: not an accuracy record; give one that `make accuracy` made")
    return value


def title(r: dict) -> str:
    """A record's parameters, day and accuracy in one line."""
    where = f"{r['model']} seq{r['seq']} bs{r['bs']} {r['chip']} {r['engine']} {r['precision']}{parameters.suffix(r)}"
    caveat = f"  [{record.DEMONSTRATION if r['standin'] else r['caveat']}]" * bool(r["standin"] or r["caveat"])
    return f"{where} ({(r['started'] or 'imported')[:10]}): {100 * r['accuracy']:.2f} % ({r['correct']}/{r['total']}){caveat}"


def mcnemar(a: list[bool], b: list[bool]) -> dict:
    """Sentences that only a, only b has right; p; difference b - a and its 95 % interval, as shares of all."""
    from scipy.stats import binomtest

    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    discordant, total = only_a + only_b, len(a)
    if not discordant:
        return {"only_a": 0, "only_b": 0, "p": 1.0, "difference": 0.0, "interval95": None}
    test = binomtest(only_b, discordant)
    interval = [(2 * p - 1) * discordant / total for p in test.proportion_ci(0.95, method="exact")]
    counts = {"only_a": only_a, "only_b": only_b, "p": float(test.pvalue)}
    return counts | {"difference": (only_b - only_a) / total, "interval95": interval}


def flips(a: dict, b: dict) -> list[int]:
    """Rows of the texts, from 0, to which the two records give different classes, as far as both go."""
    pairs = zip(*(record.classes(r["predictions"]) for r in (a, b)), strict=False)
    return [i for i, (x, y) in enumerate(pairs) if x != y]


def flip_lines(a: dict, b: dict) -> list[str]:
    """A line for each flip: its place in the data, label, both predictions, and the sentence of SST-2 where that is here."""
    truth, sentences, place = record.labels_of(a), None, own_texts(a) if "truth" in a else DEV.name
    if DEV.is_file() and "truth" not in a:
        from tools.source import data

        sentences = data.read_tsv(DEV)[0]
    return [
        f"{place}:{i + 2}: label {truth[i]}, A {a['predictions'][i]}, B {b['predictions'][i]}"
        + (f"  {sentences[i]}" if sentences else "")
        for i in flips(a, b)
    ]


def comparison(a: dict, b: dict) -> str:
    """The comparison as text. Raises UserError where the two are not of the same texts."""
    if record.labels_of(a) != record.labels_of(b):
        raise cli.UserError("A and B are not of the same texts: their labels differ")
    test = mcnemar(record.right_answers(a), record.right_answers(b))
    only = f"only A right: {test['only_a']}; only B right: {test['only_b']}"
    difference = "B - A: 0 points: no sentence that only one of them has right"
    if test["interval95"]:
        low, high = (100 * v for v in test["interval95"])
        difference = f"B - A: {100 * test['difference']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    verdict = "a difference" if test["p"] < 0.05 else "no difference that this set could show"
    exact = f"exact McNemar test: p = {test['p']:.3g}: {verdict} (at 5 %)"
    texts = {r["chain"].get(own_texts(r), {}).get("sha256") for r in (a, b)} - {None}
    other = ["the labels of A and B are the same, their texts are not"] * (len(texts) > 1)
    return "\n".join([f"A  {title(a)}", f"B  {title(b)}", *other, only, difference, exact, *flip_lines(a, b)]) + "\n"


def main():
    p = cli.parser(__doc__)
    p.add_argument("a", type=Path)
    p.add_argument("b", type=Path)
    args = p.parse_args()
    print(comparison(read_accuracy(args.a), read_accuracy(args.b)), end="")


if __name__ == "__main__":
    cli.run(main)
