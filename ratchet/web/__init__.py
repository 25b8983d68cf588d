"""What every HTTP service shares: the app with its problem documents, and what is said when something is away."""
