"""Records of measurements, and the tables, pictures and page made from them. Imports ascend, gpu and below."""
