"""RoBERTa-base SST-2, the recipe's own ONNX:

    python3 RoBERTa_pth2onnx.py --checkpoint_path checkpoints/ --checkpoint_file checkpoint.pt \\
        --data_name_or_path ./data/SST-2-bin --onnx_path outputs --batch_size 1 --pad_length 70
"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import modelzoo, run

run(modelzoo.roberta_pth2onnx, __doc__)
