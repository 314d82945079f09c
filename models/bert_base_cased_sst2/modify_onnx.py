"""BERT-base cased SST-2, the target's graph: python3 modify_onnx.py sim.onnx ascend.onnx"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import modify, run

run(modify.modify, __doc__)
