def listeners(timeout=1): return b""
