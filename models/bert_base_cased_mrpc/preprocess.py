"""BERT-base cased MRPC: pairs of sentences to int64 inputs, data_bin/input_ids/1.bin ... and data_bin/labels.json.

    python3 preprocess.py --text_file data/MRPC/dev.tsv --tokenizer_path bert-base-cased-finetuned-mrpc \\
        --seq_len 128 --task mrpc --save_path data_bin
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli, models
from tools.recipe import preprocess

if __name__ == "__main__":
    cli.run(lambda: preprocess.preprocess(__doc__, models.inputs(__file__)))
