"""What the adapters of all frameworks share: their base class, the model's structure, training metrics."""
