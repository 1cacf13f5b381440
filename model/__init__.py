"""The classifier, its training step, and what is made of it afterwards."""
