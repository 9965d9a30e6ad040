"""What happens beside the training step, one file each. All rhythms are in optimizer steps."""
