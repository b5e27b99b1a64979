"""`doctor why`: what a word names, which findings concern it, what is said of it. Hosts are bundles of live engines."""
