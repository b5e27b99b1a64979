"""The path of a packet against the kernel: hosts of namespaces, random rules, real packets."""
