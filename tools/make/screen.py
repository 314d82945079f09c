"""What a build shows on the screen: one line per step, a moving line while it runs, and all output only with V=1.

    simplify   gate: equal: fp32, max |difference| 2.15e-06 (limit 1e-04) over 16 rows, 0 flips       2.7 s

The output of a step is kept in its log. After two seconds a terminal shows what the step is doing: its progress bar, or the
seconds that have passed.
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

from tools.make import cli, cpu

PATIENCE = 2.0  # seconds after which a step shows that it goes on
WIDTH = 96  # columns for the name of a step and the text about it
# If stand-ins for the vendors' tools may run, every line says so.
DEMONSTRATION = "demonstration: " if "BERT2OM_TEST_STANDIN" in os.environ else ""


def wait(process: subprocess.Popen, what: str) -> int:
    """Wait for a process and return its exit status. Meanwhile a terminal shows `what` and for how long it has run."""
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
    """Overwrite the last line of a terminal; do nothing without a terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def child() -> None:
    """Set up the process of a step's command: it ends with its parent, and Ctrl-C waits until tools/__init__.py handles it."""
    cli.die_with_parent()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


BESIDE = re.compile(r"\{(\w+\.npy)\}")  # in a command: the path of a second artefact, beside the target


def fill(word: str, product: Path) -> str:
    """A word of a command, with temporary paths in place of its braces."""
    word = word.replace("{}", str(product)).replace("{stem}", str(product.with_suffix("")))
    return BESIDE.sub(lambda name: str(product.with_name(name[1])), word)


class Step:
    """One step: its name, its output so far, and its line on the screen. final: the file or folder that it makes."""

    def __init__(self, name: str, target: Path, labelled: bool = False):
        self.name, self.target, self.started = name, target, time.time()
        self.final = target.parent if target.name == "MANIFEST" else target
        self.label = " ".join(target.parts[1:2] + target.parts[4:-1]) if labelled else ""
        self.output, self.progress, self.names = bytearray(), "", ("", "")
        self.where, self.counts = "", ""  # set for steps that run on another machine
        self.moves = sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("V")
        self.columns = max(10, min(WIDTH, shutil.get_terminal_size().columns) - 12)  # for the text of a moving line

    def perform(self, commands: list[list[str]], box: Path) -> tuple[Path, dict]:
        """Run commands in an empty folder: (the path of what they wrote, when and where they ran). In messages that path appears
        as `final`. Raises UserError if a command fails or is missing."""
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
        place = {"host": platform.node(), "platform": platform.platform(), "machine": cpu.machine()}
        return product, {"started": started, "ended": time.time(), **place}

    def call(self, command: list[str]) -> int:
        """Run a command and keep its output: its exit status, negative for a signal. Raises FileNotFoundError if it is missing."""
        reader, writer = pty.openpty() if self.moves else os.pipe()  # progress bars draw only on a terminal
        with os.fdopen(reader, "rb", 0) as output:
            with os.fdopen(writer, "wb", 0) as end:
                if self.moves:  # a new terminal has 0 columns, so that progress bars would draw nothing
                    termios.tcsetwinsize(end, (24, self.columns))
                env = os.environ | {"BERT2OM_STEP": self.name}
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=end, stderr=end, env=env,
                                           preexec_fn=child)  # fmt: skip
            try:
                self.listen(output, process)
                return process.wait()
            except KeyboardInterrupt:
                self.moves = False
                with contextlib.suppress(subprocess.TimeoutExpired):  # our programs get the Ctrl-C too, and clean up
                    process.wait(timeout=2)
                process.kill()
                raise
            finally:
                moving("")

    def listen(self, output, process: subprocess.Popen) -> None:
        """Read the output of a command until it ends, even if a child that outlives it holds the pipe open."""
        while True:
            if not select.select([output], [], [], 0.5)[0]:
                if process.poll() is not None:
                    return
                self.move()
                continue
            try:
                chunk = output.read(1 << 16)
            except OSError:  # the terminal was closed
                return
            if not chunk:
                return
            self.take(chunk)

    def take(self, chunk: bytes) -> None:
        """Keep a piece of output. A line that ends in a carriage return is progress, which is shown and not kept."""
        self.output += chunk.replace(b"\r\n", b"\n")
        *_, last = self.output.rsplit(b"\n", 1)
        if b"\r" in last:
            self.progress = last.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode(errors="replace").strip()
        if os.environ.get("V"):
            print(chunk.decode(errors="replace").replace(*self.names), end="", flush=True)
        self.move()

    def move(self) -> None:
        """Show on a terminal what the step is doing, once it has run for PATIENCE seconds."""
        seconds = time.time() - self.started
        if self.moves and seconds > PATIENCE:
            text = self.progress or f"{seconds:.0f} s ..."
            moving(f"{self.name:<10} {text[: self.columns]}")

    def log_text(self) -> str:
        """The output without progress lines and temporary paths."""
        lines = self.output.decode(errors="replace").split("\n")
        return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines).replace(*self.names)

    def headline(self) -> str:
        """The line of the output that says most: that of a gate, or else the last one."""
        lines = [line for line in self.log_text().splitlines() if line.strip()]
        gates = [line for line in lines if line.startswith("gate:")]
        others = [line for line in lines if not line.startswith(("wrote", "[INFO]"))]
        return (gates or others or lines or [""])[-1].removeprefix("[INFO] ")

    def print_line(self, text: str = "") -> None:
        """Print the line of a step that has ended."""
        words = DEMONSTRATION + ": ".join(part for part in (self.label, self.where, text or self.headline()) if part)
        if len(words) > WIDTH - 11 and "gate:" not in words:  # the line of a gate is never cut: it names what differs
            words = f"{words[: WIDTH - 15]} ..."
        words += f"  [{self.counts}]" * bool(self.counts)
        seconds = f"{time.time() - self.started:.1f} s"
        screen = sys.stderr if os.environ.get("BERT2OM_SCREEN") == "stderr" else sys.stdout  # make score OUT=-
        print(f"{self.name:<10} {words:<{WIDTH - 11}} {seconds:>8}", file=screen, flush=True)

    def print_log(self) -> None:
        """Show the whole output of a step that has failed."""
        if not os.environ.get("V"):
            print(self.log_text(), end="", file=sys.stderr, flush=True)
