"""What the services say to one another: one module of typed requests and responses per service."""
