"""What several stages share and no stage owns: files of inputs and outputs, ONNX files, the CPU. Imports cli alone."""
