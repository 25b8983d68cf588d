"""What policy and PRM share: which model versions they hold, and which one answers where none is named."""

from typing import Annotated, Literal

from pydantic import Field

from ratchet.contracts.base import Contract, Text

MODEL_VERSION = r"^[A-Za-z0-9][A-Za-z0-9._/@+-]{0,199}$"
PRM1 = "prm1-likelihood"
"""The PRM that needs no training. The PRM service always holds it."""

FormatName = Literal["markers", "few_shot", "chat"]
"""The step formats (`ratchet.solutions.step_formats`)."""

ModelVersion = Annotated[str, Field(pattern=MODEL_VERSION, examples=["nano-r2@3f2a91c0"])]


class LoadModel(Contract):
    """Body of `PUT /models/{version}`: hold this version beside the others. Loading it again changes nothing."""

    uri: Annotated[Text, Field(min_length=1, max_length=2000)] = Field(
        description="A local folder with a safetensors checkpoint, a hub id, or a name of a mirror.",
        examples=["/data/rounds/2/policy"],
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="Of the checkpoint, as the registry has it. Other content is refused with 422.",
    )


class ServeModel(Contract):
    """Body of `POST /serving`: answer with this loaded version where a request names none."""

    version: ModelVersion


class HeldModel(Contract):
    """One version that the service holds."""

    version: str
    uri: str
    sha256: str | None
    serving: bool = Field(description="Answers requests that name no version.")
    configured: bool = Field(
        description="The service's settings name it, so that it serves in place of a pair that does not descend from it."
    )
    step_format: str | None = Field(
        default=None,
        description="Of a policy: how it is asked for steps (markers, few_shot, chat). None of a PRM.",
    )


class HeldModels(Contract):
    """All versions that the service holds, the serving one first."""

    models: list[HeldModel]
