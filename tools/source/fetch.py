"""Fetch one pinned file of a package index, whole and with the right sha256, or not at all.

    python -m tools.source.fetch vaderSentiment-3.3.2.tar.gz --save_path build/downloads/vaderSentiment-3.3.2.tar.gz

Index, proxy, certificates and timeout are those of pip (PIP_INDEX_URL, pip.conf, HTTPS_PROXY). `pip download`
itself is not used: it runs a source package's setup.py only to learn a name that the pin already states.
A broken connection is resumed. A file put there by hand is taken under the same sha256.
"""

import base64
import configparser
import hashlib
import html
import os
import re
import shutil
import ssl
import sys
import time
import urllib.request
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from tools.make import cli

PINS = cli.ROOT / "data" / "pins.txt"
PYPI = "https://pypi.org/simple"
PAGE_LIMIT = 1 << 24  # bytes of an index page
# pip's settings of where packages come from and how to reach them. Its others are of where they are installed.
SOURCES = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "cert", "client-cert",
           "timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir", "keyring-provider")  # fmt: skip
TRIES = 3  # in a row without one new byte


class Pin(NamedTuple):
    """One line of data/pins.txt: sha256 (hex), size (bytes), filename, package, version."""

    sha256: str
    size: int
    filename: str
    package: str
    version: str


def read_pins(path=PINS) -> dict[str, Pin]:
    """Pins by file name. Lines: `sha256  size  filename  package==version`, or a comment after #. Raises UserError."""
    pins = {}
    for number, line in enumerate(cli.regular(path, cli.LARGEST).read_bytes().splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        if not (m := re.fullmatch(rb"([0-9a-f]{64})  ([0-9]{1,12})  ([\w.+-]+)  ([\w.-]+)==([\w.+-]+)", line)):
            raise cli.UserError(f"{path}:{number}: not `sha256  size  filename  package==version`; mend that line")
        sha256, size, filename, package, version = (part.decode() for part in m.groups())
        pins[filename] = Pin(sha256, int(size), filename, package, version)
    return pins


def pinned_otherwise(path: str, sha256: str) -> bool:
    """Whether a download is another file than data/pins.txt names, whatever a prov.json or a chain says of it."""
    pins = read_pins() if path.startswith("build/downloads/") else {}
    return path.rsplit("/", 1)[-1] in pins and pins[path.rsplit("/", 1)[-1]].sha256 != sha256


def pip_settings(command: str, prefix: str = sys.prefix) -> dict[str, str]:
    """Where packages come from (SOURCES): what pip's configuration files say for `command`, its variables above them.

    prefix: the environment, which may hold a pip.conf too.
    """
    home, more = os.environ.get("XDG_CONFIG_HOME") or "~/.config", os.environ.get("PIP_CONFIG_FILE", "")
    system = [f"{folder}/pip" for folder in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")]
    files = [f"{folder}/pip.conf" for folder in (*system, "/etc", "~/.pip", f"{home}/pip", prefix)]
    config = configparser.RawConfigParser()
    try:
        config.read([] if more == os.devnull else [Path(file).expanduser() for file in (*files, more)], "utf-8")
    except (configparser.Error, ValueError) as e:
        raise cli.UserError(f"pip's configuration: {' '.join(str(e).split())}; mend it") from None
    pairs = [pair for section in ("global", command) if config.has_section(section) for pair in config.items(section)]
    pairs += [(name.removeprefix("PIP_"), value) for name, value in os.environ.items() if name.startswith("PIP_")]
    settings = {name.lower().replace("_", "-"): value for name, value in pairs if value}
    return {name: value for name, value in settings.items() if name in SOURCES}


class Broken(Exception):
    """A transfer failed: on the network's side, not on the disk's."""


class Index:
    """The package indexes pip would ask, as pip would reach them."""

    def __init__(self, settings: dict[str, str]):
        """settings: those of pip_settings. Raises UserError where one of them is no URL, no number or no file."""
        self.logins: dict[str, str] = {}
        cert = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
        folder = cert if cert and Path(cert).is_dir() else None
        try:
            urls = [settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()]
            self.urls = [self._without_login(url) for url in urls]
            self.timeout = float(settings.get("timeout") or settings.get("default-timeout") or 15)
            tls = ssl.create_default_context(cafile=None if folder else cert or None, capath=folder)
        except (OSError, ValueError) as e:
            raise cli.UserError(f"index-url, cert or timeout of pip's configuration: {reason(e)}; mend it") from None
        proxy = settings.get("proxy")
        proxies = urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
        self.opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls), proxies)

    def _without_login(self, url: str) -> str:
        """The URL without user and password, which are kept for its host alone and never printed."""
        parts = urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        if login:
            self.logins[host] = "Basic " + base64.b64encode(unquote(login).encode()).decode()
        return urlunsplit(parts._replace(netloc=host)).rstrip("/")

    @contextmanager
    def open(self, url: str, start: int = 0):
        """The response to a GET of `url` from byte `start` on; status 200 means the whole instead. Raises Broken."""
        try:
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
            request = urllib.request.Request(url, headers=headers)  # noqa: S310  the user's own index may be a file: URL
            if login := self.logins.get(urlsplit(url).netloc):
                request.add_unredirected_header("Authorization", login)
            with self.opener.open(request, timeout=self.timeout) as response:
                yield response
        except (OSError, HTTPException, ValueError) as e:
            raise Broken(reason(e)) from None

    def links(self, page: str) -> dict[str, str]:
        """{file name: URL} of what an index page (PEP 503) links to. Raises Broken."""
        with self.open(page) as response:
            base, text = response.geturl(), response.read(PAGE_LIMIT).decode("utf-8", "replace")
        links = re.findall(r"""<a\b[^>]*?\bhref\s*=\s*["']?([^"'\s>]+)""", text, re.I)
        urls = [urlsplit(urljoin(base, html.unescape(link)))._replace(fragment="") for link in links]
        return {unquote(url.path.rsplit("/", 1)[-1]): urlunsplit(url) for url in reversed(urls)}

    def find(self, package: str, filename: str) -> tuple[str | None, str]:
        """(URL of the file of this name, a pattern; None where no index has it, each index's answer)."""
        name = re.sub(r"[-_.]+", "-", package).lower()
        answers = []
        for index in self.urls:
            page = f"{index}/{name}/" + ("index.html" if index.startswith("file:") else "")
            try:
                files = self.links(page)
            except Broken as e:
                answers.append(f"{page}: {e}")
                continue
            for file in (file for file in files if re.fullmatch(filename, file)):
                return files[file], ""
            answers.append(f"{page}: does not list it")
        return None, "; ".join(answers)


def reason(error: Exception) -> str:
    """One line for a network error."""
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    return " ".join(text.split())


def receive(index: Index, url: str, pin: Pin) -> tuple[bytearray, str]:
    """(the bytes of `url`, got on after each break; what broke last where TRIES were in vain)."""
    from tqdm import tqdm

    data, fault, tries, most = bytearray(), "", 0, 0
    with tqdm(desc=pin.filename, total=pin.size, unit="B", unit_scale=True, disable=pin.size < 1 << 22) as bar:
        while len(data) < pin.size and tries < TRIES:
            time.sleep(tries)
            fault = "the connection ends early"
            try:
                with index.open(url, len(data)) as response:
                    if getattr(response, "status", None) != 206:
                        data.clear()
                    while len(data) < pin.size and (piece := response.read1(1 << 18)):
                        data += piece[: pin.size - len(data)]
                        bar.update(len(data) - bar.n)
            except Broken as e:
                fault = str(e)
            tries = 0 if len(data) > most else tries + 1
            most = max(most, len(data))
    return data, f"{len(data)} of {pin.size} bytes came: {fault}" if len(data) < pin.size else ""


def fetch(pin: Pin, path) -> bool:
    """Make `path` the pinned file; False if it was so already. Raises UserError and changes nothing else."""
    path = Path(path)
    if path.is_file() and cli.sha256(path) == pin.sha256:
        return False
    index = Index(pip_settings("download"))
    url, fault = index.find(pin.package, re.escape(pin.filename))
    data, fault = receive(index, url, pin) if url else (b"", fault)
    sha256 = hashlib.sha256(data).hexdigest()
    if fault or sha256 != pin.sha256:
        fault = fault or f"sha256 {sha256} came, not {pin.sha256}"
        advice = f"pip's index and proxy settings, or put the file with sha256 {pin.sha256} there yourself"
        raise cli.UserError(f"{pin.filename}: {fault}; try again, check {advice}")
    cli.write(path, bytes(data))
    return True


def main():
    parser = cli.parser(__doc__)
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
