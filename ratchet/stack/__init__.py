"""The local stack: real servers and services as children of one process, without root or containers."""
