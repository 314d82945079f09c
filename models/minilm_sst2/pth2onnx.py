"""MiniLM-L6 SST-2: checkpoint to ONNX, dynamic batch and length, opset 11.

python3 pth2onnx.py --model_dir ../../build/minilm_sst2/default/checkpoint --save_path minilm_sst2.onnx
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli, models
from tools.recipe import pth2onnx

if __name__ == "__main__":
    cli.run(lambda: pth2onnx.pth2onnx(__doc__, models.inputs(__file__)))
