"""TinyBERT SST-2, accuracy: python3 postprocess.py --output_path result/NAME --label_path bert_bin/labels.json"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import postprocess, run

run(postprocess.postprocess, __doc__, word="acc:")
