#!/usr/bin/env bash
# TinyBERT_sim_bs$1.onnx to TinyBERT_bs$1.om for chip $2: 310P3 and the like, or 710, the 310P3's old name.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# == 2 && $1 =~ ^[1-9][0-9]{0,2}$ && $2 =~ ^[0-9][0-9A-Za-z_]*$ ]] ||
    { echo "usage: bash ./test/onnx2om.sh BATCH_SIZE CHIP    (as 8 310P3)" >&2; exit 2; }

PYTHONPATH=../.. python3 -m tools.ascend.atc --implmode Gelu=high_performance -- --framework=5 --input_format=ND --log=error \
    --model="./TinyBERT_sim_bs$1.onnx" --output="./TinyBERT_bs$1" --soc_version="Ascend$2" \
    --input_shape="input_ids:$1,64;segment_ids:$1,64;input_mask:$1,64"
