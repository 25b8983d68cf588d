"""Counts what passed and keeps what was measured, for the last line of `make test-page`."""

from typing import Any

import pytest


class Report:
    """A pytest plugin."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.skipped = 0
        self.figures: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Pytest's hook: one phase of one test."""
        if report.failed:
            self.failed += 1
        elif report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.passed += 1

    def line(self) -> dict[str, Any]:
        """What the run came to."""
        return {"passed": self.passed, "failed": self.failed, "skipped": self.skipped, **self.figures}
