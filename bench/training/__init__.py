"""Training and evaluating, alone or as a stack. Torch and NumPy only."""
