"""TinyBERT SST-2: sentences to int64 inputs, bert_bin/input_ids/input0.bin ... and bert_bin/labels.json.

    python3 preprocess.py --text_file ./glue_dir/SST-2/dev.tsv --tokenizer_path ./SST-2_model --seq_len 64 \\
        --save_path ./bert_bin
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli, models
from tools.recipe import preprocess

if __name__ == "__main__":
    cli.run(lambda: preprocess.preprocess(__doc__, models.inputs(__file__), first_index=0, prefix="input"))
