"""RoBERTa-base SST-2: the simplified graph, rewritten for who gets it (--target).

python3 modify_onnx.py roberta_base_sst2_bs8.onnx roberta_base_sst2_bs8_md.onnx
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import modify

if __name__ == "__main__":
    cli.run(lambda: modify.modify(__doc__))
