"""Measurements that run the model: representation, Jacobian and Hessian ranks. torch is imported only when used."""
