"""What the Makefile starts: the answer of tools/make/makefile.py on stdout, or one line of what is wrong and status 1.

    python3 -m tools.make.__main__ 1234 "accuracy" MODEL=minilm_sst2
    override MODEL := minilm_sst2¶override WEIGHTS := default¶ ...

Apart from that file so that any Python can read this one, and say in one line what is broken in the others.
"""

# ruff: noqa: UP036, UP031, PTH120, PTH100, UP032
import os
import sys


def main():
    if sys.version_info < (3, 11):
        return "Python 3.11 or newer is needed, not %d.%d; name one, as PYTHON=python3.11" % sys.version_info[:2], 1
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    try:
        from tools.make import cli, makefile
    except Exception as e:  # a tool that is broken
        return "%s:%s: %s: %s; mend it" % (
            getattr(e, "filename", "tools"),
            getattr(e, "lineno", ""),
            type(e).__name__,
            e,
        ), 1
    try:
        return makefile.answer(*sys.argv[1:]), 0
    except cli.UserError as e:
        return str(e), 1
    except OSError as e:
        return "%s: %s" % (e.filename or "input/output", e.strerror or e), 1
    except Exception as e:
        return "tools/make/makefile.py: %s: %s" % (type(e).__name__, e), 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--help"]:
        sys.exit(print(__doc__))
    try:
        text, status = main()
    except KeyboardInterrupt:
        sys.exit(130)
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.exit(status)
