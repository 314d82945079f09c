#!/usr/bin/env bash
# bert_bin/ through TinyBERT_bs$1.om to a new folder in result/, with the Python that has ais_bench (AIS_PYTHON, or python3).
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# == 1 && $1 =~ ^[1-9][0-9]{0,2}$ ]] || { echo "usage: bash ./test/ais_inference.sh BATCH_SIZE    (as 8)" >&2; exit 2; }

# ais_bench refuses a result/ that others may enter or the group may write.
mkdir -p ./result
chmod 750 ./result
"${AIS_PYTHON:-python3}" -m ais_bench --model "./TinyBERT_bs$1.om" --input "./bert_bin/input_ids,./bert_bin/segment_ids,./bert_bin/input_mask" \
    --output ./result --outfmt TXT --batchsize "$1"
