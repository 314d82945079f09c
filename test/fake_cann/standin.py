"""What the stand-ins share: they run in tests only, and what they make says so."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
MARK = "STAND-IN"  # the atc_version of every .om made here


def only_in_tests(name: str):
    if os.environ.get("BERT2OM_TEST_STANDIN") != "1":
        sys.exit(f"{name}: this is the test suite's stand-in, not the real tool; it runs only in tests")
