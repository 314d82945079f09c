"""A model with its proof as a folder that travels: made, signed, and checked elsewhere. Imports setup and below."""
