"""The project's own code, one folder per stage of the pipeline, and `run` beside them, which makes one artefact whole.

Each folder imports only what stands before it: cli, run, base, source, graph, recipe, cpu, gpu, ascend, results,
checks, bench, setup (test/test_layers.py holds them to it). Modules run from the top folder of the checkout, as
`python3 -m tools.graph.simplify --help`.
"""
