"""What must drive the model: representation, Jacobian and Hessian ranks. Each module imports torch only when used."""
