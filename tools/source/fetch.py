"""Fetch one pinned file of a package index, whole and with the right sha256, or not at all.

    python -m tools.source.fetch vaderSentiment-3.3.2.tar.gz --save_path build/downloads/vaderSentiment-3.3.2.tar.gz

Index, proxy, certificates and timeout are those of pip (PIP_INDEX_URL, pip.conf, HTTPS_PROXY). `pip download`
itself is not used: it runs a source package's setup.py only to learn a name that the pin already states.
A broken connection is resumed. A file put there by hand is taken under the same sha256. The command prints

    fetched build/downloads/vaderSentiment-3.3.2.tar.gz (2466783 bytes, sha256 5d7c06e0...849632f9)
"""

import argparse
import ast
import base64
import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from tools.make import cli

PINS = cli.ROOT / "data" / "pins.txt"
PYPI = "https://pypi.org/simple"
PAGE_LIMIT = 1 << 24  # bytes of an index page
TRIES = 3  # in a row without one new byte


class Pin(NamedTuple):
    """One line of data/pins.txt: sha256 (hex), size (bytes), filename, package, version."""

    sha256: str
    size: int
    filename: str
    package: str
    version: str


def read_pins(path=PINS) -> dict[str, Pin]:
    """Pins by file name. Lines: `sha256  size  filename  package==version`, or a comment after #.

    Raises UserError with file and line of what is not one.
    """
    pins = {}
    try:
        lines = cli.regular(path, cli.LARGEST).read_text("utf-8").splitlines()
    except UnicodeDecodeError as e:
        raise cli.UserError(f"{path}: byte {e.start} is not UTF-8; take the committed file again") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        m = re.fullmatch(r"([0-9a-f]{64})  ([0-9]{1,12})  ([\w.+-]+)  ([\w.-]+)==([\w.+-]+)", line)
        if not m:
            fault = "not `sha256  size  filename  package==version`; mend that line"
            raise cli.UserError(f"{path}:{number}: {fault}")
        pins[m[3]] = Pin(m[1], int(m[2]), m[3], m[4], m[5])
    return pins


def pinned_otherwise(path: str, sha256: str) -> bool:
    """Whether a download is another file than data/pins.txt names, whatever a prov.json or a chain says of it."""
    pins = read_pins() if path.startswith("build/downloads/") else {}
    return path.rsplit("/", 1)[-1] in pins and pins[path.rsplit("/", 1)[-1]].sha256 != sha256


def pip_settings() -> dict[str, str]:
    """What `pip config list` states: for `pip download`, then everywhere, the environment above all.

    Raises UserError where pip fails.
    """
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise cli.UserError(f"`pip config list` fails: {last}; mend pip or its pip.conf")
    found = {}
    for section in ("global", "download", ":env:"):
        for key, value in re.findall(rf"^{section}\.([\w-]+)=('.*'|\".*\")$", done.stdout, re.M):
            found[key] = ast.literal_eval(value)
    return found


class Broken(Exception):
    """A transfer failed: on the network's side, not on the disk's."""


class Index:
    """The package indexes pip would ask, as pip would reach them."""

    def __init__(self, settings: dict[str, str]):
        """settings: pip's keys index-url, extra-index-url, proxy, cert, timeout (seconds)."""
        urls = [settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()]
        self.timeout = float(settings.get("timeout") or settings.get("default-timeout") or 15)
        self.logins = {}
        self.urls = [self._without_login(url) for url in urls]
        cert = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
        folder = cert if cert and Path(cert).is_dir() else None
        tls = ssl.create_default_context(cafile=None if folder else cert or None, capath=folder)
        proxy = settings.get("proxy")
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=tls),
            urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None),
        )

    def _without_login(self, url: str) -> str:
        """The URL without user and password, which are kept for its host alone and never printed."""
        parts = urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        if login:
            self.logins[host] = "Basic " + base64.b64encode(unquote(login).encode()).decode()
        return urlunsplit(parts._replace(netloc=host)).rstrip("/")

    def open(self, url: str, start: int = 0):
        """The response to a GET of `url` from byte `start` on; status 200 means the whole instead."""
        request = urllib.request.Request(url)  # noqa: S310  the user's own index may be a file: URL
        request.add_header("Accept-Encoding", "identity")
        if start:
            request.add_header("Range", f"bytes={start}-")
        login = self.logins.get(urlsplit(url).netloc)
        if login:
            request.add_unredirected_header("Authorization", login)
        return self.opener.open(request, timeout=self.timeout)

    def pieces(self, url: str, start: int):
        """Yield (offset, bytes) of `url` from byte `start` on, or from 0 if it must. Raises Broken."""
        try:
            with self.open(url, start) as response:
                offset = start if getattr(response, "status", None) == 206 else 0
                while piece := response.read1(1 << 18):
                    yield offset, piece
                    offset += len(piece)
        except (OSError, HTTPException, ValueError) as e:
            raise Broken(reason(e)) from None

    def find(self, pin: Pin) -> str:
        """The URL of the pinned file. Raises UserError when no index has it, with each index's answer."""
        name = re.sub(r"[-_.]+", "-", pin.package).lower()
        answers = []
        for index in self.urls:
            page = f"{index}/{name}/" + ("index.html" if index.startswith("file:") else "")
            try:
                with self.open(page) as response:
                    links = Links(response.geturl(), response.read(PAGE_LIMIT).decode("utf-8", "replace"))
            except (OSError, HTTPException, ValueError) as e:
                answers.append(f"{page}: {reason(e)}")
                continue
            if pin.filename in links.urls:
                return links.urls[pin.filename]
            answers.append(f"{page}: does not list it")
        raise cli.UserError(f"{pin.filename}: {'; '.join(answers)}; {advice(pin)}")


class Links(HTMLParser):
    """The files an index page (PEP 503) links to: .urls by file name."""

    def __init__(self, base: str, page: str):
        super().__init__()
        self.base, self.urls = base, {}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        url = urlsplit(urljoin(self.base, dict(attrs).get("href") or ""))._replace(fragment="")
        if tag == "a":
            self.urls.setdefault(unquote(url.path.rsplit("/", 1)[-1]), urlunsplit(url))


def reason(error: Exception) -> str:
    """One line for a network error."""
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    return " ".join(text.split())


def advice(pin: Pin) -> str:
    yourself = f"put the file with sha256 {pin.sha256} there yourself"
    return f"try again, check pip's index and proxy settings, or {yourself}"


def receive(index: Index, url: str, pin: Pin, file) -> None:
    """Write `url` into the binary file, going on after a break. Raises UserError after TRIES in vain."""
    from tqdm import tqdm

    fault, tries, most = "", 0, 0
    small = pin.size < 1 << 22
    with tqdm(desc=pin.filename, total=pin.size, unit="B", unit_scale=True, disable=small) as bar:
        while tries < TRIES:
            time.sleep(tries)
            try:
                for offset, piece in index.pieces(url, file.tell()):
                    file.seek(offset)
                    file.write(piece[: pin.size - offset])
                    bar.update(file.tell() - bar.n)
                    if file.tell() == pin.size:
                        return
                fault = "the connection ends early"
            except Broken as e:
                fault = str(e)
            tries = 0 if file.tell() > most else tries + 1
            most = max(most, file.tell())
    raise cli.UserError(f"{pin.filename}: {file.tell()} of {pin.size} bytes came: {fault}; {advice(pin)}")


def fetch(pin: Pin, path) -> bool:
    """Make `path` the pinned file; False if it was so already. Raises UserError and changes nothing else."""
    path = Path(path)
    if path.is_file() and cli.sha256(path) == pin.sha256:
        return False
    try:
        index = Index(pip_settings())
    except (OSError, ValueError) as e:
        raise cli.UserError(f"index-url, cert or timeout of `pip config list`: {reason(e)}; mend") from None
    url = index.find(pin)
    try:
        with cli.whole_file(path, "w+b") as file:
            receive(index, url, pin, file)
            file.seek(0)
            got = hashlib.file_digest(file, "sha256").hexdigest()
            if got != pin.sha256:
                raise cli.UserError(f"{pin.filename}: sha256 {got} came, not {pin.sha256}; {advice(pin)}")
    except OSError as e:
        raise cli.UserError(f"{path}: {e.strerror or e}; make room or choose another folder") from None
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filename", help="a file name of the pins")
    parser.add_argument("--save_path", required=True, help="where to write it")
    parser.add_argument("--pins", default=PINS, help="default: data/pins.txt")
    parser.add_argument("--here", type=Path, help="the file where it may lie already, put there by hand")
    args = parser.parse_args()
    pins = read_pins(args.pins)
    if args.filename not in pins:
        raise cli.UserError(f"{args.pins}: no {args.filename}; pinned are: {' '.join(pins)}")
    pin = pins[args.filename]
    if args.here and args.here.is_file() and cli.sha256(args.here) == pin.sha256:
        shutil.copyfile(args.here, args.save_path)
    verb = "fetched" if fetch(pin, args.save_path) else "already there:"
    print(f"{verb} {args.filename}, {pin.size / 1e6:.1f} MB, sha256 as pinned")


if __name__ == "__main__":
    cli.run(main)
