#!/usr/bin/env bash
# glue_dir/SST-2/dev.tsv to bert_bin/{input_ids,segment_ids,input_mask}/input0.bin ... and bert_bin/labels.json.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# == 0 ]] || { echo "usage: bash ./test/preprocess_data.sh" >&2; exit 2; }

python3 preprocess.py --text_file ./glue_dir/SST-2/dev.tsv --tokenizer_path ./SST-2_model --seq_len 64 \
    --save_path ./bert_bin
