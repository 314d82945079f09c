"""The GPU route: trtexec, and the graph with fp16 types that TensorRT 11 takes. Imports graph and below."""
