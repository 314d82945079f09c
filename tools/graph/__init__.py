"""ONNX graphs: export, simplify, rewrite, pack, and the numeric gate between each two. Imports base and source."""
