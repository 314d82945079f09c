"""The program that the Makefile starts: print the answer of tools/make/makefile.py, or one line of error and exit with 1.

    python3 -m tools.make.__main__ 1234 "accuracy" MODEL=minilm_sst2
    override MODEL := minilm_sst2¶override WEIGHTS := default¶ ...

It is a file of its own so that any Python can parse it, and say in one line what is wrong with the others.
"""

# ruff: noqa: UP036, UP031, PTH120, PTH100, UP032
import os
import signal
import sys


def main():
    """(make's text, 0), or (one line of what is wrong, 1)."""
    if sys.version_info < (3, 11):
        return "Python 3.11 or newer is needed, not %d.%d; name one, as PYTHON=python3.11" % sys.version_info[:2], 1
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    try:
        from tools.make import makefile

        return makefile.answer(*sys.argv[1:]), 0
    except OSError as e:
        return "%s: %s" % (e.filename or "input/output", e.strerror or e), 1
    except Exception as e:
        if type(e).__name__ == "UserError":
            return str(e), 1
        import traceback

        last = [f for f in traceback.extract_tb(e.__traceback__) if "/tools/" in f.filename][-1]
        path, line = (e.filename, e.lineno) if isinstance(e, SyntaxError) else (last.filename, last.lineno)
        return "%s:%s: %s: %s; mend it" % (os.path.relpath(path), line, type(e).__name__, e), 1  # a tool that is broken


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # make, which has it too, says so
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if sys.argv[1:] == ["--help"]:
        sys.exit(print(__doc__))
    answer, status = main()
    sys.stdout.buffer.write(answer.encode("utf-8", "backslashreplace"))
    sys.exit(status)
