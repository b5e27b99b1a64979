def tables(timeout=1): return []
