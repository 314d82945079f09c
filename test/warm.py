"""A virtual environment whose Python starts warm: scripts and `-m tools.x` run in forks of one process that has loaded the
heavy packages, which take up to three seconds of each start. Of this project, nothing is loaded before the fork.

    python test/warm.py SOCKET     # the server; it loads the packages when the first start asks

A fork does what Python does in the folder, environment, limits and streams of the process that stands for it, and dies with
it. What starts in another namespace (unshare), with a library before it or with Python's own variables, is the real
Python's; so is what a test kills or looks at as a process.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import marshal
import os
import resource
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
import types
from pathlib import Path

PACKAGES = """numpy onnx onnxruntime onnxsim onnx_ir.passes.common openvino pandas pydantic scipy.stats pyarrow.parquet tokenizers
    torch.onnx transformers.models.bert.modeling_bert transformers.models.auto.tokenization_auto"""

SPACES = [f"/proc/self/ns/{kind}" for kind in ("user", "mnt", "net", "uts", "time")]
# What stands in the place of bin/python. A start that is none of ours, or has a closed stream, is the real Python's.
START = r"""#!{real} -IS
import marshal, os, resource, sys
import _signal, _socket
words = sys.argv[1:]
ours = words[:1] == ["-m"] and "".join(words[1:2]).startswith(("tools.", "lab.", "ais_bench")) or words and words[0][:1] != "-"
plain = ("PYTHONPATH", "PYTHONHASHSEED", "PYTHONUNBUFFERED")
odd = [name for name in os.environ if name.startswith("PYTHON") and name not in plain or name == "LD_PRELOAD" and os.environ[name] != {preload!r}]
if ours and not odd and [*map(os.readlink, {spaces})] == {here}:
    try:
        streams = b"".join(os.dup(fd).to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
        server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        server.connect("{socket}")
        umask = os.umask(0o22)
        os.umask(umask)
        limits = [(kind, resource.getrlimit(kind)) for kind in range(16)]
        cores = list(os.sched_getaffinity(0))
        data = marshal.dumps((words, os.getcwd(), dict(os.environ), umask, limits, cores))
    except OSError:
        data = b""
    if data:
        server.sendmsg([len(data).to_bytes(8, "little")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
        server.sendall(data)
        child = int.from_bytes(server.recv(4), "little")
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
            if _signal.getsignal(number) != _signal.SIG_IGN:
                _signal.signal(number, lambda number, _: os.kill(child, number))
        status = int.from_bytes(server.recv(4) or sys.exit("test/warm.py is gone"), "little")
        if os.WIFSIGNALED(status):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            _signal.signal(os.WTERMSIG(status), _signal.SIG_DFL)
            os.kill(os.getpid(), os.WTERMSIG(status))
        os._exit(os.waitstatus_to_exitcode(status))
os.execv("{real}", ["{real}", *words])
"""


def start(folder: Path, real: Path, within=()) -> subprocess.Popen:
    """The server, within another program; and in `folder`, a virtual environment like `real` whose bin/python is START."""
    (folder / "venv/bin").mkdir(parents=True)
    for path in (*real.iterdir(), *(real / "bin").iterdir()):
        if path.name != "bin" and not path.name.startswith("python"):
            (folder / "venv" / path.relative_to(real)).symlink_to(path)
    python, server, here = folder / "venv/bin/python", folder / "socket", [*map(os.readlink, SPACES)]
    preload = os.environ.get("LD_PRELOAD")
    python.write_text(START.format(real=real / "bin/python", socket=server, spaces=SPACES, here=here, preload=preload))
    python.chmod(0o755)
    python.with_name("python3").symlink_to("python")
    env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    env |= {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PYTHONPATH": ""}
    return subprocess.Popen([*within, real / "bin/python", __file__, server], env=env)


def run(words: list[str], folder: str, environ: dict, umask: int, limits: list, cores: list, streams: list) -> None:
    """What a Python does that starts with these words."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", 1 if os.isatty(1) else -1, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.umask(umask)
    os.chdir(folder)
    os.sched_setaffinity(0, cores)
    for kind, most in limits:
        resource.setrlimit(kind, most)
    os.environ.clear()
    os.environ.update(environ)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    first = folder if words[0] == "-m" else str(Path(words[0]).resolve().parent)
    sys.path[:0] = [first, *filter(None, environ.get("PYTHONPATH", "").split(":"))]
    if words[0] == "-m":
        sys.argv = ["-m", *words[2:]]
        runpy._run_module_as_main(words[1])  # which is what -m calls
    sys.argv, main.__file__ = words, words[0]
    exec(compile(Path(words[0]).read_bytes(), words[0], "exec"), main.__dict__)


def end(*asked) -> None:
    """`run`, and end as Python does, but for what C++ clears up: it would wait for threads that a fork has not."""
    status: object = 1
    try:
        run(*asked)
        status = 0
    except SystemExit as e:
        status = e.code or 0
    except BaseException:
        traceback.print_exc()
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    with contextlib.suppress(BrokenPipeError):
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    os._exit(status & 255)


def serve(address: str) -> None:
    """Fork for each start, and hand its status back when the child has ended."""
    sys.executable = str(Path(address).with_name("venv") / "bin/python")  # so that what a start starts is warm, too
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    children: dict[int, socket.socket] = {}
    while True:
        ready, *_ = select.select([listener, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with children.pop(ended[0]) as connection, contextlib.suppress(OSError):
                    connection.sendall(struct.pack("<i", ended[1]))
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        try:
            head, streams, *_ = socket.recv_fds(connection, 8, 3)
            with connection.makefile("rb") as f:
                asked = marshal.loads(f.read(*struct.unpack("<Q", head)))
        except (OSError, ValueError, EOFError, struct.error):  # who asked is gone
            connection.close()
            continue
        if "numpy" not in sys.modules:
            for name in PACKAGES.split():
                importlib.import_module(name)
            atexit._clear()
            gc.freeze()
        if not (child := os.fork()):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(connection, fcntl.F_SETFL, os.O_ASYNC)  # when START is gone, SIGIO ends this process
            try:
                connection.sendall(struct.pack("<i", os.getpid()))
                pid, *_ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                Path(f"/proc/{pid}/comm").read_bytes()  # so that a trace shows for which START this process works
            except OSError:  # START is gone already
                os._exit(1)
            end(*asked, streams)
        children[child] = connection
        for stream in streams:
            os.close(stream)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # with the process that started it
    sys.path.pop(0)
    serve(sys.argv[1])
