"""ONNX graphs: export, simplify, rewrite, pack, [CLS] alone, and the numeric gate between each two. Imports base and source."""
