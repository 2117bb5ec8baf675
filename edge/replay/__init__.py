"""What a log says once more: decisions explained by evaluating them again."""
