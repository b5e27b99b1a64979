"""The path of a packet, without a kernel."""
