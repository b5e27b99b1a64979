"""Every output as a person reads it, as files that one can open."""
