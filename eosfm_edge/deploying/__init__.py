"""The search for a ratio and a precision that meet budgets, and the road from there to a bundle."""
