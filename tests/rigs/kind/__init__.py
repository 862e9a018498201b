"""Real kind on a machine without an image registry: a Docker engine of its own, and a node image made here."""
