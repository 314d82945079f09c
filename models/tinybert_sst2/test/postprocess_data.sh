#!/usr/bin/env bash
# Accuracy of the outputs in result/$1.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# == 1 && $1 =~ ^[A-Za-z0-9_.-]+$ ]] ||
    { echo "usage: bash ./test/postprocess_data.sh NAME    (a folder in result/)" >&2; exit 2; }

python3 postprocess.py --output_path "./result/$1" --label_path ./bert_bin/labels.json
