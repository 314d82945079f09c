"""RoBERTa-base SST-2, the optimised graph: python3 opt_onnx.py sim.onnx opt.onnx 1 70"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import modelzoo, run

run(modelzoo.opt_onnx, __doc__, flags=False)
