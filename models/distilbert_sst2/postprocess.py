"""DistilBERT SST-2: accuracy of the outputs of an inference run.

python3 postprocess.py --output_path ./data_bin/output --label_path ./data_bin/labels.json
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.make import cli
from tools.recipe import postprocess

if __name__ == "__main__":
    cli.run(lambda: postprocess.postprocess(__doc__))
