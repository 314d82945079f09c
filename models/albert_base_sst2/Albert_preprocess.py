"""ALBERT-base SST-2, the recipe's own inputs:

    python3 Albert_preprocess.py --pth_dir=./albert_pytorch/outputs/SST-2/ \\
        --data_dir=./albert_pytorch/dataset/SST-2/ --save_dir ./preprocessed_data_seq128 --max_seq_length 128
"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import modelzoo, run

run(modelzoo.albert_preprocess, __doc__)
