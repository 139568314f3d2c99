"""From a layer's weights to its row of values: the register of quantities and what they share."""
