"""TinyBERT SST-2, ONNX: python3 pth2onnx.py --input_model SST-2_model --data_dir glue_dir/SST-2 --output_file model.onnx"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import pth2onnx, run

run(pth2onnx.pth2onnx, __doc__)
