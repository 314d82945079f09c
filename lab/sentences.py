"""The committed edit scripts of data/: made once from the official files (tools/source/data.py has the format).

    python -m lab.sentences derive SST-2/dev.tsv --archive vaderSentiment-3.3.2.tar.gz --save_path data/dev.edits
    python -m lab.sentences choose SST-2/train.tsv --archive vaderSentiment-3.3.2.tar.gz --save_path calibration.tsv

`derive` makes the edit script of a TSV; `choose` picked the training sentences that calibrate int8. Each prints

    wrote data/dev.edits (sha256 ...)
"""

import hashlib
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from difflib import SequenceMatcher
from itertools import accumulate

from tools.make import cli
from tools.source import data


def difference(snippet: str, sentence: str) -> tuple[int, int, str]:
    """(characters written, first character, edits) that make `sentence` of `snippet`, by difflib's blocks."""
    blocks = SequenceMatcher(None, snippet, sentence, autojunk=False).get_matching_blocks()
    at = start = blocks[0].a
    done, written, edits = 0, 0, ""
    for block in blocks:
        edits += f"<{block.a - at}>" if block.size and block.a > at else ""
        edits += re.sub(r"([0-9<>_=])", r"=\1", sentence[done : block.b]).replace(" ", "_")
        edits += str(block.size) if block.size else ""
        written += block.b - done
        at, done = block.a + block.size, block.b + block.size
    return written, start, edits


def derive(tsv, snippets: list[str]) -> str:
    """The edit script that makes the file `tsv`. Raises UserError for a row that no snippet makes."""
    from tqdm import tqdm

    known = defaultdict(list)
    for number, snippet in enumerate(snippets):
        for word in set(re.findall(r"\w+", snippet)):
            known[word].append(number)
    lines, rows = [], list(zip(*data.read_tsv(tsv), strict=True))
    for number, (sentence, label) in enumerate(tqdm(rows, "derive"), 2):
        votes = Counter()
        for word in sorted(set(re.findall(r"\w+", sentence))):
            for snippet in known.get(word, ()):
                votes[snippet] += 1 / len(known[word])
        tried = [(*difference(snippets[k], sentence), k) for k, _ in votes.most_common(3)]
        tried.append((len(sentence), 0, "", 0))
        written, start, edits, snippet = min(tried, key=lambda t: (t[0], len(t[2]), t[3]))
        if written * 4 > len(sentence):  # then it holds sentences, which an edit script must not
            raise cli.UserError(f"{tsv}:{number}: this sentence lies in no snippet; leave it out")
        lines.append(f"{label} {snippet + 1} {start} {edits}\n")
    return f"sha256 {hashlib.sha256(data.tsv_bytes(rows)).hexdigest()} rows {len(rows)}\n" + "".join(lines)


def letters(text: str) -> str:
    """Letters and digits alone: what edits leave as it is."""
    return re.sub(r"[\W_]+", "", text)


def choose(train, dev_edits, snippets: list[str], count: int) -> list[tuple[str, int]]:
    """`count` training rows, as long as validation sentences are, that neither hold one nor lie in one.

    Of each snippet without a validation sentence, the longest training row, if it ends a sentence. Of those,
    for each of `count` ranks of the validation sentences' word counts, the row nearest in words. sha256
    breaks ties and gives the order. Raises UserError where there are too few.
    """
    from tqdm import tqdm

    plain = [letters(snippet) for snippet in snippets]
    joined, starts = "\n".join(plain), [0, *accumulate(len(text) + 1 for text in plain)]
    taken = {snippet for _, snippet, _, _ in data.read_edits(dev_edits)[1]}
    dev = [line.split("\t")[0] for line in data.rebuild(dev_edits, snippets)[1].decode().splitlines()[1:]]
    dev_letters = [letters(sentence) for sentence in dev]
    dev_joined = "\n".join(dev_letters)

    longest = {}
    for sentence, label in tqdm(list(zip(*data.read_tsv(train), strict=True)), "choose"):
        at = joined.find(letters(sentence))
        home = bisect_right(starts, at) - 1
        if at >= 0 and home not in taken and len(sentence) > len(longest.get(home, ("",))[0]):
            longest[home] = (sentence, label)

    def apart(sentence):
        text = letters(sentence)
        return text not in dev_joined and not any(other in text for other in dev_letters)

    rows = [row for row in longest.values() if row[0].rstrip()[-1] in ".?!" and apart(row[0])]
    rows.sort(key=lambda row: hashlib.sha256(row[0].encode()).digest())
    if len(rows) < count:
        raise cli.UserError(f"{train}: only {len(rows)} rows fit, not {count}; ask for fewer (--rows)")
    words = sorted(len(sentence.split()) for sentence in dev)
    picked = set()
    for rank in range(count):
        want = words[rank * len(words) // count]
        free = [k for k in range(len(rows)) if k not in picked]
        picked.add(min(free, key=lambda k: abs(len(rows[k][0].split()) - want)))
    return [rows[k] for k in sorted(picked)]


def main():
    parser = cli.parser(__doc__)
    parser.add_argument("command", choices=["derive", "choose"])
    parser.add_argument("tsv", help="derive: sentences cut from the snippets; choose: SST-2's own train.tsv")
    parser.add_argument("--archive", required=True, help="vaderSentiment-3.3.2.tar.gz (tools/source/fetch.py)")
    parser.add_argument(
        "--edits", default=cli.ROOT / "data/dev.edits", help="choose: the validation set's (default data/dev.edits)"
    )
    parser.add_argument("--rows", type=int, default=512, help="choose: how many (default %(default)s)")
    parser.add_argument("--save_path", required=True, help="the file to write")
    args = parser.parse_args()
    snippets = data.read_snippets(args.archive)
    if args.command == "derive":
        text = derive(args.tsv, snippets).encode()
    else:
        text = data.tsv_bytes(choose(args.tsv, args.edits, snippets, args.rows))
    cli.write(args.save_path, text)
    print(f"wrote {args.save_path} (sha256 {cli.sha256(args.save_path)})")


if __name__ == "__main__":
    cli.run(main)
