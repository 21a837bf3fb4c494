"""Everything between Python and libeosfm: header, binding, streams and GGUF; no torch."""
