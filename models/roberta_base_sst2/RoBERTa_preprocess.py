"""RoBERTa-base SST-2, own inputs: python3 RoBERTa_preprocess.py --data_path data/SST-2-bin --pad_length 70"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import modelzoo, run

run(modelzoo.roberta_preprocess, __doc__)
