"""TinyBERT SST-2: checkpoint to ONNX, opset 11, dynamic batch and length unless --eval_batch_size fixes them.

    python3 pth2onnx.py --output_file ./TinyBERT_bs8.onnx --data_dir ./glue_dir/SST-2 --max_seq_length 64 \\
        --eval_batch_size 8 --do_lower_case --input_model ./SST-2_model
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli, models
from tools.recipe import pth2onnx

if __name__ == "__main__":
    cli.run(lambda: pth2onnx.pth2onnx(__doc__, models.inputs(__file__)))
