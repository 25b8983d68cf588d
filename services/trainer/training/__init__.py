"""Training, in a process of its own: the only part of the trainer that imports torch."""
