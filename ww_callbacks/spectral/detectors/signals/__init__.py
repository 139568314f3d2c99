"""What overtraining is judged by: signals of the training, trends of validation values, the fitted formula."""
