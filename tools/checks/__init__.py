"""Checks of the chain of files and records: audit, verify, reproduce. It may import results and what stands before that."""
