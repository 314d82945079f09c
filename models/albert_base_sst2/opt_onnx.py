"""ALBERT-base SST-2, the optimised graph: python3 opt_onnx.py --input_file sim.onnx --output_file opt.onnx"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import modelzoo, run

run(modelzoo.opt_onnx, __doc__, flags=True)
