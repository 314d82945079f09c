#!/usr/bin/env bash
# bert_bin/ through TinyBERT_bs$1.om to a new folder in result/, with the Python that has ais_bench (AIS_PYTHON, or python3).
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# == 1 && $1 =~ ^[1-9][0-9]{0,2}$ ]] || { echo "usage: bash ./test/ais_inference.sh BATCH_SIZE    (as 8)" >&2; exit 2; }

# ais_bench makes result/ itself, and refuses one that the group may write.
umask 022
"${AIS_PYTHON:-python3}" -m ais_bench --model "./TinyBERT_bs$1.om" --input "./bert_bin/input_ids,./bert_bin/segment_ids,./bert_bin/input_mask" \
    --output ./result --outfmt TXT --batchsize "$1"
