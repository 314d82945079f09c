"""The tokenizer of a checkpoint folder: transformers' own reading of its files, saved once as tokenizer.json.

    from tools.source import tokenizer
    made, said, line = tokenizer.convert("/data/mine")         # tokenizers.Tokenizer, keys of tokenizer_config.json
    tokenizer.hold(made, folder, sentences, 128)
    'tokenizer: equal: ids of 872 sentences and 16 hard ones as BertTokenizer of transformers gives them'

Any folder that AutoTokenizer reads without code of the folder's own will do: tokenizer.json, vocab.txt, vocab.json with
merges.txt, or a sentencepiece model. The files may be anybody's, so a child process of bounded memory and time reads
them first. Who has the saved tokenizer.json needs tokenizers alone.
"""

import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
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
LIMITS = (4 << 30, 30)  # of the child: bytes, and seconds of its processor, to which each hundred texts adds one
# Of our own: what tokenizers are known to disagree on.
HARD = [
    "Café naïve Ångström résumé cafe\u0301 İstanbul Straße",
    "这是一部好电影 映画 영화 ชอบมาก",
    "great 😀 movie 👩‍👩‍👧 ❤️",
    "tab\there\tand\nnewline\r\nend",
    "nul\x00 zero\u200bwidth\u00a0space \ufffd bell\x07 \u2028 line",
    "“Quoted” ‘text’ it's \"plain\" 'single' «guillemets» — dash… $3.99 50%",
    "HOPE e-mail@example.com #1 @user http://t.co/x [unused1]",
    "[UNK] [MASK] [SEP] [CLS] [PAD]",
    "[sep] [ MASK ]",
    "x" * 100,
    "x" * 101,
    "word " * 600,
    "",
]
PAIRS = [(HARD[0], HARD[5]), (HARD[-2], HARD[6]), ("a film", HARD[-2])]
OWN = "take the checkpoint's own files"


def near(folder, name):
    """The path of file `name` in a checkpoint folder, or in the clone around a checkpoint-* folder; None if neither."""
    folder = Path(folder)
    folders = [folder, folder.absolute().parent] if folder.name.startswith("checkpoint-") else [folder]
    return next((f / name for f in folders if (f / name).is_file()), None)


def files(folder):
    """{name: path} of the tokenizer's files of a checkpoint folder. UserError where none holds a vocabulary."""
    found = {name: path for name in FILES if (path := near(folder, name))}
    if not found.keys() & set(VOCABULARIES):
        raise cli.UserError(f"{folder}: no tokenizer.json or vocab.txt, {', '.join(VOCABULARIES[2:])}; {OWN}")
    for name, path in found.items():
        cli.refuse_pointer(path)
        read_vocab(path) if name == "vocab.txt" else cli.regular(path, cli.LARGEST)
    return found


def config(found):
    """What tokenizer_config.json says, {} without one."""
    return cli.read_json(found["tokenizer_config.json"]) if "tokenizer_config.json" in found else {}


def read_vocab(path):
    """The word pieces of a vocab.txt, one a line, id = line number. UserError on a file that is none."""
    try:
        text = cli.regular(path, cli.LARGEST).read_text("utf-8")
    except UnicodeDecodeError as e:
        raise cli.UserError(f"{path}: not UTF-8 at byte {e.start}; {OWN}") from e
    return text.removesuffix("\n").split("\n")


def build(pieces, lowercase=True):
    """BERT's tokenizer (tokenizers.Tokenizer) over a list of word pieces, as transformers' BertTokenizer builds it."""
    from tokenizers import BertWordPieceTokenizer, Tokenizer, processors

    ids = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer.from_str(BertWordPieceTokenizer(ids, lowercase=lowercase).to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(token, ids[token]) for token in (CLS, SEP)],
    )
    return tokenizer


def content(token):
    """The text of a token that a file spells as text or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def asked(folder, texts=(), length=512, plain=False):
    """The child's `answer` about the files of a checkpoint folder; UserError for its refusal, or for its end."""
    with tempfile.TemporaryDirectory() as box:
        for name, path in files(folder).items():
            Path(box, name).write_bytes(path.read_bytes())
        said = next((cli.read_json(p) for n in ("config.json", "bert_config.json") if (p := near(folder, n))), {})
        kind = said.get("model_type", "bert")  # the original TinyBERT's says none
        Path(box, "config.json").write_text(json.dumps(said | {"model_type": "bert" if kind == "tinybert" else kind}))
        told = in_child({"folder": box, "texts": texts, "length": length, "plain": plain})
    if "fault" in told:
        raise cli.UserError(f"{folder}: {told['fault']}; {OWN}")
    return told


def in_child(request) -> dict:
    """`tried` of a request in a process of its own, within LIMITS; {"fault"} where it did not come to its end."""
    code = f"import sys; sys.path.insert(0, {str(cli.ROOT)!r}); from tools.source import tokenizer; tokenizer.child()"
    memory, seconds = LIMITS[0], LIMITS[1] + len(request["texts"]) // 100
    text = json.dumps({"limits": (memory, seconds), "request": request})
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=False)
    if not done.returncode:
        return json.loads(done.stdout)
    most = f"{memory >> 20} MiB or {seconds} s"
    return {"fault": f"its tokenizer takes more than {most}, or is damaged ({cli.ending(done.returncode)})"}


def child() -> None:
    """Answer the request of standard input on standard output; `in_child` runs it."""
    given = json.load(sys.stdin)
    memory, seconds = given["limits"]
    for kind, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *a: None if name == "torch" else find(name, *a)  # half of the time
    print(json.dumps(tried(given["request"])))


def tried(request) -> dict:
    """`answer`, or {"fault": a line} where it fails in any way."""
    try:
        return answer(**request)
    except cli.UserError as e:
        return {"fault": str(e)}
    except BaseException as e:  # each class of transformers raises its own, and a panic of Rust is no Exception
        return {"fault": f"not a tokenizer ({' '.join(str(e).split())[:200] or type(e).__name__})"}


def answer(folder, texts, length, plain):
    """What transformers' tokenizer of a folder makes of texts and of HARD and PAIRS, cut to `length`, and what it is.

    Raises UserError where it has no padding token.

    {class, said: keys of tokenizer_config.json, json: tokenizer.json's text, pad_id, ids, types, other: the first text
    of which tokenizer.json as it stands gives other ids}. plain: without transformers, {} where tokenizer.json bears HARD.
    """
    from tokenizers import Tokenizer

    texts = [t if isinstance(t, str) else tuple(t) for t in [*texts, *HARD, *PAIRS]]
    path, stands = Path(folder, "tokenizer.json"), None
    if path.is_file():
        try:
            stands = Tokenizer.from_file(str(path))
            # What its own replacements look for is what they may be slow on.
            looked_for = json.dumps(json.loads(path.read_text("utf-8")).get("normalizer"), ensure_ascii=False)[:4096]
            stands.encode_batch([*HARD, *PAIRS, looked_for])
        except BaseException as e:
            raise cli.UserError(f"tokenizer.json: not a tokenizer ({e})") from None
    if plain:
        return {}
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    reader = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    name, backend = type(reader).__name__, getattr(reader, "backend_tokenizer", None)
    if backend is None:
        raise cli.UserError(f"{name} is Python code, which no tokenizer.json can say")
    backend.no_padding()
    backend.no_truncation()
    said = {role: str(token) for role in NAMED if (token := getattr(reader, role)) is not None}
    refuse_ids(folder, backend, name, said, stands)
    # Another class than BERT's would build its tokenizer again, from keys of its own.
    said |= flags_of(backend)
    said["tokenizer_class"] = name if flags_of(backend) else "PreTrainedTokenizerFast"
    said |= {"truncation_side": reader.truncation_side} if reader.truncation_side != "right" else {}
    said |= {"model_max_length": reader.model_max_length} if reader.model_max_length < 1 << 30 else {}
    how = {"truncation": True, "max_length": length, "return_token_type_ids": True}
    calls = [reader(t, **how) if isinstance(t, str) else reader(*t, **how) for t in texts]
    ids, other = [call["input_ids"] for call in calls], None
    if stands:
        set_flags(stands, said)
        stands.no_padding()
        stands.enable_truncation(length, direction=reader.truncation_side)
        rows = stands.encode_batch(texts)
        other = next((str(t) for t, row, want in zip(texts, rows, ids, strict=True) if row.ids != want), None)
    types = [call["token_type_ids"] for call in calls]
    told = {"class": name, "said": said, "json": backend.to_str(), "pad_id": reader.pad_token_id}
    return told | {"ids": ids, "types": types, "other": other}


def refuse_ids(folder, backend, name, said, stands) -> None:
    """UserError where a special token is in no vocabulary, or an added token has another id than its file says."""
    if "pad_token" not in said:
        raise cli.UserError("tokenizer_config.json: no padding token")
    found = files(folder)
    pieces = backend.get_vocab(with_added_tokens=bool(stands) or "vocab.txt" not in found)
    if missing := [token for token in said.values() if token not in pieces]:
        raise cli.UserError(f"vocab.txt: no line {missing[0]}")
    if pieces.keys() <= set(said.values()):  # transformers makes up an empty one where its class finds no file
        raise cli.UserError(f"no vocabulary of {name} there, which config.json and the files name")
    added = {content(token): int(i) for i, token in config(found).get("added_tokens_decoder", {}).items()}
    if not added and "added_tokens.json" in found:
        added = cli.read_json(found["added_tokens.json"])
    for token, number in added.items():
        if (have := backend.token_to_id(token)) != number:
            raise cli.UserError(f"added_tokens.json: {token!r} gets the id {have}, the checkpoint says {number}")


def flags_of(tokenizer) -> dict:
    """{key of FLAGS: value} of BERT's normaliser; {} of a tokenizer that has another."""
    normaliser = tokenizer.normalizer
    bert = type(normaliser).__name__ == "BertNormalizer"
    return {flag: getattr(normaliser, name) for flag, (name, _) in FLAGS.items()} if bert else {}


def set_flags(tokenizer, said) -> None:
    """Let BERT's normaliser do what tokenizer_config.json's keys say."""
    normaliser = tokenizer.normalizer
    for flag in flags_of(tokenizer).keys() & said.keys():
        setattr(normaliser, FLAGS[flag][0], said[flag])
    tokenizer.normalizer = normaliser


def convert(folder, length=512):
    """(tokenizer, tokenizer_config.json's keys, what to say of it) of any checkpoint folder, as transformers reads it.

    Raises UserError where transformers does not, or makes other ids of WordPiece than tokenizer.json itself.
    """
    from tokenizers import Tokenizer

    told = asked(folder, length=length)
    lines, said = [], told["said"]
    if told["other"] is not None:
        fault = f"tokenizer.json gives other ids than {told['class']} of transformers, as of {told['other'][:40]!r}"
        if "do_lower_case" in said:
            raise cli.UserError(f"{folder}: {fault}; tokenizer_config.json disagrees; save both by save_pretrained()")
        lines.append(f"tokenizer: {fault}; those of transformers are taken")
    if "do_lower_case" in said and "do_lower_case" not in config(files(folder)):
        lower = str(said["do_lower_case"]).lower()
        lines.append(f"tokenizer: no file says do_lower_case; transformers' own default for such a folder is {lower}")
    tokenizer = ready(Tokenizer.from_str(told["json"]), said)
    return tokenizer, said, "\n".join([*lines, compared(tokenizer, folder, [], length, told)])


def ready(tokenizer, said):
    """A tokenizer that knows its padding token and which end is cut, as tokenizer_config.json's keys say."""
    pad = content(said.get("pad_token")) or PAD
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    tokenizer.enable_truncation(512, direction=said.get("truncation_side", "right"))
    return tokenizer


def load(folder):
    """The tokenizer (tokenizers.Tokenizer) of a checkpoint folder; `padding` and `truncation` say which token and side.

    tokenizer.json as it stands, after a child has tried it; converted where there is none, or tokenizer_config.json
    says otherwise. Raises UserError when the folder holds no vocabulary, or a broken one.
    """
    from tokenizers import Tokenizer

    found = files(folder)
    if path := found.get("tokenizer.json"):
        asked(folder, plain=True)
        tokenizer, said = Tokenizer.from_file(str(path)), config(found)
        pad, flags = content(said.get("pad_token")) or PAD, flags_of(tokenizer)
        known = isinstance(pad, str) and tokenizer.token_to_id(pad) is not None
        if known and all(said.get(flag, value) == value for flag, value in flags.items()):
            return ready(tokenizer, said)
    return convert(folder)[0]


def config_like(path, said):
    """The bytes of a model's tokenizer_config.json; where a checkpoint `said` otherwise, with what it says."""
    ours, usual = cli.read_json(path), NAMED | {flag: default for flag, (_, default) in FLAGS.items()}
    other = {key: value for key, value in said.items() if value != content(ours.get(key, usual.get(key)))}
    return (json.dumps(ours | other, indent=2) + "\n").encode() if other else path.read_bytes()


def text_of(tokenizer):
    """The bytes of tokenizer.json: how long rows are and how they are filled up is the caller's, not the file's."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain.to_str(pretty=True).encode()


def hold(tokenizer, folder, texts, seq_len):
    """The gate's line; UserError where transformers' tokenizer of the folder gives another id for any text.

    texts: sentences, or pairs of them; those of HARD are held to as well.
    """
    return compared(tokenizer, folder, texts, seq_len, asked(folder, texts, seq_len))


def compared(tokenizer, folder, texts, length, told):
    """The line of `hold`, by the child's answer about texts, HARD and PAIRS. Raises UserError where the two differ."""
    if (pad := tokenizer.padding["pad_id"]) != told["pad_id"]:
        raise cli.UserError(f"{folder}: the padding token is {pad} here, {told['pad_id']} in transformers")
    kept, given = tokenizer.padding, [*texts, *HARD, *PAIRS]
    tokenizer.no_padding()
    tokenizer.enable_truncation(length, direction=tokenizer.truncation["direction"])
    have = tokenizer.encode_batch(given)
    tokenizer.enable_padding(**kept)
    for text, row, ids, types in zip(given, have, told["ids"], told["types"], strict=True):
        if row.ids != ids or row.type_ids != types:
            shown = f"{row.tokens[:12]} here, {[tokenizer.id_to_token(i) for i in ids[:12]]} in transformers"
            raise cli.UserError(
                f"{folder}: {str(text)[:40]!r} becomes {shown}; tokenizer.json and tokenizer_config.json disagree,"
                " or this tokenizer is not read here; save it again with save_pretrained()"
            )
    count = len(HARD) + len(PAIRS)
    which = f"{len(texts)} sentences and {count} hard ones" if texts else f"{count} hard sentences"
    return f"tokenizer: equal: ids of {which} as {told['class']} of transformers gives them"
