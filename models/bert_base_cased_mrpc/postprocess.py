"""BERT-base cased MRPC, accuracy: python3 postprocess.py --output_path data_bin/output --label_path data_bin/labels.json"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import postprocess, run

run(postprocess.postprocess, __doc__)
