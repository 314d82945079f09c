"""The environment: install, doctor, clean, new models. It may import checks and what stands before that."""
