"""ALBERT-base SST-2, the recipe's own command: rows of three inputs and label.npy in <save_dir>.

    python3 Albert_preprocess.py --pth_dir=./albert_pytorch/outputs/SST-2/ \\
        --data_dir=./albert_pytorch/dataset/SST-2/ --save_dir ./preprocessed_data_seq128 --max_seq_length 128
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import modelzoo

if __name__ == "__main__":
    cli.run(lambda: modelzoo.albert_preprocess(__doc__))
