#!/usr/bin/env bash
# SST-2_model/ to TinyBERT_bs$1.onnx and TinyBERT_sim_bs$1.onnx, fixed at batch $1 and 64 tokens.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# == 1 && $1 =~ ^[1-9][0-9]{0,2}$ ]] || { echo "usage: bash ./test/pth2onnx.sh BATCH_SIZE    (as 8)" >&2; exit 2; }

python3 pth2onnx.py --output_file "./TinyBERT_bs$1.onnx" --data_dir ./glue_dir/SST-2 --max_seq_length 64 \
    --eval_batch_size "$1" --do_lower_case --input_model ./SST-2_model
python3 -m onnxsim "TinyBERT_bs$1.onnx" "TinyBERT_sim_bs$1.onnx"
