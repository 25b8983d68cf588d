"""What runs inside the jail. It uses the standard library alone, and nothing of the rest of the project."""
