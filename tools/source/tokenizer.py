"""The tokenizer of a checkpoint folder: transformers' own reading of its files, saved once as tokenizer.json.

    python3 -m tools.source.tokenizer /data/mine

    tokenizer: equal: ids of 16 hard sentences as BertTokenizer of transformers gives them

Any folder that AutoTokenizer reads without code of the folder's own will do: tokenizer.json, vocab.txt, vocab.json with
merges.txt, or a sentencepiece model. Who has the saved tokenizer.json needs tokenizers alone. Files that may be anybody's
are tried first (`try_out`) by this command in a process of bounded memory and time.
"""

import json
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tools.make import cli

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model")
FILES = (*VOCABULARIES, "merges.txt", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NAMED = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
# tokenizer_config.json's names of what BERT's normaliser does, its own names, and BERT's defaults.
FLAGS = {
    "do_lower_case": ("lowercase", True),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
    "strip_accents": ("strip_accents", None),
}
# Of the process of `try_out`: bytes of memory, seconds of processor time, and no core dump.
LIMITS = {resource.RLIMIT_DATA: 4 << 30, resource.RLIMIT_CPU: 60, resource.RLIMIT_CORE: 0}
# Sentences of our own that tokenizers are known to disagree on.
HARD = [
    "Café naïve Ångström résumé cafe\u0301 İstanbul Straße",
    "这是一部好电影 映画 영화 ชอบมาก",
    "great 😀 movie 👩‍👩‍👧 ❤️",
    "tab\there\tand\nnewline\r\nend",
    "nul\x00 zero\u200bwidth\u00a0space \ufffd bell\x07 \u2028 line",
    "“Quoted” ‘text’ it's \"plain\" 'single' «guillemets» — dash… $3.99 50%",
    "HOPE e-mail@example.com #1 @user http://t.co/x [unused1]",
    "[UNK] [MASK] [SEP] [CLS] [PAD]",
    "[sep] [ MASK ] <s>a</s> <mask>b",
    "x" * 100,
    "x" * 101,
    "word " * 600,
    "",
]
PAIRS = [(HARD[0], HARD[5]), (HARD[-2], HARD[6]), ("a film", HARD[-2])]
OWN = "take the checkpoint's own files"


def find_file(folder, name):
    """The path of file `name` in a checkpoint folder, or in the clone around a checkpoint-* folder; None if neither."""
    folder = Path(folder)
    folders = [folder, folder.absolute().parent] if folder.name.startswith("checkpoint-") else [folder]
    return cli.first_file(f / name for f in folders)


def files(folder):
    """{name: path} of the tokenizer's files of a checkpoint folder. UserError where none holds a vocabulary."""
    paths = {name: path for name in FILES if (path := find_file(folder, name))}
    if not paths.keys() & set(VOCABULARIES):
        raise cli.UserError(f"{folder}: no tokenizer.json or vocab.txt, {', '.join(VOCABULARIES[2:])}; {OWN}")
    for name, path in paths.items():
        cli.refuse_pointer(path)
        read_vocab(path) if name == "vocab.txt" else cli.regular(path, cli.LARGEST)
    return paths


def settings_of(paths):
    """What tokenizer_config.json says, {} without one."""
    return cli.read_json(paths["tokenizer_config.json"]) if "tokenizer_config.json" in paths else {}


def read_vocab(path):
    """The word pieces of a vocab.txt, one a line, id = line number. UserError on a file that is none."""
    try:
        text = cli.regular(path, cli.LARGEST).read_text("utf-8")
    except UnicodeDecodeError as e:
        raise cli.UserError(f"{path}: not UTF-8 at byte {e.start}; {OWN}") from e
    return text.removesuffix("\n").split("\n")


def content(token):
    """The text of a token that a file spells as text or as an object."""
    return token.get("content") if isinstance(token, dict) else token


@contextmanager
def refuse_damaged(what):
    """Turn whatever fails in the block into one UserError about `what`. Each class of tokenizer raises errors of its own
    kind, and a panic in Rust is no Exception."""
    try:
        yield
    except (cli.UserError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as e:
        reason = " ".join(str(e).split())[:200] or type(e).__name__
        raise cli.UserError(f"{what}: not a tokenizer ({reason}); {OWN}") from e


def load_reader(folder):
    """transformers' own fast tokenizer of a checkpoint folder's files, without code of the folder; UserError where it cannot
    read them, or `fault_of` names a fault."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    paths = files(folder)
    config = next((cli.read_json(p) for n in ("config.json", "bert_config.json") if (p := find_file(folder, n))), {})
    kind = config.get("model_type", "bert")  # the original TinyBERT's says none
    with tempfile.TemporaryDirectory() as box, refuse_damaged(folder):
        for name, path in paths.items():
            Path(box, name).write_bytes(path.read_bytes())
        Path(box, "config.json").write_text(json.dumps(config | {"model_type": "bert" if kind == "tinybert" else kind}))
        reader = AutoTokenizer.from_pretrained(box, local_files_only=True, trust_remote_code=False)
    backend = getattr(reader, "backend_tokenizer", None)
    if fault := fault_of(reader, backend, paths):
        raise cli.UserError(f"{folder}: {fault}; {OWN}")
    backend.no_padding()
    backend.no_truncation()
    return reader


def fault_of(reader, backend, paths):
    """Why a tokenizer of transformers cannot be used here; None where it can."""
    name, special = type(reader).__name__, special_tokens(reader)
    if backend is None:
        return f"{name} is Python code, which no tokenizer.json can say"
    if "pad_token" not in special:
        return "tokenizer_config.json: no padding token"
    pieces = backend.get_vocab(with_added_tokens="tokenizer.json" in paths or "vocab.txt" not in paths)
    if missing := [token for token in special.values() if token not in pieces]:
        return f"vocab.txt: no line {missing[0]}"
    if pieces.keys() <= set(special.values()):  # transformers makes up an empty one where its class finds no file
        return f"no vocabulary of {name} there, which config.json and the files name"
    added = {content(token): int(i) for i, token in settings_of(paths).get("added_tokens_decoder", {}).items()}
    if not added and "added_tokens.json" in paths:
        added = cli.read_json(paths["added_tokens.json"])
    wrong = [token for token, number in added.items() if backend.token_to_id(token) != number]
    return f"added_tokens.json: {wrong[0]!r} has another id than the file says" if wrong else None


def special_tokens(reader):
    """{pad_token: "[PAD]", ...}: what a tokenizer of transformers has of NAMED."""
    return {role: str(token) for role in NAMED if (token := getattr(reader, role)) is not None}


def flags_of(tokenizer) -> dict:
    """{key of FLAGS: value} of BERT's normaliser; {} of a tokenizer that has another."""
    normaliser = tokenizer.normalizer
    bert = type(normaliser).__name__ == "BertNormalizer"
    return {flag: getattr(normaliser, name) for flag, (name, _) in FLAGS.items()} if bert else {}


def set_flags(tokenizer, settings) -> None:
    """Let BERT's normaliser do what tokenizer_config.json's keys say."""
    normaliser = tokenizer.normalizer
    for flag in flags_of(tokenizer).keys() & settings.keys():
        setattr(normaliser, FLAGS[flag][0], settings[flag])
    tokenizer.normalizer = normaliser


def convert(folder, length=512):
    """(tokenizer, keys of tokenizer_config.json, lines for the screen) of any checkpoint folder, as transformers reads it.

    Raises UserError where transformers cannot read it, or gives other ids than a tokenizer.json of WordPiece.
    """
    from tokenizers import Tokenizer

    reader, paths, lines = load_reader(folder), files(folder), []
    backend, name = reader.backend_tokenizer, type(reader).__name__
    tokenizer, flags = Tokenizer.from_str(backend.to_str()), flags_of(backend)
    # Named by its own class, another tokenizer than BERT's would be built again, from keys of that class.
    settings = special_tokens(reader) | flags | {"tokenizer_class": name if flags else "PreTrainedTokenizerFast"}
    settings |= {"truncation_side": reader.truncation_side} if reader.truncation_side != "right" else {}
    settings |= {"model_max_length": reader.model_max_length} if 3 <= reader.model_max_length < 1 << 30 else {}
    if "tokenizer.json" in paths:
        stands = from_file(paths["tokenizer.json"])
        set_flags(stands, settings)
        if difference := first_difference(prepare(stands, settings, folder), reader, folder, [*HARD, *PAIRS], length):
            fault = f"tokenizer.json gives other ids than {name} of transformers, as of {str(difference[0])[:40]!r}"
            if flags:
                advice = "tokenizer_config.json disagrees; save both by save_pretrained()"
                raise cli.UserError(f"{folder}: {fault}; {advice}")
            lines.append(f"tokenizer: {fault}; those of transformers are taken")
    if flags and "do_lower_case" not in settings_of(paths):
        lower = str(settings["do_lower_case"]).lower()
        lines.append(f"tokenizer: no file says do_lower_case; transformers' own default for such a folder is {lower}")
    prepare(tokenizer, settings, folder)
    return tokenizer, settings, "\n".join([*lines, compare_ids(tokenizer, folder, [], length, reader)])


def try_out(folder):
    """Run `convert` of a folder in a process of its own, within LIMITS; UserError where it fails there."""

    def limit():
        for kind, most in LIMITS.items():
            resource.setrlimit(kind, (most, most))

    command = [sys.executable, "-m", "tools.source.tokenizer", str(Path(folder).absolute())]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, cwd=cli.ROOT, check=False)  # noqa: PLW1509
    if done.returncode == 1 and " error: " in done.stderr:
        raise cli.UserError(done.stderr.strip().splitlines()[-1].partition(" error: ")[2])
    if done.returncode:
        most = f"{LIMITS[resource.RLIMIT_DATA] >> 20} MiB or {LIMITS[resource.RLIMIT_CPU]} s"
        fault = f"its tokenizer takes more than {most}, or is damaged ({cli.ending_of(done.returncode)})"
        raise cli.UserError(f"{folder}: {fault}; {OWN}")


def from_file(path):
    """The tokenizer of a tokenizer.json as it stands; UserError where it is none."""
    from tokenizers import Tokenizer

    with refuse_damaged(path):
        return Tokenizer.from_file(str(path))


def prepare(tokenizer, settings, folder):
    """Set a tokenizer's padding token and the end that is cut, as tokenizer_config.json says, and return it; UserError where
    it has no such token."""
    pad = content(settings.get("pad_token")) or PAD
    if (number := tokenizer.token_to_id(pad)) is None:
        raise cli.UserError(f"{folder}: not a tokenizer with tokenizer_config.json's padding token, {pad}; {OWN}")
    tokenizer.enable_padding(pad_id=number, pad_token=pad)
    tokenizer.enable_truncation(512, direction=settings.get("truncation_side", "right"))
    return tokenizer


def load(folder):
    """The tokenizer (tokenizers.Tokenizer) of a checkpoint folder; `padding` and `truncation` say which token and side.

    tokenizer.json as it stands; converted where there is none, or tokenizer_config.json says otherwise.
    """
    paths = files(folder)
    if path := paths.get("tokenizer.json"):
        tokenizer, settings = from_file(path), settings_of(paths)
        pad, flags = content(settings.get("pad_token")) or PAD, flags_of(tokenizer)
        present = isinstance(pad, str) and tokenizer.token_to_id(pad) is not None
        if present and all(settings.get(flag, value) == value for flag, value in flags.items()):
            return prepare(tokenizer, settings, folder)
    return convert(folder)[0]


def config_like(path, settings):
    """The bytes of a model's tokenizer_config.json, with a checkpoint's `settings` where they differ."""
    ours, usual = cli.read_json(path), NAMED | {flag: default for flag, (_, default) in FLAGS.items()}
    other = {key: value for key, value in settings.items() if value != content(ours.get(key, usual.get(key)))}
    return (json.dumps(ours | other, indent=2) + "\n").encode() if other else path.read_bytes()


def text_of(tokenizer):
    """The bytes of tokenizer.json, without the length of rows and their padding: the caller sets these."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain.to_str(pretty=True).encode()


def encodings(tokenizer, texts, length, padding=None, where="tokenizer.json"):
    """What the tokenizer makes of each text or pair, cut to `length` and filled up as `padding` says; UserError where one
    is too much for it."""
    padded = tokenizer.padding
    tokenizer.enable_padding(**padding) if padding else tokenizer.no_padding()
    tokenizer.enable_truncation(length, direction=tokenizer.truncation["direction"])
    with refuse_damaged(where):
        rows = tokenizer.encode_batch(list(texts))
    if padded:
        tokenizer.enable_padding(**padded)
    return rows


def first_difference(tokenizer, reader, folder, texts, length):
    """(text, our encoding, transformers' ids) of the first text of which the two make other ids or types; None without."""
    how = {"truncation": True, "max_length": length, "return_token_type_ids": True}
    with refuse_damaged(folder):
        for text, row in zip(texts, encodings(tokenizer, texts, length, where=folder), strict=True):
            call = reader(text, **how) if isinstance(text, str) else reader(*text, **how)
            if row.ids != call["input_ids"] or row.type_ids != call["token_type_ids"]:
                return text, row, call["input_ids"]
    return None


def compare_ids(tokenizer, folder, texts, length, reader=None):
    """The gate's line; UserError where transformers' tokenizer of the folder (`reader`, where it was read) gives another id
    for one of the texts, HARD or PAIRS."""
    reader = reader or load_reader(folder)
    if (pad := tokenizer.padding["pad_id"]) != reader.pad_token_id:
        raise cli.UserError(f"{folder}: the padding token is {pad} here, {reader.pad_token_id} in transformers")
    if difference := first_difference(tokenizer, reader, folder, [*texts, *HARD, *PAIRS], length):
        text, row, ids = difference
        both = f"{row.tokens[:12]} here, {[tokenizer.id_to_token(i) for i in ids[:12]]} in transformers"
        advice = "tokenizer.json and tokenizer_config.json disagree; save it again with save_pretrained()"
        raise cli.UserError(f"{folder}: {str(text)[:40]!r} becomes {both}; {advice}")
    count = len(HARD) + len(PAIRS)
    which = f"{len(texts)} sentences and {count} hard ones" if texts else f"{count} hard sentences"
    return f"tokenizer: equal: ids of {which} as {type(reader).__name__} of transformers gives them"


def main():
    p = cli.parser(__doc__)
    p.add_argument("folder", help="a checkpoint's")
    print(convert(p.parse_args().folder)[2])


if __name__ == "__main__":
    cli.run(main)
