"""From a layer's weights to its row of values: the registry of quantities, cached intermediate results, estimates."""
