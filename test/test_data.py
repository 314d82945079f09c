"""The sentences and the pinned files, from the real archive and over broken networks; lab/corpus.py has malformed ones."""

import base64
import csv
import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ROOT, lay, refused

from tools.make import cli
from tools.source import data, fetch

DEV_SHA256 = "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0"


def test_dev_is_the_official_file_and_the_rest_holds_no_sentence_of_it(dev, snippets):
    assert cli.sha256(dev) == DEV_SHA256
    sentences, labels = data.read_tsv(dev)
    assert (len(sentences), sum(labels)) == (872, 444)
    with dev.open(encoding="utf-8", newline="") as file:
        recipe = list(csv.reader(file, delimiter="\t", quotechar=None))[1:]
    assert recipe == [[s, str(y)] for s, y in zip(sentences, labels, strict=True)]
    others = data.unused_snippets(ROOT / "data/dev.edits", snippets).decode().splitlines()[1:]
    assert len(others) == len(set(others)) == 9517
    letters = lambda text: "".join(c for c in text if c.isalnum())
    joined = "\n".join(map(letters, others))
    assert not any(letters(sentence) in joined for sentence in sentences)


def test_edit_scripts_hold_no_word():
    for name in ("dev", "calibration"):
        path = ROOT / "data" / f"{name}.edits"
        assert path.stat().st_size < 20_000
        assert not any(c.isalpha() for line in path.read_text("utf-8").splitlines()[1:] for c in line)


def test_sentences_as_they_come(tmp_path):
    """Quotes, no last newline; where no label is needed a byte order mark, labels of -1 or none, any columns."""
    path = tmp_path / "test.tsv"
    path.write_bytes(b"sentence\tlabel\n" + 'a "quoted film\t1\n"another"\t0\nnaïve\u2028\x85 \t1'.encode())
    assert data.read_tsv(path) == (['a "quoted film', '"another"', "naïve\u2028\x85 "], [1, 0, 1])
    path.write_bytes(b"index\tsentence\n0\ta fine film\n1\tdull\n")
    assert data.read_tsv(path, labelled=False) == (["a fine film", "dull"], [None, None])
    path.write_bytes(b"\xef\xbb\xbflabel\tsentence\tidx\n-1\ta fine film\t0\n\tdull\t1\npositive\tgood\t2\n")
    assert data.read_tsv(path, labelled=False) == (["a fine film", "dull", "good"], [None, None, 1])
    refused("test.tsv:2: no label; an accuracy needs one", data.read_tsv, path)
    path.write_bytes(b"index\ttext\n0\ta fine film\n")
    refused("test.tsv:1: .*`sentence`", data.read_tsv, path, labelled=False)


BODY = bytes(range(256)) * 40
PIN = fetch.Pin(hashlib.sha256(BODY).hexdigest(), len(BODY), "some_thing-1.0.tar.gz", "Some_Thing", "1.0")


class Server:
    """A package index on the loopback device whose faults a test sets: .cuts say where answers break off."""

    def __init__(self):
        self.body, self.cuts, self.listed, self.ranges = BODY, [], True, True
        self.status = self.stalls = None  # an error for all; bytes after which nothing comes
        self.asked, self.logins = [], []
        state = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                state.asked.append((self.path, self.headers.get("Range")))
                state.logins.append(self.headers.get("Authorization"))
                if state.status:
                    return self.send_error(state.status)
                if self.path == "/simple/some-thing/":
                    name = PIN.filename if state.listed else "other-1.0.tar.gz"
                    body, start = f'<a href="../../files/{name}#sha256=1">x</a>'.encode(), 0
                elif self.path == f"/files/{PIN.filename}":
                    start = int((self.headers.get("Range") or "=0-").strip("bytes=-")) if state.ranges else 0
                    body = state.body
                else:
                    return self.send_error(404)
                self.send_response(206 if start else 200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                cut = state.cuts.pop(0) if body is state.body and state.cuts else None
                self.wfile.write(body[start : state.stalls if body is state.body and state.stalls else cut])
                if body is state.body and state.stalls:
                    state.released.wait(1)
                return None

        self.released = threading.Event()
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.httpd.server_port}"
        self.index = f"http://{self.host}/simple"
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    server = Server()
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server.index)
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    yield server
    server.released.set()
    server.httpd.shutdown()
    server.httpd.server_close()


def test_fetch(server, tmp_path):
    path = tmp_path / "new" / PIN.filename
    server.cuts = [1, 2, 3, 4, None]  # each break brought something, so it goes on
    assert fetch.fetch(PIN, path) is True and path.read_bytes() == BODY
    asked = len(server.asked)
    assert fetch.fetch(PIN, path) is False and len(server.asked) == asked


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("cut", [0, 1, 5000, len(BODY) - 1])
def test_a_cut_download_goes_on_or_is_given_up(server, tmp_path, cut, ranges):
    server.ranges, server.cuts = ranges, [cut, None]
    assert fetch.fetch(PIN, tmp_path / PIN.filename)
    assert (tmp_path / PIN.filename).read_bytes() == BODY
    assert [r for p, r in server.asked[1:]] == [None, f"bytes={cut}-" if cut else None]
    (tmp_path / PIN.filename).unlink()
    if ranges:
        server.cuts = [cut] * 9
        says = f"{cut} of {len(BODY)} bytes came: .*; try again.*{PIN.sha256}"
        refused(says, fetch.fetch, PIN, tmp_path / PIN.filename)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fault", "says"), [
    ({"status": 500}, "Internal Server Error"), ({"stalls": 5000}, "5000 of 10240 bytes came: .*timed out"),
])  # fmt: skip
def test_a_server_that_fails_or_stalls(server, monkeypatch, tmp_path, fault, says):
    monkeypatch.setattr(fetch, "pip_settings", lambda command: {"index-url": server.index, "timeout": "0.2"})
    vars(server).update(fault)
    refused(f"{says}.*; try again", fetch.fetch, PIN, tmp_path / PIN.filename)
    assert list(tmp_path.iterdir()) == []
    server.status = server.stalls = None
    assert fetch.fetch(PIN, tmp_path / PIN.filename)


@pytest.mark.parametrize("body", [BODY[:-1] + b"x", BODY + b"more", b"<html>log in</html>"])
def test_other_bytes_are_refused(server, tmp_path, body):
    server.body = body
    path = tmp_path / PIN.filename
    path.write_bytes(b"old")
    if body.startswith(BODY):  # only the pinned length is taken, and that is right
        assert fetch.fetch(PIN, path)
        return
    refused(PIN.filename, fetch.fetch, PIN, path)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_no_index_lists_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    refused("127.0.0.1:1/simple/some-thing/: .*refused", fetch.fetch, PIN, tmp_path / PIN.filename)
    monkeypatch.setenv("PIP_INDEX_URL", server.index)
    server.listed = False
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://{server.host}/elsewhere")
    refused("does not list it; .*elsewhere/some-thing/: Not Found; try", fetch.fetch, PIN, tmp_path / PIN.filename)
    assert list(tmp_path.iterdir()) == []


def test_pip_settings_login_proxy_and_an_index_in_a_folder(server, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_INDEX_URL")
    conf = tmp_path / "pip.conf"
    conf.write_text(f"[global]\nindex-url = http://me:s%40crt@{server.host}/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(conf))
    assert fetch.fetch(PIN, tmp_path / PIN.filename)
    assert set(server.logins) == {"Basic " + base64.b64encode(b"me:s@crt").decode()}
    server.listed = False
    assert "crt" not in refused("does not list it", fetch.fetch, PIN, tmp_path / "again")
    conf.write_text(f"[global]\nindex-url = http://index.invalid/simple\nproxy = http://{server.host}\n")
    refused("index.invalid", fetch.fetch, PIN, tmp_path / "again")
    assert server.asked[-1][0] == "http://index.invalid/simple/some-thing/"

    lay(tmp_path / "simple/some-thing", {"index.html": f'<a href="{PIN.filename}">x</a>'})
    (tmp_path / "simple/some-thing" / PIN.filename).write_bytes(BODY)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    assert fetch.fetch(PIN, tmp_path / "again")


@pytest.mark.parametrize(("key", "value"), [("CERT", "/nowhere.pem"), ("DEFAULT_TIMEOUT", "x"),
                                            ("INDEX_URL", "http://[")])  # fmt: skip
def test_bad_pip_settings(server, tmp_path, monkeypatch, key, value):
    monkeypatch.setenv(f"PIP_{key}", value)
    refused("pip's configuration", fetch.fetch, PIN, tmp_path / PIN.filename)
