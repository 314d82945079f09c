"""ALBERT-base SST-2, the recipe's own command: accuracy of the outputs.

    python3 Albert_postprocess.py --result_dir results/seq128_bs32 \\
        --label_path preprocessed_data_seq128/label.npy
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import modelzoo

if __name__ == "__main__":
    cli.run(lambda: modelzoo.albert_postprocess(__doc__))
