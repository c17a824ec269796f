"""Methods: one file each, plain PyTorch for ONE model, readable beside its paper."""
