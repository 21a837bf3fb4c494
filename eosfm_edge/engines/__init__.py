"""TensorRT engines: built from a bundle's graphs, kept beside them under a key, and run."""
