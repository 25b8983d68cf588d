"""The speed and memory of the sandbox service, measured beside baselines: `python -m benchmarks.sandbox_speed`."""
