"""What every command here shares: one-line errors, whole files, hashes.

from tools.make import cli
raise UserError("dev.tsv:7: label 'x' is not 0 or 1; take the official dev.tsv")
if __name__ == "__main__":
    cli.run(main)
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class UserError(Exception):
    """A mistake the user can mend. The text says what, where (file, line, option, tensor) and what to do. It may quote a
    file: control characters are spelled out, so that none reaches a terminal."""

    def __init__(self, text: str):
        super().__init__("\n".join(map(printable, text.split("\n"))))


def printable(text) -> str:
    """A text, or a path, with its control characters spelled out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


ROOM = "; make room on that disk and run it again"
ADVICE = {errno.ENOSPC: ROOM, errno.EFBIG: ROOM, errno.EDQUOT: ROOM, errno.EROFS: "; name a folder that can be written"}


def explanation(e: Exception) -> str:
    """What is wrong, where and what to do, in one line."""
    if isinstance(e, UserError):
        return str(e)
    if isinstance(e, OSError):
        return f"{e.filename or 'input/output'}: {e.strerror or e}{ADVICE.get(e.errno, '')}"
    if isinstance(e, UnicodeEncodeError):
        return f"{ascii(e.object)[:200]} is not UTF-8; give that file another name"
    return f"no memory left ({e}); free some, or give a smaller input"


def parser(description: str, **options):
    """An argument parser that shows a module's docstring as it stands."""
    import argparse  # what make asks first needs none

    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw, **options)


def run(main):
    """Call main() and exit: 0 (or main's own status), 1 with one line on a user's mistake, 130 on Ctrl-C."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        if hasattr(getattr(sys, name), "reconfigure"):  # a file's name need not be UTF-8
            getattr(sys, name).reconfigure(errors="backslashreplace")
    quiet = signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # by tools/__init__.py
    if quiet:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except (UserError, OSError, UnicodeEncodeError, MemoryError) as e:
        status = f"{Path(sys.argv[0]).name}: error: {explanation(e)}"
    except KeyboardInterrupt:
        status = 130
    if quiet:  # whatever is left to do, a Ctrl-C may end it at once
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(status)


LARGEST = 1 << 26  # bytes of a text that is read whole


def regular(path, largest: int | None = None) -> Path:
    """The path of a file that can be read to its end, of at most `largest` bytes. Raises UserError for a larger one, and for
    a pipe or a device, which may have no end."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: a pipe or a device; copy what it gives into a file first")
    if largest and path.is_file() and path.stat().st_size > largest:
        raise UserError(f"{path}: larger than {largest} bytes; take the original, or make it again")
    return path


def first_file(paths) -> Path | None:
    """The first path that is a file; None where none is. A pipe or a device is not passed over: UserError."""
    return next((regular(path) for path in map(Path, paths) if path.exists() and not path.is_dir()), None)


def sha256(path) -> str:
    """Hex sha256 of a file's bytes, read in pieces. Raises UserError for a pipe or a device."""
    with regular(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def refuse_pointer(path) -> None:
    """UserError where a file is what Git LFS leaves in a clone in place of a large one."""
    path = Path(path)
    with path.open("rb") as f:
        if f.read(24).startswith(b"version https://git-lfs"):
            command = f"git -C {path.parent} lfs pull --include {path.name}"
            raise UserError(f"{path}: a Git LFS pointer, not the file; fetch it with `{command}`")


def read_npy(path):
    """The array of a .npy file, mapped: a header that lies of its size gets no memory. ValueError where it is none."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r")
    except OSError:
        raise
    except Exception as e:  # numpy parses the header as Python: it raises that parser's kinds too
        raise ValueError(str(e) or type(e).__name__) from None
    if not isinstance(array, np.ndarray):  # numpy opens any zip as .npz
        raise ValueError("a zip of arrays")
    return array


def npy_bytes(array) -> bytes:
    """The .npy file of an array. np.save into a file itself does not say why where the disk is full."""
    import numpy as np

    box = io.BytesIO()
    np.save(box, array)
    return box.getvalue()


@contextlib.contextmanager
def file_in_error(path):
    """An OSError in the block names `path` where it names nothing: a write to a full disk does not."""
    try:
        yield
    except OSError as e:
        e.filename = e.filename or str(path)
        raise


@contextlib.contextmanager
def whole_file(path, mode="wb", **options):
    """Open a temporary file beside `path`; it takes the name only when the block ends well. Its mode is 0644 whatever the
    umask: ais_bench refuses inputs that others may write."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with file_in_error(path), os.fdopen(fd, mode, **options) as f:
            os.fchmod(fd, 0o644)
            yield f
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write(path, content: bytes | str) -> None:
    """`whole_file` of these bytes, or of this text."""
    with whole_file(path) as f:
        f.write(content.encode() if isinstance(content, str) else content)


def read_json(path):
    """The JSON object in a file; UserError when it is none, or larger than any that is read here."""
    try:
        value = json.loads(regular(path, LARGEST).read_text("utf-8"))
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not JSON ({e}); take the original, or make it again") from e
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object; take the original, or make it again")
    return value


def nearest(word: str, right) -> str:
    """`, is BATCHES meant?`, or nothing where no word of `right` is near."""
    import difflib

    near = [w for form in (word, word.upper(), word.lower()) for w in difflib.get_close_matches(form, list(right), 1)]
    return f", is {near[0]} meant?" if near else ""


def ending_of(status: int) -> str:
    """How a process ended, in words: its exit status, or the signal where that is negative."""
    return signal.Signals(-status).name if status < 0 else f"exit {status}"


def clean_environment() -> dict[str, str]:
    """The environment without the variables of a parent make."""
    return {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}


def git(*words: str) -> subprocess.CompletedProcess:
    """What a git command said, as text, whatever GIT_ variables say; status 127 where git is missing."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(["git", *words], capture_output=True, errors="surrogateescape", env=env, check=False)
    except OSError:
        return subprocess.CompletedProcess(words, 127, "", "git: not found")


TAIL = 1 << 20  # bytes of output kept for the error message


def run_shown(command: list, cwd: Path) -> tuple[int, str]:
    """Run a command with its output shown as it comes; exit status and the output's last part."""
    null, pipe, tail = subprocess.DEVNULL, subprocess.PIPE, b""
    with subprocess.Popen(command, cwd=cwd, stdin=null, stdout=pipe, stderr=subprocess.STDOUT) as process:
        while chunk := os.read(process.stdout.fileno(), 1 << 16):
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            tail = (tail + chunk)[-TAIL:]
    return process.returncode, tail.decode(errors="replace")


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it dies (Linux alone): a build killed by SIGKILL leaves
    nobody behind who writes on."""
    import ctypes

    prctl, set_death_signal = getattr(ctypes.CDLL(None), "prctl", None), 1  # linux/prctl.h: PR_SET_PDEATHSIG
    if prctl:
        prctl(set_death_signal, 9)
