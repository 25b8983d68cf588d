"""What a search tells while it runs, one class for each kind of event."""

from dataclasses import dataclass

from ratchet.contracts.search import EventKind, NodeView, SearchEvent, SearchResult
from ratchet.service_client import ServiceError
from ratchet.states import SearchState


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The search is queued, or runs."""

    state: SearchState
    reason: str | None


@dataclass(frozen=True, slots=True)
class StepFound:
    """A step was executed, or what is known of it has changed: `node.id` tells them apart. Long texts are cut."""

    node: NodeView


@dataclass(frozen=True, slots=True)
class AnswerFound:
    """A trajectory ended in an answer."""

    node: str
    answer: str
    prm_score: float | None
    votes: int


@dataclass(frozen=True, slots=True)
class EventsLost:
    """Events before this one are no longer kept; the tree has all steps."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The search is over. The last event."""

    result: SearchResult


StreamEvent = StateChanged | StepFound | AnswerFound | EventsLost | Ended


def read_event(event: SearchEvent) -> StreamEvent:
    """The event in its class. Raises ServiceError where the service breaks the contract."""
    data = event.data
    try:
        match event.kind:
            case EventKind.STATE:
                return StateChanged(SearchState(data["state"]), data["reason"])
            case EventKind.NODE:
                return StepFound(NodeView.model_validate(data))
            case EventKind.ANSWER:
                return AnswerFound(data["node"], data["answer"], data["prm_score"], data["votes"])
            case EventKind.GAP:
                return EventsLost(data["reason"])
            case EventKind.END:
                return Ended(SearchResult.model_validate(data))
    except (KeyError, ValueError) as error:
        raise ServiceError("search", "sent an event that breaks the contract", str(error)) from error
