"""What several stages share and no stage owns: tasks, files of inputs and outputs, ONNX files, logs, and what is known of CANN
and TensorRT (trip.py, which also runs a kit). Imports make alone."""
