"""Which right word was most likely meant: `, is BATCHES meant?`, or nothing where none is near.

python3 -m tools.setup.nearest PRECISON PRECISION ENGINE
, is PRECISION meant?
"""

import argparse
import difflib


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("word", help="what was typed")
    p.add_argument("right", nargs="+", help="the words that there are")
    args = p.parse_args()
    near = difflib.get_close_matches(args.word, args.right, 1) or difflib.get_close_matches(
        args.word.upper(), args.right, 1
    )
    if near:
        print(f", is {near[0]} meant?")


if __name__ == "__main__":
    main()
