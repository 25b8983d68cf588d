"""Counts the tokens that the policy was paid for, whether anybody kept them or not."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import policy_in_front
from ratchet.contracts.policy import Candidate, GenerateRequest, GenerateResponse


@dataclass
class Counted:
    """What the policy has written."""

    tokens: int = 0

    def rewrite(self, asked: GenerateRequest, answered: GenerateResponse) -> list[list[Candidate]]:
        """See `policy_in_front.Rewrite`: nothing is changed."""
        self.tokens += sum(each.tokens for row in answered.candidates for each in row)
        return answered.candidates


@contextlib.contextmanager
def counting(url: str, port: int) -> Iterator[Counted]:
    """Stand before the policy at `url`, on this port, while the block runs."""
    counted = Counted()
    with policy_in_front.served(policy_in_front.app(url, counted.rewrite), port):
        yield counted
