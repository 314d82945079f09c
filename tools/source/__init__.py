"""Where sentences and weights come from: downloads, SST-2, tokens, checkpoints, the adapter. Imports base."""
