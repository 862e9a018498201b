"""The product through real kind, with the rig of tests/rigs/kind: `make test-kind`."""
