"""The project's own engine: the file that it runs, and the C code. Imports graph and below."""
