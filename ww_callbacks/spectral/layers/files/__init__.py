"""Files and state dicts to layers."""
