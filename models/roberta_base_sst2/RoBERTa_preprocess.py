"""RoBERTa-base SST-2, the recipe's own command: rows of src_tokens in <data_path>/roberta_base_bin_<pad_length>.

python3 RoBERTa_preprocess.py --data_path ./data/SST-2-bin --pad_length 70
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import modelzoo

if __name__ == "__main__":
    cli.run(lambda: modelzoo.roberta_preprocess(__doc__))
