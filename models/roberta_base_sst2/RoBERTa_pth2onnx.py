"""RoBERTa-base SST-2, the recipe's own command: fairseq's checkpoint to <onnx_path>/roberta_base_seq70_bs1.onnx.

    python3 RoBERTa_pth2onnx.py --checkpoint_path checkpoints/ --checkpoint_file checkpoint.pt \\
        --data_name_or_path ./data/SST-2-bin --onnx_path outputs --batch_size 1 --pad_length 70
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import modelzoo

if __name__ == "__main__":
    cli.run(lambda: modelzoo.roberta_pth2onnx(__doc__))
