"""The environment: doctor, lock files, bill of materials. Imports bench and below."""
