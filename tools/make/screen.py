"""The screen of a build: one line a step, a moving line while it runs, everything only where it is asked for.

    simplify   gate: equal: fp32, max |difference| 2.15e-06 (limit 1e-04) over 16 rows, 0 flips       2.7 s

A step's own output is kept as its log. A terminal shows after two seconds what the step is doing: its own progress bar, or
the seconds that have passed. V=1 shows all output as it comes.
"""

import contextlib
import os
import platform
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

from tools.make import cli

PATIENCE = 2.0  # seconds after which a step shows that it goes on
WIDTH = 96  # columns of the name and what is said of the step
# Stand-ins for the vendor's tools may be what runs: every line says so.
DEMONSTRATION = "demonstration: " if "BERT2OM_TEST_STANDIN" in os.environ else ""


def wait(process: subprocess.Popen, what: str) -> int:
    """The exit status of a process. A terminal shows meanwhile what it is and for how long it has run."""
    started = time.time()
    while True:
        try:
            status = process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            moving(f"{what}: {time.time() - started:.0f} s ...")
            continue
        moving("")
        return status


def moving(text: str) -> None:
    """Write over a terminal's last line; nothing where there is no terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def child() -> None:
    """Of a step's command: it ends with us, and a Ctrl-C waits until tools/__init__.py can take it."""
    cli.die_with_parent()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


BESIDE = re.compile(r"\{(\w+\.npy)\}")  # in a command: a second artefact, beside the target


def fill(word: str, product: Path) -> str:
    """A word of a command, with the temporary paths that its braces stand for."""
    word = word.replace("{}", str(product)).replace("{stem}", str(product.with_suffix("")))
    return BESIDE.sub(lambda name: str(product.with_name(name[1])), word)


class Step:
    """One step: its name, its output so far, and what the screen says of it. final: the file or folder that it makes."""

    def __init__(self, name: str, target: Path, labelled: bool = False):
        self.name, self.target, self.started = name, target, time.time()
        self.final = target.parent if target.name == "MANIFEST" else target
        self.label = " ".join(target.parts[1:2] + target.parts[4:-1]) if labelled else ""
        self.output, self.progress, self.names = bytearray(), "", ("", "")
        self.where, self.counts = "", ""  # of steps that ran on another machine
        self.moves = sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("V")
        self.columns = max(10, min(WIDTH, shutil.get_terminal_size().columns) - 12)  # of what a moving line says

    def perform(self, commands: list[list[str]], box: Path) -> tuple[Path, dict]:
        """Run commands in an empty folder: (the path of what they wrote, when and where they ran). That path is spoken of as
        `final`. Raises UserError where a command fails or is missing."""
        product = box / self.final.name
        if self.final != self.target:
            product.mkdir(0o750)  # ais_bench refuses an output folder that others may enter
        self.names, started = (str(product), str(self.final)), time.time()
        for command in commands:
            words = [fill(word, product) for word in command]
            try:
                status = self.call(words)
            except FileNotFoundError:
                raise cli.UserError(f"{words[0]}: not found; `make doctor` says what is here") from None
            if status:
                raise cli.UserError(f"{cli.ending_of(status)} from: {' '.join(words).replace(*self.names)}")
        place = {"host": platform.node(), "platform": platform.platform()}
        return product, {"started": started, "ended": time.time(), **place}

    def call(self, command: list[str]) -> int:
        """Run a command, its output kept; its exit status, negative for a signal. FileNotFoundError where it is missing."""
        reader, writer = pty.openpty() if self.moves else os.pipe()  # progress bars draw on a terminal alone
        with os.fdopen(reader, "rb", 0) as output:
            with os.fdopen(writer, "wb", 0) as end:
                if self.moves:  # a new terminal has 0 rows of 0 columns, which a progress bar takes for no room at all
                    termios.tcsetwinsize(end, (24, self.columns))
                env = os.environ | {"BERT2OM_STEP": self.name}
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=end, stderr=end, env=env,
                                           preexec_fn=child)  # fmt: skip
            try:
                self.listen(output, process)
                return process.wait()
            except KeyboardInterrupt:
                self.moves = False
                with contextlib.suppress(subprocess.TimeoutExpired):  # one of ours has it too, and cleans up
                    process.wait(timeout=2)
                process.kill()
                raise
            finally:
                moving("")

    def listen(self, output, process: subprocess.Popen) -> None:
        """Take what a command prints until it ends; a child that outlives it may hold the other end."""
        while True:
            if not select.select([output], [], [], 0.5)[0]:
                if process.poll() is not None:
                    return
                self.move()
                continue
            try:
                chunk = output.read(1 << 16)
            except OSError:  # how a terminal ends
                return
            if not chunk:
                return
            self.take(chunk)

    def take(self, chunk: bytes) -> None:
        """Keep a piece of output; what ends in a carriage return is progress, and only shown."""
        self.output += chunk.replace(b"\r\n", b"\n")
        *_, last = self.output.rsplit(b"\n", 1)
        if b"\r" in last:
            self.progress = last.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode(errors="replace").strip()
        if os.environ.get("V"):
            print(chunk.decode(errors="replace").replace(*self.names), end="", flush=True)
        self.move()

    def move(self) -> None:
        """Show on a terminal what the step is doing."""
        seconds = time.time() - self.started
        if self.moves and seconds > PATIENCE:
            text = self.progress or f"{seconds:.0f} s ..."
            moving(f"{self.name:<10} {text[: self.columns]}")

    def log_text(self) -> str:
        """The output as lines: without progress, without temporary paths."""
        lines = self.output.decode(errors="replace").split("\n")
        return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines).replace(*self.names)

    def headline(self) -> str:
        """The line that says most of the step: its gate's, or else its last."""
        lines = [line for line in self.log_text().splitlines() if line.strip()]
        gates = [line for line in lines if line.startswith("gate:")]
        others = [line for line in lines if not line.startswith(("wrote", "[INFO]"))]
        return (gates or others or lines or [""])[-1].removeprefix("[INFO] ")

    def print_line(self, text: str = "") -> None:
        """Say that the step has ended, and with what."""
        words = DEMONSTRATION + ": ".join(part for part in (self.label, self.where, text or self.headline()) if part)
        if len(words) > WIDTH - 11 and "gate:" not in words:  # a gate's line names what differs; all else is in the log
            words = f"{words[: WIDTH - 15]} ..."
        words += f"  [{self.counts}]" * bool(self.counts)
        seconds = f"{time.time() - self.started:.1f} s"
        screen = sys.stderr if os.environ.get("BERT2OM_SCREEN") == "stderr" else sys.stdout  # make score OUT=-
        print(f"{self.name:<10} {words:<{WIDTH - 11}} {seconds:>8}", file=screen, flush=True)

    def print_log(self) -> None:
        """Show all that a step printed before it failed."""
        if not os.environ.get("V"):
            print(self.log_text(), end="", file=sys.stderr, flush=True)
