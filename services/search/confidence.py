"""How likely is an answer right? A logistic model over what the search saw, fitted on development problems.

Limits: the coefficients were fitted on 60 searches of GSM8K training problems by `small`; docs/measurements/trust.md says how
well they are calibrated. For another model or other problems the number ranks answers and is no promise.
"""

import math
from collections.abc import Sequence

from ratchet.contracts.search import VerificationLevel
from services.search.votes import Group

INTERCEPT = -3.5
SHARE = 1.25
LOG_VOTES = 1.4


def confidence(level: VerificationLevel, chosen: Group, groups: Sequence[Group], *, confirmed: bool) -> float:
    """Probability in [0, 1] that the chosen answer is right; 1 where it equals a given reference.

    `confirmed`: whether a re-executed program gave the answer again; without one nothing is believed.
    """
    if level is VerificationLevel.REFERENCE:
        return 1.0
    if not confirmed:
        return 0.0
    share = chosen.votes / sum(group.votes for group in groups)
    score = INTERCEPT + SHARE * share + LOG_VOTES * math.log(chosen.votes)
    return 1.0 / (1.0 + math.exp(-score))
