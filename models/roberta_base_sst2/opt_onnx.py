"""RoBERTa-base SST-2, the recipe's own command: the simplified graph as CANN's fusions want it; its batch and length.

python3 opt_onnx.py outputs/roberta_base_seq70_bs1_sim.onnx outputs/roberta_base_seq70_bs1_opt.onnx 1 70
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import modelzoo

if __name__ == "__main__":
    cli.run(lambda: modelzoo.opt_onnx(__doc__, flags=False))
