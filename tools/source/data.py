"""The sentences: SST-2's validation set and a few training sentences, rebuilt from a public source package.

    python -m tools.source.data rebuild data/dev.edits --archive build/downloads/vaderSentiment-3.3.2.tar.gz \\
        --save_path build/data/dev.tsv

SST was cut from 10,605 film-review snippets; the source package holds them in their original spelling.
`spell_canonical` spells them SST's way as far as rules go. An edit script states the rest, and no sentence:

    sha256 <of the file it makes> rows <number>
    <label> <snippet, from 1> <first character, from 0> <edits>

with edits, read from left to right: 12 copies 12 characters, <3> skips 3, _ writes a blank, any other
character writes itself, and = before a character writes that, whatever it is. lab/sentences.py made the committed
scripts.
"""

import codecs
import dataclasses
import hashlib
import io
import itertools
import re
import tarfile
from pathlib import Path

from tools.base import tasks
from tools.make import cli

SNIPPETS = ("additional_resources/hutto_ICWSM_2014.tar.gz", "movieReviewSnippets_GroundTruth.txt")
FILE_LIMIT = 1 << 23  # bytes of one file taken out of an archive, or of an edit script
LINE_LIMIT = 1 << 16  # bytes of one line of a TSV; the longest official one has 269


# --- TSV files ---


def read_tsv(path, task=tasks.TASKS[tasks.DEFAULT], names=(), labelled=True) -> tuple[list, list]:
    """(texts, labels) of the rows of a tab-separated file, one or more; UserError, with file and line, for any other.

    A text is one string, or a pair of them, in the task's columns; quotes are plain characters, other columns skipped. A
    label is what tasks.label_of makes of it; None where there is no such column, or where it says -1 or nothing, as in
    GLUE's test sets (UserError if they must be `labelled`).
    """
    sentences, labels = [], []
    with cli.regular(path).open("rb") as file:
        first = file.readline(LINE_LIMIT + 1).removeprefix(codecs.BOM_UTF8)
        header = _columns(first, path, 1)
        bare = len(header) == len(task.bare) and not set(header) & {*task.label, *task.text[0]}
        header = list(task.bare) if bare else header
        texts, label = _places(header, task, names, path, labelled)
        lines = iter(lambda: file.readline(LINE_LIMIT + 1), b"")
        for number, line in enumerate(itertools.chain([first], lines) if bare else lines, 1 if bare else 2):
            row = _columns(line, path, number)
            if len(row) != len(header):
                columns = "<tab>".join(header)[:60]
                raise cli.UserError(f"{path}:{number}: {len(row)} columns, not {len(header)}; write {columns}")
            text = tuple(row[place] for place in texts)
            if not all(t.strip() for t in text):
                raise cli.UserError(f"{path}:{number}: no {task.text[0][0]}; write one or drop the line")
            if isinstance(label, list):
                value = tasks.marked([row[place] for place in label], names, f"{path}:{number}")
            else:
                value = None if label is None else tasks.label_of(row[label], task, names, f"{path}:{number}")
            if labelled and value is None:
                raise cli.UserError(f"{path}:{number}: no label; an accuracy needs one in each row")
            sentences.append(text if task.pair else text[0])
            labels.append(value)
    if not sentences:
        raise cli.UserError(f"{path}:2: no row after the header; take a whole file")
    return sentences, labels


def _places(header, task, names, path, labelled):
    """Where in a row a task's texts and its label are: (numbers, number or None, or numbers of a column for each label);
    UserError where they are not."""
    texts = next(([*map(header.index, names)] for names in task.text if set(names) <= set(header)), None)
    label = next((header.index(name) for name in task.label if name in header), None)
    if task.several and names and task.label and set(names) <= set(header):
        label = [*map(header.index, names)]
    if not texts:
        columns = " or ".join(" and ".join(f"`{name}`" for name in names) for names in task.text)
    elif labelled and label is None and len(names) > 1 and set(names) <= set(header):
        raise cli.UserError(f"{path}:1: the header has a column for each label; {tasks.ONE_CLASS}")
    elif labelled and label is None:
        columns = " or ".join(f"`{name}`" for name in task.label) + ", or one for each label" * task.several
    else:
        return texts, label
    raise cli.UserError(f"{path}:1: the header names no column {columns}; write one")


def _columns(line: bytes, path, number: int) -> list[str]:
    """The columns of one line of a TSV, checked."""
    if len(line) > LINE_LIMIT:
        raise cli.UserError(f"{path}:{number}: longer than {LINE_LIMIT} bytes; one sentence a line")
    for byte, name in ((b"\0", "NUL byte"), (b"\r", "carriage return (Windows line end?)")):
        if byte in line:
            raise cli.UserError(f"{path}:{number}: {name}; save it as plain UTF-8 text with Unix line ends")
    try:
        return line.removesuffix(b"\n").decode("utf-8").split("\t")
    except UnicodeDecodeError as e:
        raise cli.UserError(f"{path}:{number}: byte {e.start + 1} is not UTF-8; convert the file") from None


def read_texts(path, task=tasks.TASKS[tasks.DEFAULT]) -> list:
    """The texts of a file, labelled or not; UserError where there is none."""
    return read_tsv(path, dataclasses.replace(task, label=()), labelled=False)[0]


def tsv_bytes(rows) -> bytes:
    """The official spelling of (sentence, label) rows."""
    return "".join(["sentence\tlabel\n", *(f"{sentence}\t{label}\n" for sentence, label in rows)]).encode()


# --- the snippets ---


def tar_member(file, ending: str, name) -> bytes:
    """The one plain file of a .tar.gz, an open binary file, whose path ends in `ending`. Raises UserError."""
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as tar:
            members = [m for m in tar if f"/{m.name}".endswith(f"/{ending}")]
            plain = [m for m in members if m.isreg() and not m.issparse() and m.size <= FILE_LIMIT]
            if len(members) != 1 or not plain:
                raise cli.UserError(f"{name}: not one plain {ending} of at most 8 MiB; fetch it again")
            return tar.extractfile(members[0]).read()
    except cli.UserError:
        raise
    except Exception as e:  # tarfile, gzip and zlib each raise their own
        raise cli.UserError(f"{name}: not a sound .tar.gz ({e}); fetch it again") from None


def spell_canonical(snippet: str) -> str:
    """A snippet in SST's spelling as far as rules go: lower case, blanks round punctuation and at the end."""
    text = snippet.lower().replace("    ", " -- ")
    text = re.sub(r"([^\w\s.'`-]|''|\.\.\.|\.(?=\s|$)|n't\b|'\w*)", r" \1 ", text)
    return re.sub(r" +", " ", text).strip() + " "


def read_snippets(archive) -> list[str]:
    """The snippets, canonical, from the source package: snippet n at index n - 1; UserError where it is another."""
    with cli.regular(archive).open("rb") as file:
        data = tar_member(file, SNIPPETS[0], archive)
    text = tar_member(io.BytesIO(data), SNIPPETS[1], f"{archive}: {SNIPPETS[0]}")
    try:
        return [spell_canonical(line.split("\t", 2)[2]) for line in text.decode("utf-8").removesuffix("\n").split("\n")]
    except (UnicodeDecodeError, IndexError):
        fault = f"{SNIPPETS[1]} is not UTF-8 lines of number, mean and text; fetch it again"
        raise cli.UserError(f"{archive}: {fault}") from None


# --- edit scripts ---


def read_edits(path) -> tuple[str, list[tuple[int, int, int, str]]]:
    """(sha256 of the file it makes, rows of (label, snippet from 0, first character, edits)) of a script. Raises UserError."""
    head, *lines = cli.regular(path, FILE_LIMIT).read_bytes().removesuffix(b"\n").split(b"\n")
    top = re.fullmatch(rb"sha256 ([0-9a-f]{64}) rows ([0-9]{1,6})", head)
    rows = [
        re.fullmatch(r"([01]) ([1-9]\d{0,5}) (\d{1,6}) (\S+)", line.decode("utf-8", "replace"), re.A) for line in lines
    ]
    if not top or int(top[2]) != len(lines) or None in rows:
        number = 1 if not top or int(top[2]) != len(lines) else rows.index(None) + 2
        fault = f"not `sha256 <sum> rows {len(lines)}`, then `label snippet start edits` in each line"
        raise cli.UserError(f"{path}:{number}: {fault}; take the committed file again")
    return top[1].decode(), [(int(m[1]), int(m[2]) - 1, int(m[3]), m[4]) for m in rows]


def edit(edits: str, start: int, snippet: str) -> str:
    """The sentence that `edits` make of `snippet` from `start` on. Raises ValueError past its end."""
    at, out = start, []
    for copy, skip, exact, char in re.findall(r"([0-9]{1,6})|<([0-9]{1,6})>|=(.)|(.)", edits):
        out.append(snippet[at : at + int(copy)] if copy else exact or char.replace("_", " "))
        at += int(copy or skip or 0)
        if at > len(snippet):
            raise ValueError("past the snippet's end")
    return "".join(out)


def rebuild(edits_path, snippets: list[str]) -> tuple[str, bytes]:
    """(the sha256 that is wanted, the TSV's bytes) of an edit script; UserError where a snippet does not fit."""
    sha256, script = read_edits(edits_path)
    rows = []
    for number, (label, snippet, start, edits) in enumerate(script, 2):
        try:
            rows.append((edit(edits, start, snippets[snippet]), label))
        except (IndexError, ValueError):
            fault = "points outside the snippets; take the committed file and the pinned package again"
            raise cli.UserError(f"{edits_path}:{number}: {fault}") from None
    return sha256, tsv_bytes(rows)


def unused_snippets(edits_path, snippets: list[str]) -> bytes:
    """A TSV, without labels, of the snippets that no sentence of an edit script was cut from, contains, or is contained in."""
    letters = lambda text: re.sub(r"[\W_]+", "", text)
    sentences = [letters(line.split("\t")[0]) for line in rebuild(edits_path, snippets)[1].decode().splitlines()[1:]]
    used, joined = {snippet for _, snippet, _, _ in read_edits(edits_path)[1]}, "\n".join(sentences)
    apart = lambda text: text and text not in joined and not any(sentence in text for sentence in sentences)
    rows = [text for i, text in enumerate(snippets) if i not in used and apart(letters(text))]
    return "\n".join(["sentence", *dict.fromkeys(rows), ""]).encode()


def main():
    parser = cli.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    script = commands.add_parser("rebuild", help="make the TSV of an edit script")
    others = commands.add_parser("rest", help="the snippets that an edit script does not use, without labels")
    for command in (script, others):
        command.add_argument("edits", help="such as data/dev.edits")
        command.add_argument("--archive", required=True, help="vaderSentiment-3.3.2.tar.gz (tools/source/fetch.py)")
    take = commands.add_parser("take", help="take texts of your own, checked")
    take.add_argument("path", nargs="?", help="a TSV with the task's columns")
    take.add_argument("--task", default=tasks.DEFAULT, help="what is asked (tools/base/tasks.py, %(default)s)")
    take.add_argument("--borrow", help="SST-2's sentences, to check a graph alone; a pair is one and the next")
    for command in (script, others, take):
        command.add_argument("--save_path", required=True, help="the file to write")
    args = parser.parse_args()
    if args.command == "rebuild":
        sha256, text = rebuild(args.edits, read_snippets(args.archive))
        if (digest := hashlib.sha256(text).hexdigest()) != sha256:
            fault = f"sha256 is {digest}, must be {sha256}; {args.save_path} is left as it was"
            raise cli.UserError(f"{args.edits} with {args.archive}: {fault}")
        cli.write(args.save_path, text)
    elif args.command == "rest":
        cli.write(args.save_path, unused_snippets(args.edits, read_snippets(args.archive)))
    elif args.borrow:
        texts, task = read_texts(args.borrow), tasks.by_name(args.task)
        pairs = zip(texts, texts[1:] + texts[:1], strict=True) if task.pair else ((text,) for text in texts)
        cli.write(args.save_path, "".join("\t".join(row) + "\n" for row in (task.text[0], *pairs)).encode())
    elif args.path:
        read_texts(args.path, tasks.by_name(args.task))  # labels are read where they count
        cli.write(args.save_path, Path(args.path).read_bytes())
    else:
        fault = "no texts for it are here; give DATA=, a TSV with its columns and labels"
        raise cli.UserError(f"TASK {args.task}: {fault}")
    print(f"wrote {args.save_path} (sha256 {cli.sha256(args.save_path)})")


if __name__ == "__main__":
    cli.run(main)
