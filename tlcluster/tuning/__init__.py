"""The search for better recipes, on the validation split."""
