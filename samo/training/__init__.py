"""The one trainer and what it is made of: losses, optimisation, checkpoints, runtime."""
