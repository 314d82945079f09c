"""The tokenizer of a checkpoint folder, as its own files say, and the gate that holds it to transformers' reading of them.

    from tools.source import tokenizer
    made = tokenizer.load("build/minilm_sst2/default/checkpoint")       # tokenizers.Tokenizer
    tokenizer.hold(made, folder, sentences, 128)
    'tokenizer: equal: ids of 872 sentences and 16 hard ones as BertTokenizer of transformers gives them'

tokenizer.json is taken as it stands. Without one, the tokenizer is built from vocab.txt, tokenizer_config.json,
added_tokens.json and special_tokens_map.json as transformers' BertTokenizer builds it. What no file says is said by the
caller (`lower_case`, the model folder's). loading needs tokenizers alone; the gate needs transformers.
"""

import io
import json
import tempfile
from pathlib import Path

from tools.make import cli

FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NAMED = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
# tokenizer_config.json's names of what BERT's normaliser does, its own names, and BERT's defaults.
FLAGS = {
    "do_lower_case": ("lowercase", True),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
    "strip_accents": ("strip_accents", None),
}
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


def near(folder, name):
    """The path of file `name` in a checkpoint folder, or in the clone around a checkpoint-* folder; None if neither."""
    folder = Path(folder)
    folders = [folder, folder.absolute().parent] if folder.name.startswith("checkpoint-") else [folder]
    return next((f / name for f in folders if (f / name).is_file()), None)


def files(folder):
    """{name: path} of the tokenizer's files of a checkpoint folder. UserError where none holds a vocabulary."""
    found = {name: path for name in FILES if (path := near(folder, name))}
    if not {"tokenizer.json", "vocab.txt"} & found.keys():
        raise cli.UserError(f"{folder}: no tokenizer.json or vocab.txt there; give the checkpoint's folder")
    for path in found.values():
        cli.refuse_pointer(path)
    return found


def read_vocab(path):
    """The word pieces of a vocab.txt, one a line, id = line number. UserError on a file that is none."""
    try:
        text = io.TextIOWrapper(io.BytesIO(cli.regular(path, cli.LARGEST).read_bytes()), "utf-8").read()
    except UnicodeDecodeError as e:
        raise cli.UserError(f"{path}: not UTF-8 at byte {e.start}; take the checkpoint's own file") from e
    return text.removesuffix("\n").split("\n")


def settings(found, lower_case=True):
    """What the files say of the tokenizer, as keys of tokenizer_config.json; lower_case where they are silent.

    special_tokens_map.json and added_tokens.json count where tokenizer_config.json has no `added_tokens_decoder`, as in
    transformers (tokenization_utils_base.py: _from_pretrained).
    """
    said = cli.read_json(found["tokenizer_config.json"]) if "tokenizer_config.json" in found else {}
    said = {"do_lower_case": lower_case} | said
    if "added_tokens_decoder" in said:
        return said
    if "special_tokens_map.json" in found:
        said |= cli.read_json(found["special_tokens_map.json"])
    special = {content(said.get(key)) for key in NAMED} | set(map(content, extra(said)))
    added = cli.read_json(found["added_tokens.json"]) if "added_tokens.json" in found else {}
    facts = lambda text: {"content": text, "normalized": text not in special, "special": text in special}
    return said | {"added_tokens_decoder": {str(i): facts(text) for text, i in added.items()}}


def content(token):
    """The text of a token that a file spells as text or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def extra(said):
    """Special tokens without a role."""
    given = said.get("extra_special_tokens") or said.get("additional_special_tokens") or []
    return list(given.values()) if isinstance(given, dict) else given


def load(folder, lower_case=True):
    """The tokenizer (tokenizers.Tokenizer) of a checkpoint folder; its `padding` and `truncation` say which token and side.

    `lower_case` counts only where the checkpoint is silent (as original TinyBERT is).
    Raises UserError when the folder holds no vocabulary, or a broken one.
    """
    from tokenizers import AddedToken, Tokenizer

    found = files(folder)
    said = settings(found, lower_case)
    names = {role: content(said.get(role)) or usual for role, usual in NAMED.items()}
    try:
        if path := found.get("tokenizer.json"):
            tokenizer = normalised(
                Tokenizer.from_file(str(cli.regular(path, cli.LARGEST))), said, "tokenizer_config.json" in found
            )
        else:
            path = found["vocab.txt"]
            pieces = read_vocab(path)
            if missing := [token for token in names.values() if token not in pieces]:
                raise cli.UserError(f"{path}: no line {missing[0]}; take the checkpoint's own file")
            flags = {ours: said.get(flag, usual) for flag, (ours, usual) in FLAGS.items()}
            tokenizer = build(pieces, names=names, **flags)
        added = [(int(i), AddedToken(**facts)) for i, facts in said["added_tokens_decoder"].items()]
        tokenizer.add_tokens([token for _, token in sorted(added, key=lambda pair: pair[0])])
        tokenizer.add_special_tokens([t for t in names.values() if tokenizer.token_to_id(t) is not None])
        tokenizer.add_special_tokens([AddedToken(**t) if isinstance(t, dict) else t for t in extra(said)])
    except cli.UserError:
        raise
    except Exception as e:  # the library raises bare Exception
        raise cli.UserError(f"{path}: not a tokenizer ({e}); take the checkpoint's own file") from e
    for number, token in added:
        if tokenizer.token_to_id(token.content) != number:
            have = tokenizer.token_to_id(token.content)
            raise cli.UserError(f"{path}: {token.content!r} gets the id {have}, the checkpoint says {number}; refused")
    if (pad := tokenizer.token_to_id(names["pad_token"])) is None:
        raise cli.UserError(f"{path}: no token {names['pad_token']}; take the checkpoint's own file")
    tokenizer.enable_padding(pad_id=pad, pad_token=names["pad_token"])
    tokenizer.enable_truncation(512, direction=said.get("truncation_side", "right"))
    tried(tokenizer, path)
    return tokenizer


def tried(tokenizer, path) -> None:
    """UserError where a first text fails: the library reads some files that contradict themselves, and panics later."""
    try:
        tokenizer.encode("a fine film")
    except BaseException as e:  # a panic of Rust is no Exception
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        raise cli.UserError(f"{path}: not a tokenizer ({e}); take the checkpoint's own file") from None


def config_like(path, folder):
    """The bytes of a model's tokenizer_config.json; where a checkpoint's own says otherwise, with what it says."""
    ours, theirs = cli.read_json(path), settings(files(folder), cli.read_json(path).get("do_lower_case", True))
    other = {}
    for key in (*FLAGS, *NAMED, "truncation_side", "model_max_length", "tokenizer_class"):
        usual = FLAGS[key][1] if key in FLAGS else NAMED.get(key)
        if key in theirs and content(theirs[key]) != content(ours.get(key, usual)):
            other[key] = content(theirs[key])
    if other.get("tokenizer_class") == "BertTokenizerFast":  # one class has both names
        del other["tokenizer_class"]
    return (json.dumps(ours | other, indent=2) + "\n").encode() if other else path.read_bytes()


def build(pieces, lowercase=True, handle_chinese_chars=True, strip_accents=None, names=NAMED):
    """BERT's WordPiece tokenizer (tokenizers.Tokenizer) over a list of word pieces.

    The steps are BERT's own: clean, split CJK, lower and strip accents if `lowercase`, split punctuation,
    longest piece first; a word of over 100 characters is [UNK].
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {piece: i for i, piece in enumerate(pieces)}
    first, last = names["cls_token"], names["sep_token"]
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=names["unk_token"], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, handle_chinese_chars=handle_chinese_chars, strip_accents=strip_accents
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(names.values()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(first, ids[first]), (last, ids[last])],
    )
    return tokenizer


def normalised(tokenizer, said, configured):
    """A tokenizer.json's tokenizer; where tokenizer_config.json is there and says a flag, that flag.

    transformers' BertTokenizer does so; its general class takes tokenizer.json as it stands.
    """
    from tokenizers import normalizers

    general = said.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
    if configured and not general and isinstance(normaliser := tokenizer.normalizer, normalizers.BertNormalizer):
        for flag, (ours, _) in FLAGS.items():
            setattr(normaliser, ours, said.get(flag, getattr(normaliser, ours)))
        tokenizer.normalizer = normaliser
    return tokenizer


def text_of(tokenizer):
    """The bytes of tokenizer.json: how long rows are and how they are filled up is the caller's, not the file's."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain.to_str(pretty=True).encode()


def hold(tokenizer, folder, texts, seq_len, lower_case=True):
    """The gate's line; UserError where transformers' tokenizer of the folder gives another id for any text.

    texts: sentences, or pairs of them; those of HARD are held to as well.
    """
    found = files(folder)
    theirs = transformers_reads(found, lower_case, folder)
    if (pad := tokenizer.padding["pad_id"]) != theirs.pad_token_id:
        raise cli.UserError(f"{folder}: the padding token is {pad} here, {theirs.pad_token_id} in transformers")
    tokenizer.enable_truncation(seq_len, direction=tokenizer.truncation["direction"])
    for group in (list(texts), HARD, PAIRS):
        if not group:
            continue
        first, second = (group, None) if isinstance(group[0], str) else map(list, zip(*group, strict=True))
        want = theirs(first, second, truncation=True, max_length=seq_len, return_token_type_ids=True)
        kept = tokenizer.padding
        tokenizer.no_padding()
        have = tokenizer.encode_batch(group)
        tokenizer.enable_padding(**kept)
        for text, row, ids, types in zip(group, have, want["input_ids"], want["token_type_ids"], strict=True):
            if row.ids != ids or row.type_ids != types:
                shown = f"{row.tokens[:12]} here, {theirs.convert_ids_to_tokens(ids)[:12]} in transformers"
                raise cli.UserError(
                    f"{folder}: {str(text)[:40]!r} becomes {shown}; tokenizer.json and tokenizer_config.json disagree,"
                    " or this tokenizer is not read here; save it again with save_pretrained()"
                )
    count = len(HARD) + len(PAIRS)
    which = f"{len(texts)} sentences and {count} hard ones" if texts else f"{count} hard sentences"
    return f"tokenizer: equal: ids of {which} as {type(theirs).__name__} of transformers gives them"


def transformers_reads(found, lower_case, folder):
    """transformers' tokenizer of the files {name: path}; no code of theirs runs, and nothing is fetched.

    Raises UserError where it refuses them.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as box:
        for name, path in found.items():
            Path(box, name).write_bytes(path.read_bytes())
        said = cli.read_json(found["tokenizer_config.json"]) if "tokenizer_config.json" in found else {}
        said = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower_case} | said
        Path(box, "tokenizer_config.json").write_text(json.dumps(said), "utf-8")
        try:
            return AutoTokenizer.from_pretrained(box, local_files_only=True, trust_remote_code=False)
        except Exception as e:  # each class raises its own
            reason = " ".join(str(e).split())[:150] or type(e).__name__
            raise cli.UserError(f"{folder}: transformers cannot read its tokenizer: {reason}; refused") from None
