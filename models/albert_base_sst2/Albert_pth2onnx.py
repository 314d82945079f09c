"""ALBERT-base SST-2, the recipe's own command: albert_pytorch's folder to <onnx_dir>/albert_seq128_bs32.onnx.

    python3 ./Albert_pth2onnx.py --batch_size=32 --pth_dir=./albert_pytorch/outputs/SST-2/ \\
        --data_dir=./albert_pytorch/datasets/SST-2/ --onnx_dir=./outputs/ --max_seq_length=128
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import modelzoo

if __name__ == "__main__":
    cli.run(lambda: modelzoo.albert_pth2onnx(__doc__))
