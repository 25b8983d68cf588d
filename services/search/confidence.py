"""How likely is an answer right? A logistic model over what the search saw, fitted on development problems.

Limits: the coefficients were fitted on searches of GSM8K training problems by the `small` model (docs/measurements.md says
which, and how well it is calibrated). For another model or other problems it ranks answers and is no promise.
"""

import math
from collections.abc import Sequence

from ratchet.contracts.search import VerificationLevel
from services.search.votes import Group

INTERCEPT = -2.2
SHARE = 3.2
LOG_VOTES = 0.45


def confidence(
    level: VerificationLevel, chosen: Group, groups: Sequence[Group], confirmed_programs: int
) -> float:
    """Probability in [0, 1] that the chosen answer is right; 1 where it equals a given reference."""
    if level is VerificationLevel.REFERENCE:
        return 1.0
    if not confirmed_programs:
        return 0.0
    del groups
    score = INTERCEPT + SHARE * chosen.share + LOG_VOTES * math.log(max(1, chosen.votes))
    return 1.0 / (1.0 + math.exp(-score))
