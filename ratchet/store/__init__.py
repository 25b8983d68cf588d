"""What must survive a crash: searches and their trees, the model registry, rounds. Postgres is the only truth."""
