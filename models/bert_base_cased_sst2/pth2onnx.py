"""BERT-base cased SST-2, ONNX: python3 pth2onnx.py --model_dir FOLDER --save_path model.onnx"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import pth2onnx, run

run(pth2onnx.pth2onnx, __doc__)
