"""ALBERT-base SST-2, the recipe's own command: the simplified graph as CANN's fusions want it.

    python3 opt_onnx.py --input_file ./outputs/albert_seq128_bs32_sim.onnx \\
        --output_file ./outputs/albert_seq128_bs32_opt.onnx
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import modelzoo

if __name__ == "__main__":
    cli.run(lambda: modelzoo.opt_onnx(__doc__, flags=True))
