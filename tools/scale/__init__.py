"""Score more than a file: what is read (files), made of it (scorer) and written (parts), here or on a cluster."""
