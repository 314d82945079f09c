"""RoBERTa-base SST-2, inputs: python3 preprocess.py --text_file dev.tsv --tokenizer_path FOLDER --save_path data_bin"""

import sys

sys.path.insert(0, f"{sys.path[0]}/../..")
from tools.recipe import preprocess, run

run(preprocess.preprocess, __doc__)
