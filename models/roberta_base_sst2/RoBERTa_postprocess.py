"""RoBERTa-base SST-2, own accuracy: python3 RoBERTa_postprocess.py --res_path results/seq70_bs1 --data_path data/SST-2-bin"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import modelzoo, run

run(modelzoo.postprocess, __doc__, outputs="--res_path", labels="--data_path", folder="SST-2")
