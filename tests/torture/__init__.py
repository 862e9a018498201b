"""Real deaths on a real cluster: the product is killed at every step, and somebody else cleans up."""
