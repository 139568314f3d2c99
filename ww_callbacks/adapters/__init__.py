"""Code shared by the adapters of all frameworks: base class, model structure, training metrics, best weights."""
