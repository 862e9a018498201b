"""The same faults, the same deaths, the same cluster: this harness beside Chaos Toolkit."""
