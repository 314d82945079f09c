"""What every command shares: one-line errors, files written whole, hashes.

raise cli.UserError("dev.tsv:7: label 'x' is not 0 or 1; take the official dev.tsv")
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
    """A mistake that the user can mend. The text says what, where (file, line, option, tensor) and what to do. Control
    characters in it are escaped, since it may quote a file and end up on a terminal."""

    def __init__(self, text: str):
        super().__init__("\n".join(map(printable, text.split("\n"))))


def printable(text) -> str:
    """A text or path with its control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


ROOM = "; make room on that disk and run it again"
ADVICE = {errno.ENOSPC: ROOM, errno.EFBIG: ROOM, errno.EDQUOT: ROOM, errno.EROFS: "; name a folder that can be written"}


def explanation(e: Exception) -> str:
    """One line for an error: what, where, and what to do."""
    if isinstance(e, UserError):
        return str(e)
    if isinstance(e, OSError):
        return f"{e.filename2 or e.filename or 'input/output'}: {e.strerror or e}{ADVICE.get(e.errno, '')}"
    if isinstance(e, UnicodeEncodeError):
        return f"{ascii(e.object)[:200]} is not UTF-8; give that file another name"
    return f"no memory left ({e}); free some, or give a smaller input"


def parser(description: str, **options):
    """An argument parser that shows a module's docstring as it stands."""
    import argparse  # here, since the start of every make imports this file and does not need it

    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw, **options)


def run(main):
    """Call main() and exit with 0 or the status it returns, with 1 and one line for a user's mistake, with 130 on Ctrl-C."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the parent process closed it
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        if hasattr(getattr(sys, name), "reconfigure"):  # file names need not be UTF-8
            getattr(sys, name).reconfigure(errors="backslashreplace")
    quiet = signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # set by tools/__init__.py
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
    if quiet:  # from here on Ctrl-C may end the process at once
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(status)


LARGEST = 1 << 26  # bytes of a text that is read whole


def regular(path, largest: int | None = None) -> Path:
    """The path, if it is a file of at most `largest` bytes, a folder, or absent. Raises UserError for a larger file, and for a
    pipe or a device, which reading may never end."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: a pipe or a device; copy what it gives into a file first")
    if largest and path.is_file() and path.stat().st_size > largest:
        raise UserError(f"{path}: larger than {largest} bytes; take the original, or make it again")
    return path


def first_file(paths) -> Path | None:
    """The first path that is a file; None if there is none. Raises UserError for a pipe or a device."""
    return next((regular(path) for path in map(Path, paths) if path.exists() and not path.is_dir()), None)


def sha256(path) -> str:
    """Hex sha256 of a file. Raises UserError for a pipe or a device."""
    with regular(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def refuse_pointer(path) -> None:
    """Raises UserError if a file is the pointer that Git LFS leaves in place of a large file."""
    path = Path(path)
    with path.open("rb") as f:
        if f.read(24).startswith(b"version https://git-lfs"):
            command = f"git -C {path.parent} lfs pull --include {path.name}"
            raise UserError(f"{path}: a Git LFS pointer, not the file; fetch it with `{command}`")


def read_npy(path):
    """The array of a .npy file, memory-mapped, so that a false size in its header allocates nothing. Raises ValueError if it is
    no .npy file."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r")
    except OSError:
        raise
    except Exception as e:  # numpy parses the header as Python, and may raise what that parser raises
        raise ValueError(str(e) or type(e).__name__) from None
    if not isinstance(array, np.ndarray):  # numpy opens any zip as .npz
        raise ValueError("a zip of arrays")
    return array


def npy_bytes(array) -> bytes:
    """The bytes of an array's .npy file. (np.save into a file does not say why it failed if the disk is full.)"""
    import numpy as np

    box = io.BytesIO()
    np.save(box, array)
    return box.getvalue()


@contextlib.contextmanager
def file_in_error(path):
    """Let an OSError in the block name `path` if it names no file, as after a write to a full disk."""
    try:
        yield
    except OSError as e:
        e.filename = e.filename or str(path)
        raise


@contextlib.contextmanager
def whole_file(path, mode="wb", **options):
    """Open a temporary file beside `path`; it gets that name only if the block succeeds. Its mode is 0644 whatever the umask,
    since ais_bench refuses inputs that others can write."""
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
    """Write these bytes, or this text, as a `whole_file`."""
    with whole_file(path) as f:
        f.write(content.encode() if isinstance(content, str) else content)


def read_json(path, largest: int = LARGEST):
    """The JSON object in a file of at most `largest` bytes. Raises UserError if it is none, or larger."""
    try:
        value = json.loads(regular(path, largest).read_text("utf-8"))
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not JSON ({e}); take the original, or make it again") from e
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object; take the original, or make it again")
    return value


def nearest(word: str, right) -> str:
    """`, is BATCHES meant?` for the word of `right` that is most like `word`; "" if none is."""
    import difflib

    near = [w for form in (word, word.upper(), word.lower()) for w in difflib.get_close_matches(form, list(right), 1)]
    return f", is {printable(near[0])} meant?" if near else ""


def ending_of(status: int) -> str:
    """How a process ended, in words; a negative status is that of a signal."""
    return signal.Signals(-status).name if status < 0 else f"exit {status}"


def clean_environment() -> dict[str, str]:
    """The environment without the variables that a parent make sets."""
    return {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}


def git(*words: str) -> subprocess.CompletedProcess:
    """The result of a git command, run without the GIT_ variables of the environment; status 127 if git is missing."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(["git", *words], capture_output=True, errors="surrogateescape", env=env, check=False)
    except OSError:
        return subprocess.CompletedProcess(words, 127, "", "git: not found")


TAIL = 1 << 20  # how many bytes of output an error message may draw on


def run_shown(command: list, cwd: Path) -> tuple[int, str]:
    """Run a command and show its output as it comes: (exit status, the last part of the output)."""
    null, pipe, tail = subprocess.DEVNULL, subprocess.PIPE, b""
    with subprocess.Popen(command, cwd=cwd, stdin=null, stdout=pipe, stderr=subprocess.STDOUT) as process:
        while chunk := os.read(process.stdout.fileno(), 1 << 16):
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            tail = (tail + chunk)[-TAIL:]
    return process.returncode, tail.decode(errors="replace")


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies (Linux only), so that a build killed by SIGKILL leaves no process
    behind that goes on writing."""
    import ctypes

    prctl, set_death_signal = getattr(ctypes.CDLL(None), "prctl", None), 1  # linux/prctl.h: PR_SET_PDEATHSIG
    if prctl:
        prctl(set_death_signal, 9)
