"""A model, loaded once, and a piece of a file to a table of classes and logits: the same here and on a cluster's nodes."""

from tools import cli
from tools.cpu import score
from tools.scale import files


def wanted(args) -> list[str]:
    """The columns that are read, that of the sentences first."""
    return list(dict.fromkeys([*args.columns, *args.keep]))


class Scorer:
    """A model, loaded once."""

    def __init__(self, args):
        from tools.cpu import engines
        from tools.source import tokens

        self.args, self.engine, self.tried = args, engines.load(args.model, args.threads), False
        if fixed := [t.name for t in self.engine.inputs if t.shape != (None, None)]:
            raise cli.UserError(f"--model {args.model}: input {fixed[0]} has a fixed shape; compile it with SEQ=real")
        self.exact = args.rerun and engines.load(args.rerun, args.threads)
        self.tokenizer = tokens.load(args.tokenizer_path)

    def tokenised(self, sentences: list[str]):
        """Yield the rows of each model input, of score.WINDOW sentences at a time."""
        from tools.source import tokens

        names = [t.name for t in self.engine.inputs]
        for start in range(0, len(sentences), score.WINDOW):
            window = sentences[start : start + score.WINDOW]
            yield list(tokens.ragged(self.tokenizer, window, self.args.max_len, names).values())

    def part(self, source: files.Source, number: int, table):
        """(the part as a pyarrow table, how many labels are right or None) of a table of `wanted` columns."""
        import numpy as np
        import pyarrow as pa

        from tools.cpu import plan

        args, found = self.args, []
        for columns in score.ahead(self.tokenised(table[args.columns[0]].to_pylist())):
            if not self.tried:
                self.engine, _ = plan.fastest(self.engine, args.model, columns, args.batchsize, args.threads)
                self.tried = True
            logits = score.logits(self.engine, columns, args.batchsize, lambda rows: None)
            if self.exact:
                score.rerun(self.exact, columns, logits, args)
            found.append(logits)
        logits, first = np.concatenate(found), number * args.rows
        if not np.isfinite(logits).all():
            bad = first + int(np.flatnonzero(~np.isfinite(logits).all(1))[0])
            raise cli.UserError(f"{source.url}: row {bad}: NaN or infinite logits; try PRECISION=fp32")
        tied, chosen = logits[:, 0] == logits[:, 1], logits.argmax(1).astype(np.int8)
        told = {
            "file": pa.array([source.name] * len(table)),
            "row": np.arange(first, first + len(table)),
            **{name: table[name] for name in args.keep},
            "prediction": pa.array(chosen, mask=tied),
            "logit0": logits[:, 0],
            "logit1": logits[:, 1],
        }
        return pa.table(told), self.right(source, first, table, chosen, tied)

    def right(self, source, first: int, table, chosen, tied) -> int | None:
        """How many classes are those of the label column; None without one. UserError for what is no label."""
        if len(self.args.columns) < 2:
            return None
        labels = [str(v) for v in table[self.args.columns[1]].to_pylist()]
        for row, label in enumerate(labels, first):
            if label not in ("0", "1"):
                raise cli.UserError(f"{source.url}: row {row}: label {label[:20]!r} is not 0 or 1; mend it")
        return sum(label == str(c) and not t for label, c, t in zip(labels, chosen, tied, strict=True))
