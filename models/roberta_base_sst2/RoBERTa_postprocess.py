"""RoBERTa-base SST-2, the recipe's own command: accuracy of the outputs, of all of them.

python3 RoBERTa_postprocess.py --res_path=./results/seq70_bs1/ --data_path=./data/SST-2-bin
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import modelzoo

if __name__ == "__main__":
    cli.run(lambda: modelzoo.roberta_postprocess(__doc__))
