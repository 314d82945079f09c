"""ALBERT-base SST-2, own accuracy: python3 Albert_postprocess.py --result_dir results/seq128_bs32 --label_path ./label.npy"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import modelzoo, run

run(modelzoo.postprocess, __doc__, outputs="--result_dir", labels="--label_path")
